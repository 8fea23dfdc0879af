"""Every hour: makes the invoices of months that are over. A run that is missed, late or doubled
changes nothing: what lacks an invoice is found in the ledger's own rows."""

import logging

from app.billing.month_closing import MonthClosing

_logger = logging.getLogger(__name__)


async def close_months(closing: MonthClosing) -> None:
    """Close what can be closed, and say so. What is refused has been logged with the reason."""
    closed = await closing.run()
    if closed.invoices:
        _logger.info(
            "%d invoices were made, the last is %s", len(closed.invoices), closed.invoices[-1]
        )
    if closed.waiting:
        _logger.info("%d invoices wait for calls that have not ended", len(closed.waiting))
