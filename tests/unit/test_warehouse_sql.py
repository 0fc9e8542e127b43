"""Migrations as files, the cluster's made of them, and which queries the HTTP port takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.warehouse.cluster import CLUSTER, cluster_text
from infra.warehouse.migrate import (
    FOLDER,
    cluster_migrations,
    drift_of,
    migrate,
    read_migrations,
    view_statements,
)
from infra.warehouse.serve import check_reading
from infra.warehouse.targets import TARGETS, Selection, structure, writer_schema
from schemas.errors import WarehouseError


class Books:
    """A ClickHouse that only remembers which migrations were applied."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.books: list[tuple[int, str, str]] = []

    def command(self, sql: str, parameters: dict[str, object] | None = None) -> None:
        self.commands.append(sql)
        if sql.startswith("INSERT INTO migrations") and parameters:
            self.books.append(
                (int(str(parameters["version"])), str(parameters["name"]), str(parameters["sha"]))
            )

    def rows(
        self, sql: str, parameters: dict[str, object] | None = None
    ) -> list[tuple[object, ...]]:
        return list(self.books) if "FROM migrations" in sql else []


def test_migrations_are_applied_once_and_in_order() -> None:
    books = Books()
    first = migrate(books)
    assert first.applied == tuple(one.name for one in read_migrations())
    assert not first.drift
    books.commands.clear()
    second = migrate(books)
    assert second.applied == ()
    assert not [sql for sql in books.commands if "MATERIALIZED" in sql]
    assert drift_of(books) == ()


def test_an_edited_migration_and_a_newer_one_are_drift_and_left_alone(tmp_path: Path) -> None:
    books = Books()
    migrate(books)
    books.books[0] = (1, books.books[0][1], "0" * 64)
    books.books.append((99, "099_later.sql", "1" * 64))
    report = migrate(books)
    assert report.applied == ()
    assert [line.split(" ")[0] for line in report.drift] == ["099_later.sql", "001_tables.sql"]


def test_a_gap_between_migrations_is_told(tmp_path: Path) -> None:
    for name in ("001_a.sql", "003_c.sql"):
        (tmp_path / name).write_text("SELECT 1;\n")
    with pytest.raises(WarehouseError, match=r"\[1, 3\], not 1 to 2"):
        read_migrations(tmp_path)


@pytest.mark.parametrize("one", read_migrations(), ids=lambda one: one.name)
def test_the_cluster_has_the_same_tables(one) -> None:  # type: ignore[no-untyped-def]
    text = (FOLDER / "cluster" / one.name).read_text()
    assert text == cluster_text(one.name, one.statements), "make it anew with cluster_text"


def test_a_cluster_gets_its_name() -> None:
    statements = [text for one in cluster_migrations("shop") for text in one.statements]
    assert not [text for text in statements if CLUSTER in text]
    assert sum("ON CLUSTER 'shop'" in text for text in statements) == len(statements)


def test_every_statement_may_run_twice() -> None:
    for one in read_migrations():
        for statement in one.statements:
            assert " IF NOT EXISTS " in statement.splitlines()[0]


def test_aggregates_and_views_are_those_of_the_files() -> None:
    made = {text.split()[6] for text in view_statements()}
    assert made == {aggregate.view for target in TARGETS for aggregate in target.aggregates}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.table)
def test_each_column_of_a_table_is_filled(target) -> None:  # type: ignore[no-untyped-def]
    text = read_migrations()[0]
    (table,) = [s for s in text.statements if f"EXISTS {target.table}\n" in s]
    columns = {
        line.split()[0]
        for line in table.splitlines()
        if line.startswith("    ") and "MATERIALIZED" not in line
    }
    selection = Selection(target, [("t", "east", 0)], "east", 1, "seal", 0)
    assert set(selection.columns()) == columns
    assert len(structure(target).split(", ")) == len(writer_schema(target)["fields"])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  with 1 as x select x;",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SHOW TABLES",
        "SELECT ';' AS a, 'into outfile' AS b -- ; into outfile",
        "/* a; b */ SELECT 1",
        "EXPLAIN SELECT 1",
    ],
)
def test_questions_are_taken(sql: str) -> None:
    check_reading(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO clicks VALUES (1)",
        "DROP TABLE clicks",
        "SELECT 1; DROP TABLE clicks",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT 1 into /* */ outfile '/tmp/x'",
        "SELECT file('/etc/passwd')",
        "SELECT * FROM file ('/etc/passwd', 'LineAsString')",
        "KILL QUERY WHERE 1",
        "SET readonly = 0",
        "USE system",
        "SYSTEM SHUTDOWN",
        "",
        "-- nothing",
    ],
)
def test_all_else_is_refused(sql: str) -> None:
    with pytest.raises(WarehouseError):
        check_reading(sql)
