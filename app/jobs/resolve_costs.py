"""Every minute: asks providers for the costs that are missing, then gives up on those that are too
late. One job, in this order, so that a cost that is there in time counts (ledger.md I15).
"""

import asyncio
import logging

from app.billing.resolution import Resolution
from app.clock import Clock
from app.jobs.give_up import give_up
from app.ledger.store import LedgerStore

_logger = logging.getLogger(__name__)


async def resolve_costs(resolution: Resolution, ledger: LedgerStore, clock: Clock) -> None:
    """Poll, then end what expired: the second whatever becomes of the first."""
    try:
        await resolution.poll()
    except asyncio.CancelledError:
        return  # The scheduler stops: the next start asks again, and would log this as a fault.
    except Exception:
        _logger.exception("the poll for costs failed; the next one is due in a minute")
    await give_up(ledger, clock)
