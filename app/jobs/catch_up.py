"""At the start and every minute: books what payers' months lack, whether they call or not.

What is lacking is found in the ledger's own rows, so it does not matter how many months passed,
how often this runs, or whether a call books the same at the same moment (I7).
"""

import asyncio
import logging

from app.clock import Clock
from app.errors import TurnpikeError
from app.ledger.store import LedgerStore, LedgerUnavailable

PAYERS_ASKED = 500
PAYERS_TOGETHER = 25
"""One verb, so about a millisecond of the writer thread."""
PAUSE_S = 0.01

_logger = logging.getLogger(__name__)


async def catch_up(ledger: LedgerStore, clock: Clock) -> int:
    """Book for all payers that lack something; for how many. Nothing while the time is in doubt.

    What cannot be booked yet (a call is open that may be paid from a grant whose time is over; a
    payer's tier is not configured any more) waits for the next run.
    """
    seen: set[str] = set()
    while not clock.suspended:
        found = [
            payer_id
            for payer_id in await ledger.payers_to_catch_up(PAYERS_ASKED)
            if payer_id not in seen
        ]
        if not found:
            break
        for first in range(0, len(found), PAYERS_TOGETHER):
            some = found[first : first + PAYERS_TOGETHER]
            seen.update(some)
            await _book(ledger, some)
            await asyncio.sleep(PAUSE_S)  # so that calls come in between
    return len(seen)


async def _book(ledger: LedgerStore, payer_ids: list[str]) -> None:
    """Book for all of them, or one by one where one of them cannot be."""
    try:
        await ledger.catch_up(payer_ids)
    except LedgerUnavailable:
        raise
    except TurnpikeError as error:
        if len(payer_ids) == 1:
            _logger.warning("the month of %s cannot be booked: %s", payer_ids[0], error)
            return
        for payer_id in payer_ids:
            await _book(ledger, [payer_id])
