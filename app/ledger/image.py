"""The ledger in memory, owned by the writer thread: verbs check and change it, rows follow.

Every verb checks first and changes only when nothing can refuse any more; then it buffers the
rows that say the same. When a group's rows cannot be written the writer stops for good, and this
image is never used again. Only payers' months that calls touch are in memory, and all open holds.
"""

import sqlite3
from collections.abc import Callable

from app.clock import Clock
from app.errors import Conflict, NotFound
from app.ledger.accounts import EntryKind, HouseAccount
from app.ledger.checks import INT64_MAX, check_cost, check_request, check_usage
from app.ledger.entries import Hold, HoldRequest, HoldState, Outcome, Settlement, UsageRow
from app.ledger.messages import insufficient_credit
from app.ledger.months import Month, Months
from app.ledger.rows import LedgerRows
from app.ledger.store import InsufficientCredit
from app.storage.migrate import DatabaseRefused

DAMAGED = "the database is damaged; restore a backup."


class _OpenHold:
    """A hold that has not ended, and the month that it weighs on."""

    __slots__ = ("amount", "expires_at_ms", "month", "overage")

    def __init__(self, month: Month, amount: int, overage: bool, expires_at_ms: int) -> None:
        self.month = month
        self.amount = amount
        self.overage = overage
        self.expires_at_ms = expires_at_ms


