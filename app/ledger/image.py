"""The ledger in memory, owned by the writer thread: verbs check and change it, rows follow.

Every verb checks first and changes only when nothing can refuse any more; then it buffers the
rows that say the same. When a group's rows cannot be written the writer stops for good, and this
image is never used again. Only wallets that calls touch are in memory, and all open holds.

Here is a call's life; what else moves money is in ``credit_verbs.py``, late costs in
``late_costs.py``.
"""

import sqlite3
from collections.abc import Callable

from app.clock import Clock, period_of
from app.errors import CallError
from app.ledger import notices
from app.ledger.accounts import EntryKind, HouseAccount
from app.ledger.booking import Booking
from app.ledger.callers import Callers, paid_for
from app.ledger.checks import INT64_MAX, check_cost, check_month, check_request, check_usage
from app.ledger.endings import Endings, used_before
from app.ledger.entries import (
    CreditTerms,
    Hold,
    HoldRequest,
    HoldState,
    Settlement,
    Standing,
    StoredAnswer,
    UsageRow,
)
from app.ledger.idempotency import IdempotencyKeys
from app.ledger.journal import Journal
from app.ledger.limit_months import LimitMonth, LimitMonths
from app.ledger.messages import refused
from app.ledger.open_holds import OpenHold, load_open_holds
from app.ledger.rows import LedgerRows
from app.ledger.spending import chargeable, credit_room, pay
from app.ledger.standing import Standings
from app.ledger.usage_rows import UsageRows
from app.ledger.verify import check_at_boot
from app.ledger.wallets import Wallet, Wallets


