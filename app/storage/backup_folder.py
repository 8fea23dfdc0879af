"""The folder of the backups that are made without being asked for: their names, and how many stay.

A name says whose backup it is, when it was made and why. Nothing else in the folder is ever
touched, so it may hold other files, and other appliances' backups.
"""

import hashlib
import re
import shutil
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from app.storage.archive import BackupFailed, peek_manifest, sync_directory
from app.storage.database import DATABASE_NAME
from app.storage.read_only import open_read_only

Kind = Literal["scheduled", "before upgrade", "by hand"]
LEFTOVER_AGE_S = 600.0
"""What an attempt left behind is removed once nothing was written to it for so long."""
_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(
    r"turnpike-([0-9a-f]{8})-(\d{8}T\d{6}Z)"
    r"(-before-upgrade-(?:from-[0-9A-Za-z.+_]+-)?schema-\d+)?\.tar"
)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A backup in the folder. ``own``: this appliance made it by itself. ``made_at_ms`` is UTC."""

    path: str
    kind: Kind
    own: bool
    made_at_ms: int
    bytes: int


def identity_of(data_dir: Path) -> str:
    """Eight hex digits that a database keeps through upgrades and restores: when it was made.

    Raises DatabaseRefused where there is none.
    """
    connection = open_read_only(data_dir / DATABASE_NAME, any_schema=True)
    try:
        return identity_in(connection)
    finally:
        connection.close()


def identity_in(connection: sqlite3.Connection) -> str:
    """The same of a database that is open."""
    rows = connection.execute(
        "SELECT applied_at_ms, sha256 FROM schema_migrations ORDER BY version LIMIT 1"
    )
    return hashlib.sha256(repr(rows.fetchone()).encode()).hexdigest()[:8]


class BackupFolder:
    """A folder, as the appliance of this ``identity`` sees it."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = identity

    def make(self) -> None:
        """Make the folder (0700) where only it is missing. Raises BackupFailed.

        A folder above it that is missing is most likely a disk that is not mounted.
        """
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BackupFailed(
                f"The folder for backups, {self.path}, cannot be made: {error.strerror}. Mount its"
                " disk, or name another with `folder` under [backups]."
            ) from error

    def target(self, now_ms: int) -> Path:
        """Where a scheduled backup goes."""
        return self._free(now_ms, "")

    def target_before(self, now_ms: int, schema: int, program: str | None) -> Path:
        """Where the backup before an upgrade goes, named by what the database was until then."""
        by = "" if program is None else f"from-{re.sub('[^0-9A-Za-z.+_]', '_', program)}-"
        return self._free(now_ms, f"-before-upgrade-{by}schema-{schema}")

    def _free(self, now_ms: int, kind: str) -> Path:
        """A name that is not taken: a start that was cut short may have made one this second."""
        while True:
            path = self.path / f"turnpike-{self._identity}-{_stamp(now_ms)}{kind}.tar"
            if not path.exists():
                return path
            now_ms += 1000

    def kept(self) -> list[Kept]:
        """All backups in the folder, newest first; those of other appliances and names too."""
        found = []
        for path in self.path.glob("*.tar") if self.path.is_dir() else ():
            try:
                if path.is_file():
                    found.append(self._look_at(path))
            except (BackupFailed, OSError, ValueError):
                continue  # some other file, or gone by now
        return sorted(found, key=lambda each: (each.made_at_ms, each.path), reverse=True)

    def newest_ms(self) -> int | None:
        """When the newest scheduled one of this appliance was made; None where there is none."""
        own = self._own("scheduled")
        return max((_moment_ms(found[2]) for found in own.values()), default=None)

    def retain(self, made: Path, keep: int) -> list[Path]:
        """Remove the oldest of the kind of ``made``, a backup just verified, beyond ``keep``.

        ``made`` always stays, whatever the clock said when the others were made.
        """
        others = sorted(path for path in self._own(self._kind(made)) if path != made)
        gone = []
        for path in others[: max(0, len(others) - (keep - 1))]:
            try:
                peek_manifest(path)
            except (BackupFailed, OSError):
                continue  # a backup's name, but no backup: somebody else's, or worth a look
            path.unlink(missing_ok=True)
            gone.append(path)
        if gone:
            sync_directory(self.path)
        return gone

    def sweep(self) -> list[Path]:
        """Remove what attempts of this appliance left behind that were broken off."""
        gone = []
        for path in self.path.glob(f".turnpike-{self._identity}-*.tar.*.tmp"):
            if path.is_symlink() or not path.is_dir():
                continue
            touched = max((_touched(each) for each in (path, *path.iterdir())), default=0.0)
            if time.time() - touched > LEFTOVER_AGE_S:
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path)
        return gone

    def _own(self, kind: Kind) -> dict[Path, re.Match[str]]:
        """This appliance's own files of a kind, by their names alone: they are looked at often."""
        paths = self.path.glob(f"turnpike-{self._identity}-*.tar") if self.path.is_dir() else ()
        return {
            path: match
            for path in paths
            if (match := _NAME.fullmatch(path.name)) is not None
            and self._kind(path) == kind
            and path.is_file()
            and not path.is_symlink()
        }

    def _kind(self, path: Path) -> Kind:
        match = _NAME.fullmatch(path.name)
        if match is None:
            return "by hand"
        return "before upgrade" if match[3] else "scheduled"

    def _look_at(self, path: Path) -> Kept:
        match = _NAME.fullmatch(path.name)
        manifest = peek_manifest(path)
        return Kept(
            path=str(path),
            kind=self._kind(path),
            own=match is not None and match[1] == self._identity and not path.is_symlink(),
            made_at_ms=manifest.made_at_ms if match is None else _moment_ms(match[2]),
            bytes=path.stat().st_size,
        )


def _touched(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _moment_ms(stamp: str) -> int:
    return int(datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).timestamp()) * 1000


def _stamp(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms // 1000, UTC).strftime(_STAMP)


class BackupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Which backups are made by itself: where, how old the newest may get, how many stay."""

    folder: BackupFolder
    every_hours: float
    keep: int


class BackupRecord:
    """What the metrics tell: seconds since 1970 of the last good one, 0 for none, and failures.
    ``plan`` is what is to be done from now on, None for nothing; a reload replaces it.
    """

    def __init__(self, plan: BackupPlan | None = None) -> None:
        self.plan = plan
        self.last_success_s = 0.0
        self.failures = 0
