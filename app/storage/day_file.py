"""One day of the usage log as a SQLite file of its own: written once, then only read.

Plain functions that wait for the disk: for a thread, never for the event loop.
"""

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from app.errors import TurnpikeError
from app.storage.database import Params, Row

USAGE_COLUMNS = (
    "at_ms, call_id, series_id, streamed, attempts, input_tokens, cache_read_tokens,"
    " cache_write_tokens, output_tokens, reasoning_tokens, audio_input_tokens,"
    " audio_output_tokens, images, compute_ns, estimated, latency_ms, first_token_ms,"
    " cost_nano_usd, provider_cost_nano_usd, paid_from, characters, audio_ms, video_ms"
)
SERIES_COLUMNS = (
    "id, coarse_id, user_id, key_id, payer_id, group_id, model, provider, outcome, byok"
)


class SegmentDamaged(TurnpikeError):
    """A day's file is not what was written; nothing is deleted on the strength of it."""


def ask(path: Path, sql: str, params: Params) -> list[Row] | None:
    """Run one query; None where there is no such file any more."""
    if not path.exists():
        return None
    try:
        with closing(_opened(path)) as connection:
            _complete(connection)
            return connection.execute(sql, params).fetchall()
    except sqlite3.OperationalError:
        if path.exists():
            raise
        return None  # dropped this very moment


def create(part: Path) -> sqlite3.Connection:
    """A new file; it is worth nothing until it is renamed, so it needs no journal."""
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    connection = sqlite3.connect(part, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(
        f"CREATE TABLE usage ({USAGE_COLUMNS}, PRIMARY KEY (at_ms, call_id)) WITHOUT ROWID"
    )
    connection.execute(f"CREATE TABLE series ({SERIES_COLUMNS}, PRIMARY KEY (id))")
    return connection


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    """Add rows, with a value for each column."""
    if rows:
        connection.execute("BEGIN")
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608
        connection.execute("COMMIT")


def finish(part: Path, path: Path, rows: int) -> tuple[int, int, str]:
    """Read the file back, make it durable and give it its name: its rows, bytes and SHA-256.

    Raises SegmentDamaged.
    """
    with closing(_opened(part)) as connection:
        found = connection.execute("SELECT count(*) FROM usage").fetchone()[0]
        fault = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if (found, fault) != (rows, "ok"):
        raise SegmentDamaged(f"{part} has {found} of {rows} rows: {fault}. The rows stay.")
    part.chmod(0o600)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    digest, size = sha256_of(part), part.stat().st_size
    part.replace(path)
    sync_folder(path.parent)
    return rows, size, digest


def _opened(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _complete(connection: sqlite3.Connection) -> None:
    """Let a file of an earlier program be asked like one of this: what it did not measure is 0."""
    has = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('usage')")}
    lacking = [name for name in USAGE_COLUMNS.split(", ") if name not in has]
    if lacking:
        zeros = ", ".join(f"0 AS {name}" for name in lacking)
        # Of connection and file the connection's own names come first.
        connection.execute(
            f"CREATE TEMP VIEW usage AS SELECT *, {zeros} FROM main.usage"  # noqa: S608
        )


def sync_folder(folder: Path) -> None:
    """Make a rename within the folder durable."""
    if os.name == "nt":
        return  # folders cannot be opened there; a rename is durable with the file
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The digest of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
