"""Credit that operators give, and their corrections: booked by the ledger, listed from its rows."""

import msgspec

from app.billing.amounts import decimal_usd
from app.billing.payers import Payer
from app.errors import Conflict
from app.ids import new_call_id
from app.ledger.entries import Adjustment, Grant, NewGrant
from app.ledger.store import InsufficientCredit, LedgerStore
from app.ledger.wallets import SELECT_GRANTS, grant_of
from app.storage.database import Database, Row

PAGE_LENGTH_MAX = 1000


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """An adjustment as it was booked. ``period`` is the month that it belongs to."""

    id: str
    payer_id: str
    payer_name: str
    period: str
    amount_nano_usd: int
    reason: str
    author: str
    at_ms: int


_GRANTS = f"{SELECT_GRANTS} WHERE payer_id = ? AND id < ? ORDER BY id DESC LIMIT ?"
_COLUMNS = """
SELECT a.id, a.payer_id, coalesce(o.name, u.name, ''), a.period, a.amount_nano_usd, a.reason,
       a.author, a.at_ms
FROM adjustments a LEFT JOIN users u ON u.id = a.payer_id LEFT JOIN orgs o ON o.id = a.payer_id
"""
_BY_ID = "WHERE a.id = ?"
_PAGE = """
WHERE (? = '' OR a.payer_id = ?)
AND (? = '' OR (a.at_ms, a.id) < (SELECT b.at_ms, b.id FROM adjustments b WHERE b.id = ?))
ORDER BY a.at_ms DESC, a.id DESC LIMIT ?
"""
_SQL_BY_ID = _COLUMNS + _BY_ID
_SQL_PAGE = _COLUMNS + _PAGE


class CreditBook:
    """What operators do by hand, each once by its reference or id."""

    def __init__(self, database: Database, ledger: LedgerStore) -> None:
        self._database = database
        self._ledger = ledger

    async def give(self, new: NewGrant) -> Grant:
        """Give credit; the grant as it stands, also on a repeat.

        Raises Conflict where the reference was used for another amount or another end.
        """
        try:
            grant = await self._ledger.give(new)
        except Conflict as error:
            raise _used(new.reference, "another amount") from error
        if grant.expires_at_ms != new.expires_at_ms:
            raise _used(new.reference, "credit that expires at another time")
        return grant

    async def grants(self, payer: Payer, *, before: int | None, limit: int) -> list[Grant]:
        """All grants that a payer ever got, newest first, from before an id."""
        params = (payer.id, before or 2**62, min(limit, PAGE_LENGTH_MAX))
        return [grant_of(row) for row in await self._database.read(_GRANTS, params)]

    async def adjust(
        self,
        payer: Payer,
        amount_nano_usd: int,
        reason: str,
        author: str,
        adjustment_id: str | None = None,
    ) -> Booked:
        """Book a correction; as it was booked the first time, on a repeat of its id.

        Raises Conflict where the id was used for another correction, or where a debit finds less
        than it would take.
        """
        wanted = Adjustment(
            id=adjustment_id or f"adj_{new_call_id().replace('-', '')}",
            payer_id=payer.id,
            amount_nano_usd=amount_nano_usd,
            reason=reason,
            author=author,
        )
        try:
            await self._ledger.adjust(wanted)
        except InsufficientCredit as error:
            # The operator asks, and it is the payer's credit that does not suffice: no 402.
            left = await self._ledger.balance(payer.id)
            raise Conflict(
                f"{payer.name} has {decimal_usd(left.available_nano_usd)} USD that can be taken:"
                " the rest is spent, or held by calls in progress. Take at most that, or try again"
                " when those calls have ended.",
                param="amount_usd",
            ) from error
        except Conflict as error:
            booked = await self._booked(wanted.id)
            raise Conflict(
                f"The adjustment {wanted.id} was booked already, over"
                f" {decimal_usd(booked.amount_nano_usd)} USD for {booked.payer_name}. Use another"
                " id, or none, for another correction.",
                param="id",
            ) from error
        return await self._booked(wanted.id)

    async def _booked(self, adjustment_id: str) -> Booked:
        return _booked((await self._database.read(_SQL_BY_ID, (adjustment_id,)))[0])

    async def adjustments(
        self, payer: Payer | None, *, before: str = "", limit: int = PAGE_LENGTH_MAX
    ) -> list[Booked]:
        """Corrections, newest first, from before an id; of one payer or of all."""
        payer_id = "" if payer is None else payer.id
        params = (payer_id, payer_id, before, before, min(limit, PAGE_LENGTH_MAX))
        return [_booked(row) for row in await self._database.read(_SQL_PAGE, params)]


def _used(reference: str, what: str) -> Conflict:
    return Conflict(
        f"The reference {reference!a} was used for {what}, which stays as it is. Use another"
        " reference to give more; an adjustment corrects what was given.",
        param="reference",
    )


def _booked(row: Row) -> Booked:
    return Booked(
        id=row[0],
        payer_id=row[1],
        payer_name=row[2],
        period=row[3],
        amount_nano_usd=row[4],
        reason=row[5],
        author=row[6],
        at_ms=row[7],
    )
