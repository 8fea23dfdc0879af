"""Every few seconds: looks how much room there is on the data directory's disk."""

import asyncio
import logging

from app.storage.disk import DiskWatch

LOOK_EVERY_S = 5.0

_logger = logging.getLogger(__name__)


async def watch_disk(disk: DiskWatch) -> None:
    """Look, for ever. In a thread: a disk that hangs must not hold up the calls."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await asyncio.to_thread(disk.look)
        except OSError as error:
            _logger.warning("the disk does not say how full it is: %s", error)
