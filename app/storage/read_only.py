"""A database file opened for reading only, by a command beside a running server or without one.

Such a connection never checkpoints and never writes, so the writer's rule stands: one connection
that writes, and the same one checkpoints (reliability.md D1).
"""

import sqlite3
from pathlib import Path

from app.storage.migrate import DatabaseRefused, check_current, shipped_migrations

DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR})
"""Primary result codes that say that the file is damaged, or cannot be read."""


def open_read_only(path: Path, *, any_schema: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode. Raises DatabaseRefused, also for another schema, unless any
    will do."""
    if not path.is_file():
        raise DatabaseRefused(f"There is no database at {path}.")
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10.0
    )
    try:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA trusted_schema=OFF")
        if not any_schema:
            check_current(connection, shipped_migrations())
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # is it a database at all?
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DatabaseRefused(f"{path} cannot be read as a database: {error}.") from error
    except DatabaseRefused as refusal:
        connection.close()
        raise DatabaseRefused(f"{path}: {refusal.message}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def page_damage(connection: sqlite3.Connection, *, thorough: bool = False) -> list[str]:
    """What SQLite finds wrong with the pages of the file; ``thorough`` compares indexes too."""
    check = "integrity_check" if thorough else "quick_check"
    try:
        found = [row[0] for row in connection.execute(f"PRAGMA {check}(5)")]
    except sqlite3.DatabaseError as error:
        return [f"SQLite: {error}"]
    return [] if found == ["ok"] else [f"SQLite: {text}" for text in found]


def schema_of(connection: sqlite3.Connection) -> dict[str, str]:
    """The applied migrations: SHA-256 by name, in their order."""
    if not connection.execute(
        "SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'"
    ).fetchall():
        return {}
    return dict(connection.execute("SELECT name, sha256 FROM schema_migrations ORDER BY version"))
