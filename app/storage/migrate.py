"""Brings a database to this program's schema: each migration once, in the order of its number."""

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

from app.errors import TurnpikeError
from app.storage.chain import Chain

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

_CREATE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version       INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL,
    sha256        TEXT    NOT NULL,
    applied_at_ms INTEGER NOT NULL
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


def migrate(connection: sqlite3.Connection, migrations: list[Migration], now_ms: int) -> list[str]:
    """Apply what is missing and return its names. ``connection`` is in autocommit mode.

    Raises DatabaseRefused for a database that a newer program wrote, and for one whose applied
    migrations are not those that this program brings.
    """
    connection.execute(_CREATE)
    applied = {
        version: (name, sha256)
        for version, name, sha256 in connection.execute(
            "SELECT version, name, sha256 FROM schema_migrations"
        )
    }
    shipped = {migration.version: migration for migration in migrations}
    _check(applied, shipped)
    missing = [shipped[version] for version in sorted(shipped.keys() - applied.keys())]
    if missing:
        connection.create_function("chain_hash", 8, Chain())
    for migration in missing:
        _apply(connection, migration, now_ms)
    return [migration.name for migration in missing]


def _check(applied: dict[int, tuple[str, str]], shipped: dict[int, Migration]) -> None:
    for version, (name, sha256) in sorted(applied.items()):
        migration = shipped.get(version)
        if migration is None:
            raise DatabaseRefused(
                f"The database was written by a newer Turnpike: it has migration {name}, and this"
                f" program knows {max(shipped, default=0)} of them. Start the newer program, or"
                " restore a backup from before the update."
            )
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


def _apply(connection: sqlite3.Connection, migration: Migration, now_ms: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements(migration.sql):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)",
            (migration.version, migration.name, migration.sha256, now_ms),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


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
