"""Every few seconds: looks how much room there is on the data directory's disk."""

import asyncio
import logging

from app.job_runs import JobRuns
from app.storage.disk import DiskWatch

LOOK_EVERY_S = 5.0

_logger = logging.getLogger(__name__)


async def watch_disk(disk: DiskWatch, runs: JobRuns) -> None:
    """Look, for ever. In a thread: a disk that hangs must not hold up the calls."""
    look = runs.watched("look at the disk", LOOK_EVERY_S, lambda: asyncio.to_thread(disk.look))
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await look()
        except OSError as error:
            _logger.warning("the disk does not say how full it is: %s", error)