class LedgerImage:
    """Implements ``GroupMember``. ``on_release`` runs in the event loop after each commit, with
    the payers whose holds ended in it."""

    def __init__(self, clock: Clock, on_release: Callable[[set[str]], None]) -> None:
        self._clock = clock
        self._on_release = on_release
        self._rows = LedgerRows()
        self._months = Months(self._rows)
        self._ended: dict[str, Settlement] = {}  # of this group, not yet in the table
        self._forgiven: set[str] = set()  # of this group
        self._released: set[str] = set()
        self._highest_call_id = ""
        self._connection: sqlite3.Connection
        self.open_holds: dict[str, _OpenHold] = {}

    # The group's life.

    def opened(self, connection: sqlite3.Connection) -> None:
        """Load the open holds and the months that they weigh on."""
        self._connection = connection
        self._months.opened(connection)
        ask = connection.execute
        self._highest_call_id = ask("SELECT max(call_id) FROM settlements").fetchone()[0] or ""
        for call_id, payer_id, period, amount, overage, expires_at_ms in ask(
            "SELECT call_id, payer_id, period, amount_nano_usd, overage, expires_at_ms FROM holds"
        ).fetchall():
            month = self._months.find((payer_id, period))
            if month is None:
                raise DatabaseRefused(f"The hold of call {call_id} has no balance: {DAMAGED}")
            month.holds += 1
            self.open_holds[call_id] = _OpenHold(month, amount, bool(overage), expires_at_ms)
            self._highest_call_id = max(self._highest_call_id, call_id)

    def flush(self) -> None:
        """Write what the verbs gathered."""
        self._months.gather()
        self._rows.flush(self._connection)
        self._ended.clear()
        self._forgiven.clear()

    def committed(self) -> Callable[[], None] | None:
        """Forget months that nobody uses; say whose holds ended."""
        self._months.trim()
        if not self._released:
            return None
        released, self._released = self._released, set()
        return lambda: self._on_release(released)

    # The verbs.

    def place(self, request: HoldRequest) -> Hold:
        """See ``LedgerStore.place_hold``."""
        check_request(request)
        call_id, terms = request.call_id, request.terms
        self._check_unused(call_id)
        key = (request.payer_id, request.period)
        month = self._months.find(key)
        granted = terms.monthly_credit_nano_usd
        posted = held = 0
        if month is not None:
            granted, posted, held = max(granted, month.granted), month.posted, month.held
        amount = request.amount_nano_usd
        if not terms.overage:
            room = max(granted - posted - held, 0)
            if room < request.floor_nano_usd:
                raise InsufficientCredit(
                    insufficient_credit(request, granted, posted, held),
                    held_nano_usd=held,
                    fits_when_released=request.floor_nano_usd <= granted - posted,
                )
            amount = min(amount, room)
        elif posted + held + amount > INT64_MAX:
            raise ValueError("a month's sum does not fit 64 bits")
        # From here on nothing refuses.
        if month is None:
            month = self._months.make(key)
        if granted > month.granted:
            self._grant(month, request)
        month.held += amount
        month.holds += 1
        self._months.touch(month, terms.overage)
        self.open_holds[call_id] = _OpenHold(month, amount, terms.overage, request.expires_at_ms)
        self._highest_call_id = max(self._highest_call_id, call_id)
        self._rows.holds.add(
            (
                call_id,
                request.payer_id,
                request.period,
                request.user_id,
                request.key_id,
                request.model,
                amount,
                1 if terms.overage else 0,
                request.admitted_at_ms,
                request.expires_at_ms,
            )
        )
        return Hold(
            call_id=call_id,
            payer_id=request.payer_id,
            period=request.period,
            amount_nano_usd=amount,
        )

    def settle(self, call_id: str, cost_nano_usd: int, usage: UsageRow) -> Settlement:
        """See ``LedgerStore.settle_hold``. A cost that comes after a give-up is forgiven (I15)."""
        check_cost(cost_nano_usd)
        check_usage(call_id, usage)
        hold = self.open_holds.get(call_id)
        if hold is None:
            first = self._first_result(call_id)
            if first.state is HoldState.GAVE_UP and cost_nano_usd:
                self._forgive(call_id, cost_nano_usd)
            return first
        month = hold.month
        charge = cost_nano_usd
        if charge > hold.amount and not hold.overage:
            room = max(month.granted - month.posted - month.held, 0)
            charge = min(charge, hold.amount + room)
        if month.posted + month.held + charge > INT64_MAX:
            raise ValueError("a month's sum does not fit 64 bits")
        self._charge(call_id, month, charge, cost_nano_usd - charge)
        return self._end(
            hold,
            usage,
            Settlement(
                call_id=call_id,
                state=HoldState.SETTLED,
                cost_nano_usd=charge,
                overrun_nano_usd=cost_nano_usd - charge,
            ),
        )

    def void(self, call_id: str, usage: UsageRow) -> Settlement:
        """See ``LedgerStore.void_hold``."""
        check_usage(call_id, usage)
        hold = self.open_holds.get(call_id)
        if hold is None:
            return self._first_result(call_id)
        return self._end(
            hold, usage, Settlement(call_id=call_id, state=HoldState.VOID, cost_nano_usd=0)
        )

    def give_up(self, expired_at_ms: int | None) -> list[Settlement]:
        """End at no charge the holds that expired by then; all of them for None."""
        self.flush()  # `_killed` reads the holds' rows
        settlements = []
        for call_id, hold in list(self.open_holds.items()):
            if expired_at_ms is None or hold.expires_at_ms <= expired_at_ms:
                usage = self._killed(call_id)
                settlements.append(
                    self._end(
                        hold,
                        usage,
                        Settlement(call_id=call_id, state=HoldState.GAVE_UP, cost_nano_usd=0),
                    )
                )
        return settlements

    def holds_something(self, payer_id: str) -> bool:
        """Whether a hold of this payer is open. For the event loop: a glance, not a promise."""
        return any(hold.month.payer_id == payer_id for hold in list(self.open_holds.values()))

    # Parts of verbs.

    def _end(self, hold: _OpenHold, usage: UsageRow, settlement: Settlement) -> Settlement:
        call_id, month = settlement.call_id, hold.month
        cost = settlement.cost_nano_usd
        del self.open_holds[call_id]
        month.held -= hold.amount
        month.holds -= 1
        month.posted += cost
        self._months.touch(month, hold.overage)
        self._ended[call_id] = settlement
        self._released.add(month.payer_id)
        self._rows.settlements.add(
            (
                call_id,
                month.payer_id,
                month.period,
                str(settlement.state),
                hold.amount,
                cost,
                settlement.overrun_nano_usd,
                self._clock.now_ms(),
            )
        )
        self._rows.usage.add(
            (
                usage.at_ms,
                call_id,
                usage.user_id,
                usage.key_id,
                usage.payer_id,
                usage.model,
                usage.provider,
                str(usage.outcome),
                1 if usage.streamed else 0,
                usage.attempts,
                usage.input_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                usage.output_tokens,
                usage.reasoning_tokens,
                usage.compute_ns,
                1 if usage.estimated else 0,
                usage.latency_ms,
                usage.first_token_ms,
                cost,
            )
        )
        return settlement

    def _charge(self, call_id: str, month: Month, charge: int, overrun: int) -> None:
        """The entries of a settlement: credit first, what is past it as overage."""
        from_grant = min(charge, max(month.granted - month.posted, 0))
        if from_grant:
            self._enter(
                EntryKind.CHARGE, call_id, month.grant_account, HouseAccount.COGS, from_grant
            )
        if charge > from_grant:
            self._enter(
                EntryKind.OVERAGE,
                call_id,
                month.overage_account,
                HouseAccount.COGS,
                charge - from_grant,
            )
        if overrun:
            self._enter(
                EntryKind.OVERRUN, call_id, HouseAccount.OVERRUN, HouseAccount.COGS, overrun
            )

    def _forgive(self, call_id: str, cost_nano_usd: int) -> None:
        if call_id in self._forgiven:
            return
        found = self._connection.execute(
            "SELECT 1 FROM entries WHERE subject = ? AND kind = ?", (call_id, EntryKind.FORGIVEN)
        ).fetchone()
        if found is None:
            self._forgiven.add(call_id)
            self._enter(
                EntryKind.FORGIVEN,
                call_id,
                HouseAccount.FORGIVEN,
                HouseAccount.COGS,
                cost_nano_usd,
            )

    def _grant(self, month: Month, request: HoldRequest) -> None:
        """Bring the month's credit up to what the terms give."""
        reaches = request.terms.monthly_credit_nano_usd
        amount = reaches - month.granted
        self._rows.grants.add(
            (
                month.payer_id,
                request.terms.tier,
                month.period,
                reaches,
                amount,
                self._clock.now_ms(),
            )
        )
        subject = f"{month.payer_id}/{month.period}/{reaches}"
        self._enter(EntryKind.GRANT, subject, HouseAccount.GRANTED, month.grant_account, amount)
        month.granted = reaches

    def _enter(self, kind: EntryKind, subject: str, debit: int, credit: int, amount: int) -> None:
        self._rows.entries.add(
            (self._clock.now_ms(), str(kind), subject, int(debit), int(credit), amount)
        )

    def _check_unused(self, call_id: str) -> None:
        used = call_id in self.open_holds
        # Call ids grow with time, so one above all before it needs no look at the table.
        if not used and call_id <= self._highest_call_id:
            used = self._find_ended(call_id) is not None
        if used:
            raise Conflict(f"The call id {call_id} was used before.")

    def _first_result(self, call_id: str) -> Settlement:
        settlement = self._find_ended(call_id)
        if settlement is None:
            raise NotFound(f"There is no hold for the call {call_id}.")
        return settlement

    def _find_ended(self, call_id: str) -> Settlement | None:
        settlement = self._ended.get(call_id)
        if settlement is not None:
            return settlement
        row = self._connection.execute(
            "SELECT state, cost_nano_usd, overrun_nano_usd FROM settlements WHERE call_id = ?",
            (call_id,),
        ).fetchone()
        if row is None:
            return None
        return Settlement(
            call_id=call_id,
            state=HoldState(row[0]),
            cost_nano_usd=row[1],
            overrun_nano_usd=row[2],
        )

    def _killed(self, call_id: str) -> UsageRow:
        """The usage row of a call that nobody settled: who made it is known, not what it used."""
        row = self._connection.execute(
            "SELECT admitted_at_ms, user_id, key_id, payer_id, model FROM holds WHERE call_id = ?",
            (call_id,),
        ).fetchone()
        return UsageRow(
            call_id=call_id,
            at_ms=row[0],
            user_id=row[1],
            key_id=row[2],
            payer_id=row[3],
            model=row[4],
            provider="",
            outcome=Outcome.KILLED,
            streamed=False,
            attempts=0,
        )
