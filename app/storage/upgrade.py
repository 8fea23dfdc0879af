"""Before an upgrade of the database: a verified backup of it as it is, tried out on a copy.

The copy goes through the very migrations that are due and is audited afterwards. So an upgrade
that would fail, or would leave books that do not add up, has changed nothing; and the backup is
known to be one that this program brings up to date, and the older one takes as it is.
"""

import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from app.errors import TurnpikeError
from app.storage.archive import SEGMENTS, BackupFailed, Progress, untold
from app.storage.backup import Proof, Prove, check_integrity, make_backup
from app.storage.backup_folder import BackupFolder, identity_of
from app.storage.database import DATABASE_NAME
from app.storage.migrate import DatabaseRefused, Due, migrate, shipped_migrations
from app.version import VERSION

KEPT = 3
"""So many backups from before upgrades stay."""
_COPIES = 2
_ROOM_BYTES = 16 << 20

log = logging.getLogger("turnpike.upgrade")

Watch = Callable[[str], AbstractContextManager[Progress]]
"""Told in a sentence that an upgrade begins; what it gives is told how far that is, to its end."""


@contextmanager
def unwatched(_: str) -> Iterator[Progress]:
    """A ``Watch`` for nobody."""
    yield untold


class Upgrade:
    """Implements what ``SqliteDatabase`` asks for around the migrations of an older database."""

    def __init__(
        self, data_dir: Path, folder: Path, *, prove: Prove, watch: Watch = unwatched
    ) -> None:
        self._data_dir = data_dir
        self._folder = folder
        self._prove = prove
        self._watch = watch

    @contextmanager
    def around(self, due: Due, now_ms: int) -> Iterator[None]:
        """Back up first, and let the migrations run within. Raises DatabaseRefused."""
        old = "an older version" if due.program is None else f"version {due.program}"
        begun = (
            f"Upgrading the database from {old} (schema {due.schema}) to version {VERSION} (schema"
            f" {due.missing[-1].version}), after a backup in {self._folder}."
        )
        log.info("%s", begun)
        with self._watch(begun) as progress:
            try:
                made = self._back_up(due, now_ms, progress)
            except (TurnpikeError, sqlite3.Error, OSError) as error:
                raise DatabaseRefused(self._refusal(due, error)) from error
            log.info("the backup is made, and the upgrade was tried on a copy: %s", made)
            progress("upgrading", 0, 0)
            yield
        log.info("the database is upgraded; the backup stays: %s", made)

    def _back_up(self, due: Due, now_ms: int, progress: Progress) -> Path:
        folder = BackupFolder(self._folder, identity_of(self._data_dir))
        folder.make()
        folder.sweep()
        self._check_room()
        made = folder.target_before(now_ms, due.schema, due.program)
        make_backup(
            self._data_dir,
            made,
            prove=lambda copy: self._rehearse(copy, now_ms),
            now_ms=now_ms,
            any_schema=True,
            progress=progress,
        )
        try:
            folder.retain(made, KEPT)
        except OSError as error:
            log.warning("an old backup could not be removed: %s", error)
        return made

    def _rehearse(self, copy: Path, now_ms: int) -> Proof:
        """Upgrade a copy of the copy, and prove that."""
        trial = copy.with_name("trial.db")
        try:
            shutil.copyfile(copy, trial)
            connection = sqlite3.connect(trial, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA foreign_keys=ON")
                migrate(connection, shipped_migrations(), now_ms)
            finally:
                connection.close()
            check_integrity(trial)
            return self._prove(trial)
        finally:
            trial.unlink(missing_ok=True)

    def _check_room(self) -> None:
        """Better said at once than after an hour of copying. Raises BackupFailed."""
        needed = self._needed_bytes()
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise BackupFailed(
                f"{self._folder} has {free >> 20} MiB free, and about {needed >> 20} MiB are"
                " needed for the time of the upgrade."
            )

    def _needed_bytes(self) -> int:
        names = (DATABASE_NAME, f"{DATABASE_NAME}-wal")
        files = [path for name in names if (path := self._data_dir / name).exists()]
        usage = self._data_dir / SEGMENTS
        kept = sum(path.stat().st_size for path in usage.iterdir()) if usage.is_dir() else 0
        return _COPIES * sum(path.stat().st_size for path in files) + kept + _ROOM_BYTES

    def _refusal(self, due: Due, error: Exception) -> str:
        reason = error.message if isinstance(error, TurnpikeError) else str(error)
        old = "the version that wrote it" if due.program is None else f"Turnpike {due.program}"
        return (
            "The database needs an upgrade, which has not begun, since the backup before it, with"
            f" the trial on a copy, failed: {reason.rstrip('.')}. Nothing was changed. Put that"
            f" right (make room in {self._folder}, or name a folder on another disk with `folder`"
            f" under [backups]) and start again; until then {old} goes on working with it."
        )
