"""Brings a database to this program's schema: each migration once, in the order of its number.

All that a database lacks is one transaction, together with the record of it: however an upgrade is
interrupted, the file is as the older program left it, or as this one wants it.
"""

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

from app.errors import TurnpikeError
from app.storage.chain import Chain
from app.version import VERSION

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

_CREATE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version       INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL,
    sha256        TEXT    NOT NULL,
    applied_at_ms INTEGER NOT NULL
) STRICT
"""
# Which programs have worked on this file, oldest first. Programs of any age read it, so that they
# can name the version that is needed: it never changes, and databases without it are good ones.
_CREATE_PROGRAMS = """
CREATE TABLE IF NOT EXISTS schema_programs (
    id       INTEGER PRIMARY KEY,
    version  TEXT    NOT NULL,
    schema   INTEGER NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT
"""


class DatabaseRefused(TurnpikeError):
    """The database file is not one that this program may work on; the message says what to do."""


class Migration(NamedTuple):
    """One file of ``migrations/``; ``sha256`` is that of its text with ``\\n`` line ends."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped_migrations() -> list[Migration]:
    """The migrations that this program brings, by number."""
    folder = resources.files("app.storage").joinpath("migrations")
    found = []
    for file in folder.iterdir():
        match = _NAME.fullmatch(file.name)
        if match is not None:
            sql = file.read_text(encoding="utf-8").replace("\r\n", "\n")
            found.append(Migration(int(match[1]), file.name, sql))
    return sorted(found)


class Program(NamedTuple):
    """A program that worked on a database: its version, and the newest migration that it knew."""

    version: str
    schema: int


class Due(NamedTuple):
    """An upgrade that a database needs. ``schema`` is the newest migration that it has; ``program``
    the version that opened it last, None where that was before versions were written down."""

    missing: list[Migration]
    schema: int
    program: str | None


def upgrade_due(connection: sqlite3.Connection, migrations: list[Migration]) -> Due | None:
    """What a database lacks; None where that is nothing, and for a new one, which lacks all.

    Writes nothing. Raises DatabaseRefused as ``migrate`` does.
    """
    applied = _applied(connection)
    missing = _missing(connection, applied, migrations)
    if not applied or not missing:
        return None
    programs = _programs(connection)
    return Due(missing, max(applied), programs[-1].version if programs else None)


def check_current(connection: sqlite3.Connection, migrations: list[Migration]) -> None:
    """Raise DatabaseRefused where a database is not of this program's schema, or of none."""
    applied = _applied(connection)
    missing = _missing(connection, applied, migrations)
    if not missing:
        return
    programs = _programs(connection)
    by = f" (Turnpike {programs[-1].version} opened it last)" if programs else ""
    raise DatabaseRefused(
        f"It was written by an older Turnpike{by}, or by another program: it lacks"
        f" {missing[0].name}. Start this version on it once, which makes a backup and brings it up"
        " to date, or use the version that wrote it."
    )


def migrate(
    connection: sqlite3.Connection,
    migrations: list[Migration],
    now_ms: int,
    program: str = VERSION,
) -> list[str]:
    """Apply what is missing, all of it or nothing, and return its names. ``connection`` is in
    autocommit mode. ``program`` is written down as the one that opened the database last.

    Raises DatabaseRefused for a database that a newer program wrote, and for one whose applied
    migrations are not those that this program brings.
    """
    applied = _applied(connection)
    missing = _missing(connection, applied, migrations)
    now = Program(program, max((each.version for each in migrations), default=0))
    if not missing and _programs(connection)[-1:] == [now]:
        return []
    if missing:
        connection.create_function("chain_hash", 8, Chain())
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_CREATE)
        connection.execute(_CREATE_PROGRAMS)
        for migration in missing:
            _apply(connection, migration, now_ms)
        connection.execute(
            "INSERT INTO schema_programs (version, schema, since_ms) VALUES (?, ?, ?)",
            (*now, now_ms),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [migration.name for migration in missing]


def _missing(
    connection: sqlite3.Connection,
    applied: dict[int, tuple[str, str]],
    migrations: list[Migration],
) -> list[Migration]:
    """The migrations that were not applied. Raises DatabaseRefused where the others differ."""
    shipped = {migration.version: migration for migration in migrations}
    for version, (name, sha256) in sorted(applied.items()):
        migration = shipped.get(version)
        if migration is None:
            raise DatabaseRefused(_newer(name, max(applied), _programs(connection)))
        if migration.sha256 != sha256:
            raise DatabaseRefused(
                f"Migration {name} is not the one that was applied to this database: applied"
                f" sha256 {sha256[:12]}…, shipped {migration.sha256[:12]}…. An applied migration"
                " never changes: install the program that this database belongs to."
            )
    newest = max(applied, default=0)
    for version, migration in sorted(shipped.items()):
        if version < newest and version not in applied:
            raise DatabaseRefused(
                f"Migration {migration.name} is missing in this database although later ones were"
                " applied: install the program that this database belongs to."
            )
    return [shipped[version] for version in sorted(shipped.keys() - applied.keys())]


def _newer(unknown: str, schema: int, programs: list[Program]) -> str:
    """What an older program says. The first program that knew all of a schema is what it needs."""
    able = [each.version for each in programs if each.schema >= schema]
    if not able:
        return (
            f"The database was written by a newer Turnpike than this one ({VERSION}): it has"
            f" migration {unknown}. Start the newer program, or restore a backup from before the"
            " upgrade."
        )
    needed = f"a later build of Turnpike {VERSION}" if able[0] == VERSION else f"Turnpike {able[0]}"
    return (
        f"This database needs {needed} or newer, and this is {VERSION}: it was last opened by"
        f" {programs[-1].version}, and has migration {unknown}. Start that program, or go back to"
        " a backup from before the upgrade: `turnpike backup --list` shows them."
    )


def _applied(connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    """Name and SHA-256 by number; empty for a new database."""
    if not _has_table(connection, "schema_migrations"):
        return {}
    rows = connection.execute("SELECT version, name, sha256 FROM schema_migrations")
    return {version: (name, sha256) for version, name, sha256 in rows}


def _programs(connection: sqlite3.Connection) -> list[Program]:
    """The programs that worked on a database, oldest first, as far as that was written down."""
    if not _has_table(connection, "schema_programs"):
        return []
    rows = connection.execute("SELECT version, schema FROM schema_programs ORDER BY id")
    return [Program(*row) for row in rows]


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(sql, (name,)).fetchone() is not None


def _apply(connection: sqlite3.Connection, migration: Migration, now_ms: int) -> None:
    for statement in _statements(migration.sql):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)",
        (migration.version, migration.name, migration.sha256, now_ms),
    )


def _statements(script: str) -> Iterator[str]:
    """The script's statements one by one: ``executescript`` would commit on its own."""
    buffered = ""
    for line in script.splitlines(keepends=True):
        buffered += line
        if sqlite3.complete_statement(buffered):
            yield buffered
            buffered = ""
    if buffered.strip() and not all(
        line.lstrip().startswith("--") for line in buffered.splitlines() if line.strip()
    ):
        raise ValueError(f"the script ends inside a statement: {buffered.strip()[:80]!r}")
