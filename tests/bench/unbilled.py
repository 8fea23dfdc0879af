"""The appliance without billing, for comparison only: ``python -m tests.bench.unbilled serve``.

The spine is the same, and so is everything before and behind it; holds and settlements are
answered from thin air, so no call touches the writer thread, the disk, or anybody's money.
"""

from app import boot
from app.cli.main import main
from app.clock import period_of
from app.ledger.entries import Hold, HoldRequest, HoldState, Settlement, StoredAnswer, UsageRow
from app.ledger.sqlite import SqliteLedger


class Unbilled(SqliteLedger):
    """A ledger that says yes."""

    async def place_hold(self, request: HoldRequest) -> Hold:
        return Hold(
            call_id=request.call_id,
            payer_id=request.user_id,
            group_id="",
            tier="",
            period=period_of(request.admitted_at_ms),
            amount_nano_usd=request.amount_nano_usd,
            offers=request.offers,
        )

    async def settle_hold(
        self,
        call_id: str,
        cost_nano_usd: int,
        usage: UsageRow,
        *,
        lost_nano_usd: int = 0,
        answer: StoredAnswer | None = None,
    ) -> Settlement:
        return Settlement(call_id=call_id, state=HoldState.SETTLED, cost_nano_usd=cost_nano_usd)

    async def void_hold(
        self, call_id: str, usage: UsageRow, *, lost_nano_usd: int = 0
    ) -> Settlement:
        return Settlement(call_id=call_id, state=HoldState.VOID, cost_nano_usd=0)


if __name__ == "__main__":
    boot.SqliteLedger = Unbilled  # type: ignore[attr-defined]
    main()
