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
from app.storage.backup_folder import BackupPlan, BackupRecord

RETRY_S = 300.0
_NICENESS = 10
_OOM_SCORE_ABOVE_OURS = 300
_OOM_SCORE_MAX = 1000
_SAID_CHARACTERS_MAX = 2000

_logger = logging.getLogger(__name__)


class BackingUp:
    """The job. ``command`` is this very program, with what it needs to find the data directory;
    ``backup PATH`` is added to it. ``record`` has the plan, and is told what came of it."""

    def __init__(
        self,
        command: Sequence[str],
        clock: Clock,
        record: BackupRecord,
    ) -> None:
        self._command = command
        self._clock = clock
        self._not_before_ns = 0
        self._failed: BackupPlan | None = None
        self._record = record

    async def run(self) -> bool:
        """Make one where one is due; whether it was made. After a failure the next try waits, but
        for one by another plan.
        """
        plan = self._record.plan
        if plan is None:
            return False
        if plan is self._failed and self._clock.monotonic_ns() < self._not_before_ns:
            return False
        try:
            return await self._run(plan)
        except (TurnpikeError, OSError) as error:
            self._record.failures += 1
            self._failed = plan
            self._not_before_ns = self._clock.monotonic_ns() + int(RETRY_S * 1e9)
            said = error.message if isinstance(error, TurnpikeError) else str(error)
            _logger.error(
                "no backup was made: %s The next try is in %d minutes; %s",
                f"{said.rstrip('.')}.",
                RETRY_S // 60,
                "the ones before it are kept.",
            )
            return False

    async def _run(self, plan: BackupPlan) -> bool:
        folder, every_ms = plan.folder, int(plan.every_hours * 3_600_000)
        newest_ms = await asyncio.to_thread(folder.newest_ms)
        now_ms = self._clock.now_ms()
        if newest_ms is not None:
            self._record.last_success_s = newest_ms / 1000
            # One that claims to be of far ahead was made by a clock that was wrong.
            if abs(now_ms - newest_ms) < every_ms:
                return False
        await asyncio.to_thread(folder.make)
        for left in await asyncio.to_thread(folder.sweep):
            _logger.warning("what an interrupted backup left behind was removed: %s", left)
        target = folder.target(now_ms)
        await self._make(target)
        self._record.last_success_s = now_ms / 1000
        _logger.info("made the backup %s", target)
        try:
            for gone in await asyncio.to_thread(folder.retain, target, plan.keep):
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
        _go_first(process.pid)
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


def _go_first(pid: int) -> None:
    """When memory runs out, that process ends before this one does. Linux only."""
    with contextlib.suppress(OSError, ValueError):
        ours = int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii"))
        score = min(_OOM_SCORE_MAX, ours + _OOM_SCORE_ABOVE_OURS)
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score), encoding="ascii")
