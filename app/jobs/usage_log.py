"""Every few minutes: sums up months that are over, moves days that are over out of the usage table,
and gives up what is older, or more, than is to be kept."""

import logging

from app.clock import Clock
from app.metering.closing import close_months
from app.metering.segments import Segments
from app.storage.database import Database
from app.storage.day_file import SegmentDamaged

_logger = logging.getLogger(__name__)


class UsageKeeping:
    """The job, with what it works on and how much is kept."""

    def __init__(
        self,
        database: Database,
        segments: Segments,
        clock: Clock,
        *,
        keep_days: int,
        keep_bytes: int,
    ) -> None:
        self._database = database
        self._segments = segments
        self._clock = clock
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes

    async def run(self) -> None:
        """Do what is due. While the time of day is in doubt nothing is, so nothing is dropped."""
        if self._clock.suspended:
            return
        for month in await close_months(self._database, self._clock):
            year, number = divmod(month, 12)
            _logger.info("usage of %d-%02d is summed up", 1970 + year, number + 1)
        try:
            sealed = await self._segments.seal()
        except SegmentDamaged as error:
            _logger.error("%s", error.message)
            return
        dropped = await self._segments.drop(self._keep_days, self._keep_bytes)
        if sealed or dropped:
            _logger.info(
                "the usage of %d days was moved into files, of %d was dropped",
                len(sealed),
                len(dropped),
            )
