"""The holds that have not ended, in memory, and what a new process finds of them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.ledger.entries import Limit, Outcome, UsageRow
from app.ledger.limit_months import LimitMonth
from app.ledger.wallets import Wallet
from app.storage.migrate import DatabaseRefused

if TYPE_CHECKING:
    import sqlite3

    from app.ledger.image import LedgerImage

DAMAGED = "the database is damaged; restore a backup with `turnpike restore PATH`."


@dataclass(slots=True, eq=False)
class OpenHold:
    """A hold, and what it weighs on. ``pending``: the call ended, its cost is awaited.

    ``idempotency`` is the user and the Idempotency-Key that wait for the call's answer.
    """

    call_id: str
    wallet: Wallet
    user_id: str
    key_id: str
    group_id: str
    period: str
    amount: int
    overage: bool
    byok: bool
    expires_at_ms: int
    limits: list[LimitMonth] = field(default_factory=list)
    pending: bool = False
    idempotency: tuple[str, str] | None = None

    def scopes(self) -> tuple[tuple[str, str], ...]:
        """The spending limits that would apply to the hold: scope, and whose."""
        payer_id = self.wallet.payer_id
        return (
            ("key", self.key_id),
            ("user", self.user_id),
            ("member", f"{payer_id}/{self.user_id}"),
            ("group", self.group_id),
            ("payer", payer_id),
        )


def load_open_holds(image: "LedgerImage", connection: "sqlite3.Connection") -> None:
    """Bring the open holds back into memory, with the wallets and limits that they weigh on.

    Raises DatabaseRefused where rows that belong together are not.
    """
    ask = connection.execute
    for call_id, payer_id, admitted_at_ms, overage, byok, *rest in ask(
        "SELECT call_id, payer_id, admitted_at_ms, overage, byok, user_id, key_id, group_id,"
        " period, amount_nano_usd, expires_at_ms FROM holds ORDER BY admitted_at_ms"
    ).fetchall():
        user_id, key_id, group_id, period, amount, expires_at_ms = rest
        hold = OpenHold(
            call_id,
            image.wallets.of(payer_id),
            user_id=user_id,
            key_id=key_id,
            group_id=group_id,
            period=period,
            amount=amount,
            overage=bool(overage),
            byok=bool(byok),
            expires_at_ms=expires_at_ms,
        )
        image.enlist(hold, admitted_at_ms)
    for call_id, give_up_at_ms in ask(
        "SELECT call_id, give_up_at_ms FROM pending_costs"
    ).fetchall():
        pending = image.open_holds.get(call_id)
        if pending is None:
            raise DatabaseRefused(f"The pending cost of call {call_id} has no hold: {DAMAGED}")
        pending.pending, pending.expires_at_ms = True, give_up_at_ms
    for call_id, owner in image.idempotency.unanswered().items():
        if call_id in image.open_holds:
            image.open_holds[call_id].idempotency = owner
    months = {
        (scope, subject_id, hold.period)
        for hold in image.open_holds.values()
        for scope, subject_id in hold.scopes()
    }
    for scope, subject_id, period in sorted(months):
        for amount, set_at_ms in ask(
            "SELECT amount_nano_usd, set_at_ms FROM limit_months"
            " WHERE scope = ? AND subject_id = ? AND period = ? AND held_nano_usd > 0",
            (scope, subject_id, period),
        ).fetchall():
            image.limit_months.of(Limit(scope, subject_id, amount, set_at_ms), period)


def killed(connection: "sqlite3.Connection", call_id: str) -> UsageRow:
    """The usage row of a call that nobody settled: who made it is known, not what it used.

    Reads the hold's row: flush first.
    """
    row = connection.execute(
        "SELECT admitted_at_ms, user_id, key_id, payer_id, group_id, model, byok FROM holds"
        " WHERE call_id = ?",
        (call_id,),
    ).fetchone()
    return UsageRow(
        call_id=call_id,
        at_ms=row[0],
        user_id=row[1],
        key_id=row[2],
        payer_id=row[3],
        group_id=row[4],
        model=row[5],
        byok=bool(row[6]),
        provider="",
        outcome=Outcome.KILLED,
        streamed=False,
        attempts=0,
    )
