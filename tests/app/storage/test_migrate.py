"""Migrations: once, in order, whole; and what is refused."""

import sqlite3
from collections.abc import Iterator

import pytest

from app.storage.migrate import DatabaseRefused, Migration, migrate, shipped_migrations

ONE = Migration(1, "0001_one.sql", "CREATE TABLE one (n INTEGER);\nINSERT INTO one VALUES (1);\n")
TWO = Migration(
    2,
    "0002_two.sql",
    "-- A trigger holds semicolons; so do strings.\nCREATE TABLE two (s TEXT);\n"
    "CREATE TRIGGER fill AFTER INSERT ON one BEGIN\n  INSERT INTO two VALUES ('a;b');\nEND;\n"
    "INSERT INTO one VALUES (2);\n-- the end\n",
)
BAD = Migration(3, "0003_bad.sql", "CREATE TABLE three (n INTEGER);\nINSERT INTO nowhere VALUES;\n")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    yield opened
    opened.close()


def test_each_migration_runs_once(connection: sqlite3.Connection) -> None:
    assert migrate(connection, [ONE], 5) == ["0001_one.sql"]
    assert migrate(connection, [ONE, TWO], 6) == ["0002_two.sql"]
    assert migrate(connection, [ONE, TWO], 7) == []
    assert connection.execute("SELECT n FROM one").fetchall() == [(1,), (2,)]
    assert connection.execute("SELECT s FROM two").fetchall() == [("a;b",)]
    rows = connection.execute("SELECT version, name, sha256, applied_at_ms FROM schema_migrations")
    assert rows.fetchall() == [
        (1, "0001_one.sql", ONE.sha256, 5),
        (2, "0002_two.sql", TWO.sha256, 6),
    ]


def test_a_failing_migration_leaves_nothing(connection: sqlite3.Connection) -> None:
    migrate(connection, [ONE, TWO], 5)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, [ONE, TWO, BAD], 6)
    assert not connection.in_transaction
    names = connection.execute("SELECT name FROM sqlite_master WHERE name = 'three'").fetchall()
    assert names == []
    assert migrate(connection, [ONE, TWO], 7) == []


def test_a_database_of_a_newer_program_is_refused(connection: sqlite3.Connection) -> None:
    migrate(connection, [ONE, TWO], 5)
    with pytest.raises(DatabaseRefused, match=r"newer Turnpike.*0002_two\.sql"):
        migrate(connection, [ONE], 6)


def test_an_edited_migration_is_refused(connection: sqlite3.Connection) -> None:
    migrate(connection, [ONE], 5)
    edited = ONE._replace(sql=ONE.sql + "-- harmless\n")
    with pytest.raises(DatabaseRefused, match=r"0001_one\.sql is not the one"):
        migrate(connection, [edited], 6)


def test_a_hole_is_refused(connection: sqlite3.Connection) -> None:
    migrate(connection, [TWO._replace(sql="CREATE TABLE x (n);\n")], 5)
    with pytest.raises(DatabaseRefused, match=r"0001_one\.sql is missing"):
        migrate(connection, [ONE, TWO._replace(sql="CREATE TABLE x (n);\n")], 6)


def test_a_script_that_breaks_off_is_an_error(connection: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="ends inside a statement"):
        migrate(connection, [ONE._replace(sql="CREATE TABLE one (n)")], 5)
    assert not connection.in_transaction


def test_shipped_migrations_are_numbered_from_one_and_apply(
    connection: sqlite3.Connection,
) -> None:
    shipped = shipped_migrations()
    assert [migration.version for migration in shipped] == list(range(1, len(shipped) + 1))
    connection.execute("PRAGMA foreign_keys=ON")
    assert len(migrate(connection, shipped, 5)) == len(shipped)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for table, strict in connection.execute("SELECT name, strict FROM pragma_table_list"):
        assert strict or table.startswith("sqlite_"), f"{table} takes any type"
