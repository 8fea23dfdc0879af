"""Every hour: checks a slice of the journal's hash chain, the whole of it once a day."""

import logging

from app.ledger.verify import JournalWatch

_logger = logging.getLogger(__name__)


async def verify_slice(watch: JournalWatch) -> None:
    """Check the next slice. Damage makes the server say that it is not ready, and stays."""
    known = watch.problem
    await watch.check_slice()
    if watch.problem is not None and known is None:
        _logger.critical(
            "the journal is damaged: %s Stop the server, audit the database with `turnpike ledger"
            " audit`, and restore a backup.",
            watch.problem,
        )
