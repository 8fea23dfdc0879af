"""Migrations: once, in order, all or none; and what is refused."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.migrate import (
    DatabaseRefused,
    Due,
    Migration,
    check_current,
    migrate,
    shipped_migrations,
    upgrade_due,
)
from app.version import VERSION

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


def test_all_that_is_missing_is_one_unit(connection: sqlite3.Connection) -> None:
    """An upgrade that fails at its last step leaves what the older program wrote."""
    migrate(connection, [ONE], 5, "0.1.0")
    before = list(connection.iterdump())
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, [ONE, TWO, BAD], 6, "0.2.0")
    assert list(connection.iterdump()) == before


def test_a_database_of_a_newer_program_is_refused(connection: sqlite3.Connection) -> None:
    migrate(connection, [ONE], 5, "0.1.0")
    migrate(connection, [ONE, TWO], 6, "0.4.0")
    migrate(connection, [ONE, TWO], 7, "0.5.1")
    migrate(connection, [ONE, TWO], 8, "0.4.2")
    before = list(connection.iterdump())
    for refuses in (
        lambda: migrate(connection, [ONE], 9),
        lambda: check_current(connection, [ONE]),
    ):
        with pytest.raises(DatabaseRefused) as refusal:
            refuses()
        said = refusal.value.message
        assert said.startswith(
            f"This database needs Turnpike 0.4.0 or newer, and this is {VERSION}"
        )
        assert "last opened by 0.4.2" in said
        assert "0002_two.sql" in said
        assert "backup --list" in said
    assert list(connection.iterdump()) == before


def test_the_program_is_written_down_once(connection: sqlite3.Connection) -> None:
    for program in ("0.1.0", "0.1.0", "0.2.0", "0.2.0", "0.1.0"):
        migrate(connection, [ONE], 5, program)
    rows = connection.execute("SELECT version, schema FROM schema_programs ORDER BY id").fetchall()
    assert rows == [("0.1.0", 1), ("0.2.0", 1), ("0.1.0", 1)]


def test_a_newer_database_of_before_versions_were_written_down(
    connection: sqlite3.Connection,
) -> None:
    migrate(connection, [ONE, TWO], 5)
    connection.execute("DROP TABLE schema_programs")
    assert upgrade_due(connection, [ONE, TWO]) is None
    assert migrate(connection, [ONE, TWO], 6, "0.3.0") == []
    connection.execute("DROP TABLE schema_programs")
    with pytest.raises(DatabaseRefused, match=r"newer Turnpike than this one.*0002_two\.sql"):
        migrate(connection, [ONE], 6)


def test_what_is_due(connection: sqlite3.Connection) -> None:
    assert upgrade_due(connection, [ONE]) is None, "a new database lacks all, and is not upgraded"
    migrate(connection, [ONE], 5, "0.1.0")
    before = list(connection.iterdump())
    assert upgrade_due(connection, [ONE]) is None
    assert upgrade_due(connection, [ONE, TWO]) == Due([TWO], 1, "0.1.0")
    with pytest.raises(DatabaseRefused, match=r"older Turnpike \(Turnpike 0\.1\.0 opened it last"):
        check_current(connection, [ONE, TWO])
    assert list(connection.iterdump()) == before, "looking changes nothing"


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=8))
def test_any_order_of_programs_ends_in_a_database_that_the_newest_takes(
    starts: list[tuple[int, int]],
) -> None:
    """Programs of several schemas and versions, in any order: the older ones are refused and name
    a program that is able; nothing is ever undone."""
    steps = [
        Migration(n, f"{n:04d}_s.sql", f"CREATE TABLE t{n} (n INTEGER) STRICT;\n")
        for n in range(1, 5)
    ]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        newest = 0
        able: list[str] = []
        for schema, build in starts:
            version = f"0.{schema}.{build}"
            if schema < newest:
                with pytest.raises(DatabaseRefused, match=f"needs Turnpike {able[0]} or newer"):
                    migrate(connection, steps[:schema], 0, version)
                continue
            able = [*able, version] if schema == newest else [version]
            assert len(migrate(connection, steps[:schema], 0, version)) == schema - newest
            newest = schema


DIES = r"""
import os, signal, sqlite3, sys
from app.storage.migrate import Migration, migrate
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA cache_size=2")  # pages go out before the commit
connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
steps = [
    Migration(1, "0001_a.sql", "CREATE TABLE a (n INTEGER);\n"),
    Migration(2, "0002_b.sql", f"CREATE TABLE b (n, t);\n"
        f"INSERT INTO b {rows} SELECT i, hex(randomblob(50)) FROM n;\n"),
    Migration(3, "0003_c.sql", "CREATE TABLE c (n INTEGER);\nINSERT INTO c SELECT "
        + ("die()" if sys.argv[2] == "die" else "1") + ";\n"),
]
count = int(sys.argv[3])
print(migrate(connection, steps[:count], 0))
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_program_killed_in_its_last_migration_leaves_the_old_database(tmp_path: Path) -> None:
    path = str(tmp_path / "t.db")

    def start(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", DIES, path, *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert start("live", "1").returncode == 0
    assert start("die", "3").returncode == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as connection:
        tables = "SELECT name FROM sqlite_master WHERE name IN ('a', 'b', 'c')"
        assert connection.execute(tables).fetchall() == [("a",)]
        assert connection.execute("SELECT version FROM schema_migrations").fetchall() == [(1,)]
    assert "0002_b.sql" in start("live", "2").stdout
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM b").fetchone() == (5000,)


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
