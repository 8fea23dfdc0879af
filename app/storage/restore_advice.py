"""What a start says about a damaged database, or an unfinished restore: which command helps."""

import shlex
from pathlib import Path

import msgspec

from app.storage.migrate import DatabaseRefused

MARKER = "restore-under-way"
"""Beside the database while a restore moves files."""
LAST_BACKUP_FILE = "last-backup.json"
"""Beside the database: where the newest backup went. Only for this sentence."""


class LastBackup(msgspec.Struct, frozen=True, kw_only=True):
    """Written by ``turnpike backup`` when it is done. Time in milliseconds since 1970 UTC."""

    path: str
    made_at_ms: int


def restore_advice(database: Path) -> str:
    """How to restore, with the newest backup's path where it is known and still there."""
    data_dir = database.absolute().parent
    known = _newest(data_dir)
    archive = "BACKUP" if known is None else shlex.quote(known)
    command = f"turnpike --data-dir {shlex.quote(str(data_dir))} restore {archive}"
    hint = "" if known is not None else " (no backup is known here)"
    return f"Restore a backup: {command}{hint}. The present database is put aside, not deleted."


def check_no_restore(data_dir: Path) -> None:
    """Raise DatabaseRefused where a restore was interrupted."""
    if (data_dir / MARKER).exists():
        raise DatabaseRefused(
            f"A restore into {data_dir} was interrupted. Run the same turnpike restore again; what"
            " was there before lies in a folder there whose name begins with before-restore."
        )


def _newest(data_dir: Path) -> str | None:
    try:
        found = msgspec.json.decode((data_dir / LAST_BACKUP_FILE).read_bytes(), type=LastBackup)
        return found.path if Path(found.path).is_file() else None
    except (OSError, ValueError):
        return None
