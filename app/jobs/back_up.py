"""Every minute: makes a backup where the newest one is too old, and removes the oldest ones.

What is due is told by what lies in the folder, so restarts do not matter and a missed one is made
up for. The backup itself is made by a process of its own, at a low priority: copying, hashing and
auditing a large database would hold up calls in this one.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from app.clock import Clock
from app.errors import TurnpikeError
from app.storage.backup_folder import BackupFolder, BackupRecord

RETRY_S = 300.0
_NICENESS = 10
_SAID_CHARACTERS_MAX = 2000

_logger = logging.getLogger(__name__)


class BackingUp:
    """The job. ``command`` is this very program, with what it needs to find the data directory;
    ``backup PATH`` is added to it. ``record`` is for the metrics."""

    def __init__(
        self,
        folder: BackupFolder,
        command: Sequence[str],
        clock: Clock,
        record: BackupRecord,
        *,
        every_hours: float,
        keep: int,
    ) -> None:
        self._folder = folder
        self._command = command
        self._clock = clock
        self._every_ms = int(every_hours * 3_600_000)
        self._keep = keep
        self._not_before_ns = 0
        self._record = record

    async def run(self) -> bool:
        """Make one where one is due; whether it was made. After a failure the next try waits."""
        if self._clock.monotonic_ns() < self._not_before_ns:
            return False
        try:
            return await self._run()
        except (TurnpikeError, OSError) as error:
            self._record.failures += 1
            self._not_before_ns = self._clock.monotonic_ns() + int(RETRY_S * 1e9)
            said = error.message if isinstance(error, TurnpikeError) else str(error)
            _logger.error(
                "no backup was made: %s The next try is in %d minutes; %s",
                f"{said.rstrip('.')}.",
                RETRY_S // 60,
                "the ones before it are kept.",
            )
            return False

    async def _run(self) -> bool:
        folder = self._folder
        newest_ms = await asyncio.to_thread(folder.newest_ms)
        now_ms = self._clock.now_ms()
        if newest_ms is not None:
            self._record.last_success_s = newest_ms / 1000
            # One that claims to be of far ahead was made by a clock that was wrong.
            if abs(now_ms - newest_ms) < self._every_ms:
                return False
        await asyncio.to_thread(folder.make)
        for left in await asyncio.to_thread(folder.sweep):
            _logger.warning("what an interrupted backup left behind was removed: %s", left)
        target = folder.target(now_ms)
        await self._make(target)
        self._record.last_success_s = now_ms / 1000
        _logger.info("made the backup %s", target)
        try:
            for gone in await asyncio.to_thread(folder.retain, target, self._keep):
                _logger.info("removed the old backup %s", gone)
        except OSError as error:
            _logger.warning("an old backup could not be removed: %s", error)
        return True

    async def _make(self, target: Path) -> None:
        """Run the command. Raises TurnpikeError with what it said."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            "backup",
            str(target),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        if hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):  # it may have ended already
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        try:
            _, said = await process.communicate()
        finally:
            if process.returncode is None:  # the server stops
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
        if process.returncode != 0:
            text = " ".join(said.decode(errors="replace").split())[-_SAID_CHARACTERS_MAX:]
            text = text.removeprefix("Error: ")
            raise TurnpikeError(text or f"the command ended with status {process.returncode}")