class LedgerImage:
    """Implements ``GroupMember``. ``on_release`` runs in the event loop after each commit, with
    the payers whose holds ended in it."""

    def __init__(
        self, clock: Clock, standings: Standings, on_release: Callable[[set[str]], None]
    ) -> None:
        self._clock = clock
        self._on_release = on_release
        self.rows = LedgerRows()
        self.usage = UsageRows()
        self.wallets = Wallets(self.rows)
        self.journal = Journal(self.rows.entries, clock)
        self.booking = Booking(self.wallets, self.journal, clock)
        self.limit_months = LimitMonths(self.rows, self._spent, self._weigh)
        self.idempotency = IdempotencyKeys()
        self.endings = Endings(self.journal)
        self.callers = Callers(standings)
        self._released: set[str] = set()
        self.connection: sqlite3.Connection
        self.open_holds: dict[str, OpenHold] = {}

    # The group's life.

    def opened(self, connection: sqlite3.Connection) -> None:
        """Load the open holds and the wallets that they weigh on."""
        check_at_boot(connection)
        self.connection = connection
        for part in (
            self.wallets,
            self.journal,
            self.limit_months,
            self.idempotency,
            self.endings,
            self.usage,
        ):
            part.opened(connection)
        load_open_holds(self, connection)

    def flush(self) -> None:
        """Write what the verbs gathered."""
        self.wallets.gather()
        self.limit_months.gather()
        self.rows.flush(self.connection)
        self.usage.flush(self.connection)
        self.endings.flushed()

    def committed(self) -> Callable[[], None] | None:
        """Forget wallets that nobody uses; say whose holds ended."""
        self.wallets.trim()
        self.limit_months.trim()
        if not self._released:
            return None
        released, self._released = self._released, set()
        return lambda: self._on_release(released)

    def unit_ran(self) -> None:
        """A plain unit may have changed users, orgs, limits: ask for standings again."""
        self.callers.forget()

    # The verbs.

    def place(self, request: HoldRequest) -> Hold:
        """See ``LedgerStore.place_hold``."""
        check_request(request)
        call_id, at_ms = request.call_id, request.admitted_at_ms
        if call_id in self.open_holds:
            raise used_before(call_id)
        self.endings.check_unused(call_id)
        if request.idempotency is not None:
            now_ms = self._clock.now_ms()
            self.idempotency.check(request.user_id, request.idempotency, now_ms)
        standing = self.callers.of(self.ask, request)
        offers = paid_for(standing, request)
        terms, period = standing.terms, period_of(at_ms)
        wallet = self.wallets.of(standing.payer_id)
        self.booking.book(wallet, terms, at_ms)
        amount, months = self._admit(request, standing, wallet, period)
        # From here on nothing refuses.
        hold = OpenHold(
            call_id,
            wallet,
            user_id=request.user_id,
            key_id=request.key_id,
            group_id=standing.group_id,
            period=period,
            amount=amount,
            overage=terms.overage,
            byok=request.byok,
            expires_at_ms=request.expires_at_ms,
        )
        hold.limits = months
        wallet.held += amount
        self.enlist(hold, at_ms)
        self.wallets.touch(wallet, terms.overage)
        for month in months:
            month.held += amount
            self.limit_months.touch(month)
        if request.idempotency is not None:
            hold.idempotency = (request.user_id, request.idempotency.key)
            self.idempotency.take(request.user_id, request.idempotency, call_id, at_ms)
        self.rows.holds.add(
            (
                call_id,
                standing.payer_id,
                period,
                request.user_id,
                request.key_id,
                standing.group_id,
                request.model,
                amount,
                1 if terms.overage else 0,
                1 if request.byok else 0,
                at_ms,
                request.expires_at_ms,
            )
        )
        return Hold(
            call_id=call_id,
            payer_id=standing.payer_id,
            group_id=standing.group_id,
            tier=terms.tier,
            period=period,
            amount_nano_usd=amount,
            offers=offers,
        )

    def settle(
        self,
        call_id: str,
        cost_nano_usd: int,
        usage: UsageRow,
        lost_nano_usd: int = 0,
        answer: StoredAnswer | None = None,
    ) -> Settlement:
        """See ``LedgerStore.settle_hold``. A cost that comes after a give-up is forgiven (I15)."""
        check_cost(cost_nano_usd)
        check_cost(lost_nano_usd)
        check_usage(call_id, usage)
        hold = self.open_holds.get(call_id)
        if hold is None:
            first = self.endings.first(call_id)
            if first.state is HoldState.GAVE_UP and cost_nano_usd:
                self.endings.forgive(call_id, cost_nano_usd)
            return first
        check_month(hold.period, usage)
        cost = 0 if hold.byok else cost_nano_usd
        charge = cost
        if cost > hold.amount:
            charge = chargeable(self.wallets, hold, cost, self._clock.now_ms(), self._terms_now)
        admitted_at_ms = self._free(hold)
        paid_from, unpaid = "", 0
        if charge:
            paid_from, unpaid = pay(
                self.wallets, self.journal, hold, admitted_at_ms, charge, self._terms_now
            )
        overrun = cost - charge + unpaid
        if overrun:
            self.journal.enter(
                EntryKind.OVERRUN,
                hold.period,
                call_id,
                HouseAccount.OVERRUN,
                HouseAccount.COGS,
                overrun,
            )
        if hold.idempotency is not None and answer is not None:
            self.idempotency.answer(hold.idempotency, answer)
            hold.idempotency = None
        state = HoldState.SETTLED
        return self._end(hold, state, charge - unpaid, overrun, lost_nano_usd, usage, paid_from)

    def void(self, call_id: str, usage: UsageRow, lost_nano_usd: int = 0) -> Settlement:
        """See ``LedgerStore.void_hold``."""
        check_cost(lost_nano_usd)
        check_usage(call_id, usage)
        hold = self.open_holds.get(call_id)
        if hold is None:
            return self.endings.first(call_id)
        self._free(hold)
        return self._end(hold, HoldState.VOID, 0, 0, lost_nano_usd, usage, "")

    def give_up(self, hold: OpenHold, usage: UsageRow, lost_nano_usd: int = 0) -> Settlement:
        """End a hold at no charge."""
        self._free(hold)
        return self._end(hold, HoldState.GAVE_UP, 0, 0, lost_nano_usd, usage, "")

    def holds_something(self, payer_id: str) -> bool:
        """Whether a hold of this payer is open. For the event loop: a glance, not a promise."""
        return any(hold.wallet.payer_id == payer_id for hold in list(self.open_holds.values()))

    def ask(self, sql: str, params: object = ()) -> list[tuple[object, ...]]:
        """Run one query in the group's transaction, as ``Standings`` do."""
        return self.connection.execute(sql, params).fetchall()  # type: ignore[arg-type]

    # Parts of verbs.

    def enlist(self, hold: OpenHold, admitted_at_ms: int) -> None:
        """Keep an open hold; its amount is in the wallet already."""
        self.open_holds[hold.call_id] = hold
        hold.wallet.admitted[hold.call_id] = admitted_at_ms
        hold.wallet.owing += hold.overage
        self.endings.highest_call_id = max(self.endings.highest_call_id, hold.call_id)

    def _admit(
        self, request: HoldRequest, standing: Standing, wallet: Wallet, period: str
    ) -> tuple[int, list[LimitMonth]]:
        """How much a call may hold, and the limited months that it counts in (I5).

        Raises InsufficientCredit where the least that it needs is more than any scope has left.
        """
        at_ms = request.admitted_at_ms
        money = credit_room(self.wallets, wallet, standing.terms, at_ms, period)
        room = max(money, 0)
        months: list[LimitMonth] = []
        narrowest: LimitMonth | None = None
        for limit in standing.limits:
            month = self.limit_months.of(limit, period)
            months.append(month)
            if month.room() < room:
                room, narrowest = month.room(), month
        if room < request.floor_nano_usd:
            refusal = refused(request, standing, wallet, period, money, narrowest)
            if not refusal.fits_when_released:
                notices.exhausted(self.rows, wallet, narrowest, period, at_ms)
            raise refusal
        amount = min(request.amount_nano_usd, room)
        if wallet.held + amount > INT64_MAX // 2:
            raise ValueError("what is held does not fit 64 bits")
        return amount, months

    def _terms_now(self, wallet: Wallet) -> CreditTerms | None:
        try:
            return self.callers.standings.of_payer(self.ask, wallet.payer_id)
        except CallError:
            return None  # a tier that is not configured any more: nothing past the credit

    def _free(self, hold: OpenHold) -> int:
        """Give back what the hold took; when its call was admitted."""
        wallet = hold.wallet
        del self.open_holds[hold.call_id]
        admitted_at_ms = wallet.admitted.pop(hold.call_id)
        wallet.held -= hold.amount
        wallet.owing -= hold.overage
        for month in hold.limits:
            month.held -= hold.amount
        return admitted_at_ms

    def _end(
        self,
        hold: OpenHold,
        state: HoldState,
        cost: int,
        overrun: int,
        lost: int,
        usage: UsageRow,
        paid_from: str,
    ) -> Settlement:
        call_id, wallet = hold.call_id, hold.wallet
        if lost:
            self.journal.enter(
                EntryKind.FAILOVER_LOSS,
                hold.period,
                call_id,
                HouseAccount.FAILOVER_LOSS,
                HouseAccount.COGS,
                lost,
            )
        overage = hold.overage
        if wallet.held > wallet.credit and not overage:
            terms = self._terms_now(wallet)
            overage = terms is not None and terms.overage
        self.wallets.touch(wallet, overage)
        for month in hold.limits:
            month.posted += cost
            self.limit_months.touch(month)
        if cost:
            notices.spent(self.rows, hold, usage.at_ms)
        if hold.idempotency is not None:
            self.idempotency.free(hold.idempotency)
        if hold.pending:
            self.ask("DELETE FROM pending_costs WHERE call_id = ?", (call_id,))
        settlement = Settlement(
            call_id=call_id, state=state, cost_nano_usd=cost, overrun_nano_usd=overrun
        )
        self.endings.add(settlement, hold.period)
        self._released.add(wallet.payer_id)
        self.rows.settlements.add(
            (
                call_id,
                wallet.payer_id,
                hold.period,
                state.value,
                hold.amount,
                cost,
                overrun,
                lost,
                self._clock.now_ms(),
            )
        )
        self.usage.add(usage, cost, paid_from)
        return settlement

    def _spent(self, scope: str, subject_id: str, period: str) -> int:
        self.flush()
        return self.usage.spent(self.connection, scope, subject_id, period)

    def _weigh(self, month: LimitMonth) -> int:
        """Let the open holds that a limited month counts weigh on it; what they come to."""
        scope, held = (month.limit.scope, month.limit.subject_id), 0
        for hold in self.open_holds.values():
            if hold.period == month.period and scope in hold.scopes():
                held += hold.amount
                if month not in hold.limits:
                    hold.limits.append(month)
        return held
