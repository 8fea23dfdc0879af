"""Every minute: ends holds that outlived their call, the third net for a lost one."""

import logging

from app.clock import Clock
from app.ledger.store import LedgerStore

_logger = logging.getLogger(__name__)


async def give_up(ledger: LedgerStore, clock: Clock) -> None:
    """End expired holds at no charge, and say so: each one is a fault worth a look.

    Nothing while the time is in doubt.
    """
    if clock.suspended:
        return
    for settlement in await ledger.give_up_expired(clock.now_ms()):
        _logger.warning("the hold of call %s expired; nothing was charged", settlement.call_id)
