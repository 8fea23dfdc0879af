"""How old the newest backup is."""

import shlex
from pathlib import Path

import msgspec

from app.config_operations import Backups
from app.doctor.clock import moment
from app.doctor.finding import Commands, Finding, Teller
from app.ledger.checkup import Checkup
from app.storage.backup_folder import BackupFolder
from app.storage.restore_advice import LAST_BACKUP_FILE, LastBackup

HOUR_MS = 3_600_000
GRACE_MS = 24 * HOUR_MS
"""So long a new database may do without one."""
LATE = 2.0
"""A scheduled backup is late after so many of its intervals."""
_tell = Teller("backups")


def check_backups(
    backups: Backups, data_dir: Path, checkup: Checkup, now_ms: int, commands: Commands
) -> list[Finding]:
    """``checkup``: what was found of the database."""
    made_at_ms = checkup.made_at_ms
    if made_at_ms is None:
        return []
    folder = None if backups.folder is None else Path(backups.folder).expanduser()
    newest = _newest(data_dir, folder, checkup.identity)
    by_hand = commands.turnpike("backup", "turnpike.tar")
    if folder is not None and not folder.parent.is_dir():
        text = f"there is no folder {folder.parent} for the folder of backups, {folder.name}"
        fix = f"Mount its disk, or make it: mkdir -p {shlex.quote(str(folder.parent))}"
        return [_tell.problem("backup.no_folder", text, fix, path=str(folder))]
    if folder is not None:
        since_ms = made_at_ms if newest is None else newest.made_at_ms
        if now_ms - since_ms > LATE * backups.every_hours * HOUR_MS:
            when = (
                "none was made yet" if newest is None else f"the newest is {_told(newest, now_ms)}"
            )
            text = f"one is due every {backups.every_hours:g} h in {folder}, and {when}"
            fix = f"Look into the server's log why, and make one now: {by_hand}"
            return [_tell.problem("backup.late", text, fix)]
    if newest is not None:
        if Path(newest.path).is_file():
            return [_tell.ok("backup.ok", f"the newest is {_told(newest, now_ms)}")]
        text = f"the newest, {newest.path}, is not there any more"
        return [_tell.warning("backup.gone", text, f"Put it back, or make a new one: {by_hand}")]
    if now_ms - made_at_ms < GRACE_MS:
        return [_tell.ok("backup.new", "none yet; the database is new")]
    fix = f"Name a `folder` under [backups], or make one by hand: {by_hand}"
    return [_tell.warning("backup.none", "no backup was ever made", fix)]


def _newest(data_dir: Path, folder: Path | None, identity: str) -> LastBackup | None:
    found = []
    try:
        data = (data_dir / LAST_BACKUP_FILE).read_bytes()
        found.append(msgspec.json.decode(data, type=LastBackup))
    except (OSError, msgspec.MsgspecError):
        pass
    if folder is not None:
        try:
            kept = BackupFolder(folder, identity).kept()
        except OSError:
            kept = []
        found += [LastBackup(path=k.path, made_at_ms=k.made_at_ms) for k in kept if k.own]
    return max(found, key=lambda each: each.made_at_ms, default=None)


def _told(backup: LastBackup, now_ms: int) -> str:
    hours = max(0, now_ms - backup.made_at_ms) / HOUR_MS
    ago = f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} h"
    return f"of {moment(backup.made_at_ms)} ({ago} old): {backup.path}"
