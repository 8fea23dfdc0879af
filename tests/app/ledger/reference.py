"""An independent ledger: no cache, no sums. Every question is answered from what happened."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.ledger.entries import CreditTerms

NEVER = 10**18


def month_of(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m")


def edge(period: str, months: int) -> int:
    """Milliseconds at which the month so many months later begins."""
    number = int(period[:4]) * 12 + int(period[5:]) - 1 + months
    return int(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000


@dataclass
class Credit:
    """A grant."""

    payer: str
    kind: str
    reference: str
    starts: int
    expires: int
    granted: int = 0
    spent: int = 0
    expired: int = 0
    closed: bool = False

    def left(self) -> int:
        return self.granted - self.spent - self.expired


@dataclass
class Ended:
    """How a call ended: state, charged, borne by the house."""

    state: str
    charged: int
    overrun: int


@dataclass
class Made:
    """One call that was admitted."""

    user: str
    key: str
    payer: str
    group: str
    amount: int
    at: int
    expires: int
    overage: bool
    months: list[tuple[str, str, str]] = field(default_factory=list)
    ended: Ended | None = None
    pending: bool = False

    def scopes(self) -> set[tuple[str, str]]:
        return {
            ("key", self.key),
            ("user", self.user),
            ("member", f"{self.payer}/{self.user}"),
            ("group", self.group),
            ("payer", self.payer),
        }


@dataclass
class Reference:
    """All that happened so far, in order."""

    now: int
    terms: dict[str, CreditTerms] = field(default_factory=dict)
    limits: dict[tuple[str, str], int] = field(default_factory=dict)
    known: dict[tuple[str, str, str], int] = field(default_factory=dict)
    credits: list[Credit] = field(default_factory=list)
    calls: dict[str, Made] = field(default_factory=dict)
    dues: dict[tuple[str, str, str], int] = field(default_factory=dict)
    forgiven: dict[str, int] = field(default_factory=dict)
    adjusted: dict[str, tuple[str, int]] = field(default_factory=dict)

    def live(self, payer: str) -> list[Credit]:
        """In burn order; of equals the one that was made first."""
        found = [each for each in self.credits if each.payer == payer and not each.closed]
        return sorted(found, key=lambda each: each.expires)

    def credit(self, payer: str) -> int:
        return sum(each.left() for each in self.live(payer))

    def valid(self, payer: str) -> int:
        """What is left of the grants that are valid now."""
        return sum(c.left() for c in self.live(payer) if c.starts <= self.now < c.expires)

    def open(self, payer: str) -> list[Made]:
        return [each for each in self.calls.values() if each.payer == payer and not each.ended]

    def held(self, payer: str) -> int:
        return sum(each.amount for each in self.open(payer))

    def book(self, payer: str) -> None:
        terms, period = self.terms[payer], month_of(self.now)
        mine = [
            c for c in self.credits if (c.payer, c.kind, c.reference) == (payer, "monthly", period)
        ]
        if not mine:
            mine = [Credit(payer, "monthly", period, edge(period, 0), edge(period, 1))]
            self.credits += mine
        change = terms.monthly_credit_nano_usd - mine[0].granted
        if change < 0:
            free = max(self.valid(payer) - self.held(payer), 0)
            change = -min(-change, mine[0].left(), free)
        mine[0].granted += change
        self._raise((payer, period, "fee"), terms.fee_nano_usd, most=True)
        for each in self.live(payer):
            late = any(call.at < each.expires for call in self.open(payer))
            if each.expires <= self.now and not late:
                each.expired += each.left()
                each.closed = True

    def room(self, payer: str) -> int:
        terms = self.terms[payer]
        if terms.overage and terms.overage_limit_nano_usd is None:
            return NEVER
        room = self.valid(payer) - self.held(payer)
        if terms.overage:
            due = self.dues.get((payer, month_of(self.now), "overage"), 0)
            room += (terms.overage_limit_nano_usd or 0) - due
        return max(room, 0)

    def used_of(self, key: tuple[str, str, str]) -> tuple[int, int]:
        """What a scope's month has spent and holds."""
        calls = [
            call
            for call in self.calls.values()
            if key[:2] in call.scopes() and month_of(call.at) == key[2]
        ]
        return (
            sum(call.ended.charged for call in calls if call.ended),
            sum(call.amount for call in calls if not call.ended),
        )

    def place(
        self,
        call_id: str,
        user: str,
        key: str,
        payer: str,
        group: str,
        most: int,
        floor: int,
        lives: int,
    ) -> int | str:
        """The amount that is set aside, or why none is."""
        if call_id in self.calls:
            return "conflict"
        self.book(payer)
        terms, period = self.terms[payer], month_of(self.now)
        expires = self.now + lives
        call = Made(user, key, payer, group, 0, self.now, expires, terms.overage)
        room = self.room(payer)
        for scope in sorted(call.scopes() & self.limits.keys()):
            month = (*scope, period)
            if self.known.get(month) != self.limits[scope]:
                self.known[month] = self.limits[scope]
                for other in self.calls.values():
                    matches = scope in other.scopes() and month_of(other.at) == period
                    if matches and not other.ended and month not in other.months:
                        other.months.append(month)
            call.months.append(month)
            room = min(room, max(self.limits[scope] - sum(self.used_of(month)), 0))
        if room < floor:
            return "insufficient"
        call.amount = min(most, room)
        self.calls[call_id] = call
        return call.amount

    def settle(self, call_id: str, cost: int) -> Ended | str:
        call = self.calls.get(call_id)
        if call is None:
            return "unknown"
        if call.ended is not None:
            if call.ended.state == "gave_up" and cost:
                self.forgiven.setdefault(call_id, cost)
            return call.ended
        payer, period = call.payer, month_of(call.at)
        terms = self.terms[payer]
        owes = call.overage or terms.overage
        charge = cost
        if cost > call.amount:
            most, others = NEVER, self.held(payer) - call.amount
            if not owes:
                most = self.valid(payer) - others
            elif terms.overage_limit_nano_usd is not None:
                due = self.dues.get((payer, period, "overage"), 0)
                most = self.valid(payer) + terms.overage_limit_nano_usd - due - others
            for month in call.months:
                posted, held = self.used_of(month)
                most = min(most, self.known[month] - posted - (held - call.amount))
            charge = min(cost, max(most, call.amount))
        rest = charge
        usable = [each for each in self.live(payer) if each.expires > call.at]
        in_time = [each for each in usable if each.starts <= call.at]
        for each in in_time + [each for each in usable if each.starts > call.at]:
            part = min(rest, each.left())
            each.spent += part
            rest -= part
        if rest and owes:
            self._raise((payer, period, "overage"), rest)
            rest = 0
        call.ended = Ended("settled", charge - rest, cost - charge + rest)
        return call.ended

    def void(self, call_id: str) -> Ended | str:
        call = self.calls.get(call_id)
        if call is None:
            return "unknown"
        call.ended = call.ended or Ended("void", 0, 0)
        return call.ended

    def give_up(self, *, all_running: bool) -> set[str]:
        """At a start everything that runs; else what has expired."""
        found = {
            call_id
            for call_id, call in self.calls.items()
            if call.ended is None
            and (
                (all_running and not call.pending) or (not all_running and call.expires <= self.now)
            )
        }
        for call_id in found:
            self.calls[call_id].ended = Ended("gave_up", 0, 0)
        return found

    def give(
        self, payer: str, kind: str, reference: str, amount: int, expires: int | None
    ) -> int | str:
        self.book(payer)
        for each in self.credits:
            if (each.payer, each.kind, each.reference) == (payer, kind, reference):
                return "conflict" if each.granted != amount else each.granted
        if expires is not None and expires <= self.now:
            return "invalid"
        self.credits.append(
            Credit(payer, kind, reference, self.now, NEVER if expires is None else expires, amount)
        )
        return amount

    def adjust(self, name: str, payer: str, amount: int) -> str | None:
        if name in self.adjusted:
            return None if self.adjusted[name] == (payer, amount) else "conflict"
        self.book(payer)
        if amount > 0:
            self.give(payer, "adjustment", name, amount, None)
        else:
            free = max(self.valid(payer) - self.held(payer), 0)
            rest = -amount
            if rest > free and not self.terms[payer].overage:
                return "insufficient"
            take = min(free, rest)
            rest -= take
            for each in self.live(payer):
                part = min(each.left(), take) if each.expires > self.now else 0
                each.spent += part
                take -= part
            if rest:
                self._raise((payer, month_of(self.now), "overage"), rest)
        self.adjusted[name] = (payer, amount)
        return None

    def _raise(self, due: tuple[str, str, str], amount: int, *, most: bool = False) -> None:
        before = self.dues.get(due, 0)
        if amount:
            self.dues[due] = max(before, amount) if most else before + amount
