"""Looks at a database file from outside and tells what is wrong, without refusing anything.

It works beside a server, after one that was killed, on a file of another version, and on one that
is damaged. It writes nothing and takes no lock that a writer would wait for.
"""

import os
import sqlite3
from pathlib import Path

import msgspec

from app.ledger.audit import Snapshot, audit
from app.ledger.verify import verify_tail
from app.storage.backup_folder import identity_in
from app.storage.migrate import DatabaseRefused, shipped_migrations, upgrade_due
from app.storage.read_only import open_read_only, page_damage

PAGES_BYTES_MAX = 1 << 30
"""Larger files have their pages looked at only where that is asked for."""


class Seal(msgspec.Struct, frozen=True):
    """A master key that provider keys in the database are sealed under: its id, and what proves
    it."""

    kid: str
    check_value: bytes


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``unreadable`` and ``refused`` (by this program) are sentences.

    ``upgrade`` counts the migrations that the next start brings. ``last_ms`` is how far ledger time
    had come, ``made_at_ms`` when the database was made, and ``identity`` tells it from others.
    ``audit`` are the problems of all books.
    """

    bytes: int = 0
    wal_bytes: int = 0
    unreadable: str = ""
    refused: str = ""
    upgrade: int = 0
    schema: int = 0
    pages_checked: bool = False
    pages: list[str] = []
    journal: str = ""
    audit: list[str] | None = None
    entries: int = 0
    last_ms: int | None = None
    made_at_ms: int | None = None
    identity: str = ""
    seals: list[Seal] = []


def check_up(path: Path, *, deep: bool = False) -> Checkup:
    """Look at the file; ``deep``: at every page and every book, which reads all of it."""
    found = Checkup(bytes=_size(path), wal_bytes=_size(Path(f"{path}-wal")))
    try:
        connection = _open(path)
    except (DatabaseRefused, sqlite3.Error) as error:
        return msgspec.structs.replace(found, unreadable=_sentence(path, error))
    try:
        found = _read(connection, found, deep=deep)
        if deep and not (found.refused or found.upgrade or found.pages):
            connection.execute("BEGIN")
            problems = audit(Snapshot(connection)).problems
            found = msgspec.structs.replace(found, audit=problems)
        return found
    except sqlite3.Error as error:
        return msgspec.structs.replace(found, unreadable=f"{path} cannot be read: {error}.")
    finally:
        connection.close()


def _open(path: Path) -> sqlite3.Connection:
    """Where there is no write-ahead log nobody has the file open, and it is read as if on a medium
    that cannot be written: any other way would leave an empty log beside it.

    Raises DatabaseRefused, sqlite3.Error.
    """
    if Path(f"{path}-wal").exists():
        return open_read_only(path, any_schema=True)
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None
    )
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _read(connection: sqlite3.Connection, found: Checkup, *, deep: bool) -> Checkup:
    if deep or found.bytes <= PAGES_BYTES_MAX:
        pages = page_damage(connection)
        found = msgspec.structs.replace(found, pages=pages, pages_checked=True)
    try:
        due = upgrade_due(connection, shipped_migrations())
    except DatabaseRefused as refusal:
        return msgspec.structs.replace(found, refused=refusal.message)
    rows = connection.execute(
        "SELECT max(version), min(applied_at_ms) FROM schema_migrations"
    ).fetchone()
    found = msgspec.structs.replace(
        found,
        upgrade=0 if due is None else len(due.missing),
        schema=rows[0] or 0,
        made_at_ms=rows[1],
        identity=identity_in(connection) if rows[1] is not None else "",
    )
    if due is not None:
        return found
    newest, last_ms = connection.execute(
        "SELECT coalesce(max(seq), 0), (SELECT max(high_ms, coalesce((SELECT at_ms FROM entries"
        " ORDER BY seq DESC LIMIT 1), 0)) FROM ledger_clock) FROM entries"
    ).fetchone()
    journal = verify_tail(connection.execute).problem or ""
    seals = connection.execute(
        "SELECT kid, check_value FROM master_keys WHERE kid IN (SELECT kid FROM provider_keys)"
    ).fetchall()
    return msgspec.structs.replace(
        found,
        journal=journal,
        entries=newest,
        last_ms=last_ms or None,
        seals=[Seal(*row) for row in seals],
    )


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _sentence(path: Path, error: Exception) -> str:
    text = str(error)
    return text if str(path) in text else f"{path} cannot be read as a database: {text}."
