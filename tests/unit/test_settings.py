"""Settings: one object, every fault at once, secrets masked, and a README that tells the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.commands.settings import settings as settings_command
from infra.commands.settings import settings_table
from schemas.errors import SettingsError
from streams.settings import Settings, load_settings

README = Path(__file__).parents[2] / "README.md"


def test_every_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_BATCH_MAX", "none")
    monkeypatch.setenv("HEADRACE_REGION", "No Region")
    monkeypatch.setenv("HEADRACE_BATCHMAX", "7")
    with pytest.raises(SettingsError) as caught:
        load_settings(partitions=0)
    message = str(caught.value)
    assert all(
        part in message
        for part in ("HEADRACE_BATCHMAX", "batch_max", "'none'", "region", "partitions")
    )


def test_arguments_beat_the_environment_which_beats_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "headrace.toml").write_text(
        'region = "from-file"\nlinger_ms = 3.5\nbatch_max = 7\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_LINGER_MS", "4.5")
    monkeypatch.setenv("HEADRACE_BATCH_MAX", "8")
    found = load_settings(batch_max=9, worker_id=None)
    assert (found.region, found.linger_ms, found.batch_max) == ("from-file", 4.5, 9)


def test_a_file_that_is_no_toml_is_one_clear_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "headrace.toml").write_text("region = ")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings()


def test_unknown_names_in_the_file_are_faults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_text('regoin = "east"\n')
    monkeypatch.setenv("HEADRACE_SETTINGS", str(tmp_path / "other.toml"))
    with pytest.raises(SettingsError, match="regoin"):
        load_settings()


def test_a_named_file_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_SETTINGS", str(tmp_path / "none.toml"))
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_settings()


def test_secrets_are_masked_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_KAFKA_PASSWORD", "open-sesame")
    assert "open-sesame" not in repr(load_settings())
    for arguments in ([], ["--json"]):
        result = CliRunner().invoke(settings_command, arguments)
        assert result.exit_code == 0, result.output
        assert "open-sesame" not in result.output


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_readme_has_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert settings_table() in text, "run `headrace settings --markdown` and put it into README.md"
