"""The `headrace` command: finds a command's module by name and loads only that one."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from schemas.errors import HeadraceError

# Command name -> (module, attribute, one-line help). The help stands here so that
# `headrace --help` imports nothing else.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "demo": (
        "infra.commands.demo",
        "demo",
        "Start Kafka, run the whole path on shoppers, show it live.",
    ),
    "up": ("infra.commands.cluster", "up", "Start a local region: real Kafka brokers, no Docker."),
    "down": (
        "infra.commands.cluster",
        "down",
        "Stop the local region; its data stays unless --wipe.",
    ),
    "status": ("infra.commands.cluster", "status", "Show brokers, topics, workers and lag."),
    "topics": ("infra.commands.topics", "topics", "Create all topics; report drift."),
    "schemas": (
        "infra.commands.schemas",
        "schemas",
        "Check schema compatibility; register schemas.",
    ),
    "clicks": ("infra.commands.clicks", "clicks", "Replay or simulate clicks into Kafka."),
    "worker": (
        "infra.commands.worker",
        "worker",
        "Run one worker: clicks in, recommendations out.",
    ),
    "recommendations": (
        "infra.commands.recommendations",
        "recommendations",
        "Read recommendations.",
    ),
    "model": ("infra.commands.model", "model", "Train and inspect models."),
    "state": ("infra.commands.state", "state", "Digest, compare and look into the feature state."),
    "warehouse": (
        "infra.commands.warehouse",
        "warehouse",
        "Clicks, answers and drills in ClickHouse.",
    ),
    "analytics": (
        "infra.commands.analytics",
        "analytics",
        "Ask the warehouse: click-through, funnels, retention, latency, drills.",
    ),
    "settings": ("infra.commands.settings", "settings", "Show the settings in force."),
}


class LazyGroup(click.Group):
    """A click group that imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute, _ = entry
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headrace", prog_name="headrace")
def headrace() -> None:
    """Headrace: clicks in, recommendations out, on Kafka."""


def main() -> None:
    """Entry point: any `HeadraceError` becomes one line on stderr and its exit code.

    A reader that went away (`headrace ... | head`) and Ctrl-C end it without a traceback,
    with the exit codes a shell expects.
    """
    try:
        code = headrace(standalone_mode=False)
    except HeadraceError as error:
        click.echo(f"headrace: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("headrace: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
