"""The store and the reference side by side: every step is taken in both, and answers compared.

``Direct`` drives the ledger's image without threads or fsyncs, so that thousands of sequences take
seconds; what it leaves out (group commit, durability) has tests of its own.
"""

import random
import sqlite3
from collections.abc import Callable
from typing import Any

from app.errors import Conflict, InvalidRequest, NotFound, TurnpikeError
from app.ledger.accounts import GrantKind
from app.ledger.audit import audit
from app.ledger.credit_verbs import CreditVerbs
from app.ledger.entries import Adjustment, CreditTerms, Grant, Hold, Limit, NewGrant, Settlement
from app.ledger.image import LedgerImage
from app.ledger.late_costs import LateCosts
from app.ledger.store import InsufficientCredit
from app.storage.database import Params, Row, Transaction
from app.storage.migrate import migrate, shipped_migrations
from tests.app.ledger.books import START_MS, HandClock, HandStandings, hold, used
from tests.app.ledger.reference import Ended, Reference

USERS = ("user_ann", "user_ben")
PAYERS = (*USERS, "org_lab")
TIERS = {
    "none": CreditTerms(tier="none", monthly_credit_nano_usd=0, overage=False),
    "free": CreditTerms(tier="free", monthly_credit_nano_usd=100, overage=False),
    "plus": CreditTerms(tier="plus", monthly_credit_nano_usd=250, overage=False, fee_nano_usd=9),
    "pro": CreditTerms(tier="pro", monthly_credit_nano_usd=200, overage=True, fee_nano_usd=20),
    "capped": CreditTerms(
        tier="capped", monthly_credit_nano_usd=150, overage=True, overage_limit_nano_usd=80
    ),
}
SCOPES = (
    ("key", "key_1"),
    ("key", "key_2"),
    ("user", "user_ann"),
    ("member", "org_lab/user_ann"),
    ("group", "group_x"),
    ("payer", "org_lab"),
)
HOUR_MS = 3_600_000
Step = tuple[Any, ...]
"""The name of a step and what it takes."""


class Direct:
    """The ledger's image on a database in memory, one transaction per verb."""

    def __init__(self, clock: HandClock, standings: HandStandings, path: str = ":memory:") -> None:
        self.clock, self.standings = clock, standings
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA foreign_keys=ON")
        self.connection.execute("PRAGMA recursive_triggers=ON")
        migrate(self.connection, shipped_migrations(), START_MS)
        self.start()

    def start(self) -> None:
        """As after a new start of the process."""
        self.image = LedgerImage(self.clock, self.standings, lambda _: None)
        self.late = LateCosts(self.image)
        self.credit = CreditVerbs(self.image, self.standings, self.clock)
        self.image.opened(self.connection)

    def run(self, verb: Callable[..., Any], *arguments: Any, flush: bool = True) -> Any:
        """One verb; ``flush`` false leaves its rows for a later one's group."""
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN")
        try:
            return verb(*arguments)
        except (TurnpikeError, ValueError) as refusal:
            return refusal
        finally:
            if flush:
                self.commit()

    def commit(self) -> None:
        self.image.flush()
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")
        self.image.committed()

    def rows(self, sql: str) -> list[Row]:
        return self.connection.execute(sql).fetchall()


class World:
    """Both, and the steps that can be taken. ``chance`` decides what is committed together."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = HandClock()
        self.standings = HandStandings()
        self.reference = Reference(self.clock.ms)
        for payer in PAYERS:
            self.standings.terms[payer] = self.reference.terms[payer] = TIERS["free"]
        self.store = Direct(self.clock, self.standings)
        self.chance = random.Random(seed)
        self.count = 0

    def take(self, step: Step) -> None:
        """Take a step in both; their answers must agree."""
        name, *arguments = step
        answer, expected = getattr(self, name)(*arguments)
        assert _plain(answer) == expected, (step, answer, expected)

    # The steps.

    def place(
        self,
        number: int,
        user: str,
        payer: str,
        key: str,
        group: str,
        most: int,
        floor: int,
        lives: int,
    ) -> tuple[Any, Any]:
        request = hold(
            most,
            floor=min(floor, most),
            user=user,
            key_id=key,
            bill_to=f"{payer}#{group}",
            call_id=f"call_{number:03d}",
            admitted_at_ms=self.clock.ms,
            expires_at_ms=self.clock.ms + lives,
        )
        expected = self.reference.place(
            request.call_id, user, key, payer, group, most, min(floor, most), lives
        )
        return self._run(self.store.image.place, request), expected

    def settle(self, number: int, cost: int) -> tuple[Any, Any]:
        call_id = f"call_{number:03d}"
        row = self._usage(call_id)
        return self._run(self.store.image.settle, call_id, cost, row), self.reference.settle(
            call_id, cost
        )

    def void(self, number: int) -> tuple[Any, Any]:
        call_id = f"call_{number:03d}"
        return self._run(self.store.image.void, call_id, self._usage(call_id)), self.reference.void(
            call_id
        )

    def wait(self, number: int, lives: int) -> tuple[Any, Any]:
        """The call has ended, its cost comes later."""
        call_id = f"call_{number:03d}"
        call = self.reference.calls.get(call_id)
        now = self.clock.ms
        self._run(self.store.late.bind, call_id, "mock", f"up_{number}", now)
        answer = self._run(
            self.store.late.wait, call_id, self._usage(call_id), now, now + lives, 0, None
        )
        if call is None:
            return answer, "unknown"
        if call.ended is None and not call.pending:
            call.pending, call.expires = True, now + lives
        return answer, None

    def resolve(self, number: int, cost: int) -> tuple[Any, Any]:
        call_id = f"call_{number:03d}"
        call = self.reference.calls.get(call_id)
        answer = self._run(self.store.late.resolve, call_id, cost)
        if call is not None and call.ended is None and not call.pending:
            return answer, "conflict"
        return answer, self.reference.settle(call_id, cost)

    def give(self, payer: str, kind: str, number: int, amount: int, days: int) -> tuple[Any, Any]:
        expires = self.clock.ms + days * 24 * HOUR_MS if kind == "promotional" else None
        new = NewGrant(
            payer_id=payer,
            kind=GrantKind(kind),
            reference=f"ref_{number}",
            amount_nano_usd=amount,
            expires_at_ms=expires,
        )
        return self._run(self.store.credit.give, new), self.reference.give(
            payer, kind, f"ref_{number}", amount, expires
        )

    def adjust(self, number: int, payer: str, amount: int) -> tuple[Any, Any]:
        adjustment = Adjustment(
            id=f"adj_{number}", payer_id=payer, amount_nano_usd=amount, reason="r", author="a"
        )
        return self._run(self.store.credit.adjust, adjustment), self.reference.adjust(
            f"adj_{number}", payer, amount
        )

    def tier(self, payer: str, tier: str) -> tuple[None, None]:
        self.standings.terms[payer] = self.reference.terms[payer] = TIERS[tier]
        self.store.image.unit_ran()
        return None, None

    def limit(self, scope: tuple[str, str], amount: int) -> tuple[None, None]:
        self.count += 1
        self.standings.limits[scope] = Limit(*scope, amount, self.count)
        self.reference.limits[scope] = amount
        self.store.image.unit_ran()
        return None, None

    def catch_up(self, payer: str) -> tuple[Any, Any]:
        self.reference.book(payer)
        return self._run(self.store.credit.catch_up, (payer,)), None

    def pass_time(self, ms: int) -> tuple[None, None]:
        self.clock.ms += ms
        self.reference.now = self.clock.ms
        return None, None

    def give_up(self) -> tuple[Any, Any]:
        found = self._run(self.store.late.give_up_expired, self.clock.ms)
        return {each.call_id for each in found}, self.reference.give_up(all_running=False)

    def restart(self, recover: bool) -> tuple[Any, Any]:
        self.store.commit()
        self.store.start()
        if not recover:
            return None, None
        bound = {
            call_id
            for call_id, call in self.reference.calls.items()
            if call.ended is None and not call.pending and self._bound(call_id)
        }
        for call_id in bound:  # the provider is asked for their cost
            call = self.reference.calls[call_id]
            call.pending, call.expires = True, self.clock.ms + HOUR_MS // 2
        found = self._run(self.store.late.recover, self.clock.ms)
        return {each.call_id for each in found}, self.reference.give_up(all_running=True)

    # What must hold whenever everything is committed.

    def compare(self) -> None:
        """The tables say what the reference says."""
        store, reference = self.store, self.reference
        store.commit()
        assert store.rows(
            "SELECT payer_id, kind, reference, granted_nano_usd, spent_nano_usd, expired_nano_usd,"
            " closed FROM grants ORDER BY id"
        ) == [
            (c.payer, c.kind, c.reference, c.granted, c.spent, c.expired, int(c.closed))
            for c in reference.credits
        ]
        for payer, credit, held in store.rows(
            "SELECT payer_id, credit_nano_usd, held_nano_usd FROM wallets"
        ):
            assert (credit, held) == (reference.credit(payer), reference.held(payer)), payer
        dues = store.rows("SELECT payer_id, period, kind, amount_nano_usd FROM dues")
        assert {tuple(row[:3]): row[3] for row in dues if row[3]} == reference.dues
        assert len(store.image.open_holds) == sum(not c.ended for c in reference.calls.values())
        for *month, posted, held in store.rows(
            "SELECT scope, subject_id, period, posted_nano_usd, held_nano_usd FROM limit_months"
        ):
            scope, subject_id, period = month
            assert (posted, held) == reference.used_of((scope, subject_id, period)), month
        house: dict[str, int] = dict(
            store.rows(
                "SELECT kind, sum(amount_nano_usd) FROM entries"
                " WHERE kind IN ('overrun', 'forgiven') GROUP BY 1"
            )
        )
        ended = [call.ended for call in reference.calls.values() if call.ended]
        assert house.get("overrun", 0) == sum(each.overrun for each in ended)
        assert house.get("forgiven", 0) == sum(reference.forgiven.values())

    def close(self) -> None:
        """The audit agrees, too."""
        self.compare()
        found = audit(_Rows(self.store.connection))
        self.store.connection.close()
        assert found.problems == []

    def _bound(self, call_id: str) -> bool:
        asked = f"SELECT 1 FROM provider_requests WHERE call_id = '{call_id}'"
        return bool(self.store.rows(asked))

    def _run(self, verb: Callable[..., Any], *arguments: Any) -> Any:
        return self.store.run(verb, *arguments, flush=self.chance.random() < 0.6)

    def _usage(self, call_id: str) -> Any:
        call = self.reference.calls.get(call_id)
        if call is None:
            return used(call_id)
        return used(
            call_id,
            at_ms=call.at,
            user_id=call.user,
            key_id=call.key,
            payer_id=call.payer,
            group_id=call.group,
        )


class _Rows(Transaction):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, params: Params = ()) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()


def any_step(chance: random.Random) -> Step:
    """A step like those that happen, and some that should not."""
    draws, weights = zip(*_STEPS, strict=True)
    step: Step = chance.choices(draws, weights=weights)[0](chance)
    return step


def _place(chance: random.Random) -> Step:
    payer = chance.choice(PAYERS)
    user = payer if payer in USERS else chance.choice(USERS)
    group = chance.choice(("", "group_x")) if payer == "org_lab" else ""
    return (
        "place",
        chance.randrange(40),
        user,
        payer,
        chance.choice(("key_1", "key_2")),
        group,
        chance.randrange(131),
        chance.randrange(131),
        chance.randrange(1, 9) * HOUR_MS,
    )


def _give(chance: random.Random) -> Step:
    kind = chance.choice(("purchased", "promotional"))
    amount, days = chance.randrange(1, 200), chance.randrange(40)
    return ("give", chance.choice(PAYERS), kind, chance.randrange(6), amount, days)


def _adjust(chance: random.Random) -> Step:
    amount = chance.choice((50, 120, -40, -300))
    return ("adjust", chance.randrange(30), chance.choice(PAYERS), amount)


_STEPS: list[tuple[Callable[[random.Random], Step], int]] = [
    (_place, 34),
    (lambda c: ("settle", c.randrange(40), c.choice((c.randrange(131), c.randrange(1000)))), 22),
    (lambda c: ("void", c.randrange(40)), 5),
    (lambda c: ("wait", c.randrange(40), HOUR_MS // 2), 4),
    (lambda c: ("resolve", c.randrange(40), c.randrange(300)), 4),
    (_give, 4),
    (_adjust, 4),
    (lambda c: ("tier", c.choice(PAYERS), c.choice(sorted(TIERS))), 5),
    (lambda c: ("limit", c.choice(SCOPES), c.randrange(400)), 5),
    (lambda c: ("catch_up", c.choice(PAYERS)), 3),
    (lambda c: ("pass_time", c.choice((1, HOUR_MS // 3, 30 * HOUR_MS, 300 * HOUR_MS))), 6),
    (lambda c: c.choice((("give_up",), ("restart", True), ("restart", False))), 4),
]
"""How to draw each step, and how often."""


def _plain(answer: object) -> object:
    """An answer or a refusal in the reference's words."""
    if isinstance(answer, Settlement):
        return Ended(str(answer.state), answer.cost_nano_usd, answer.overrun_nano_usd)
    for kind, name in (
        (InsufficientCredit, "insufficient"),
        (Conflict, "conflict"),
        (NotFound, "unknown"),
        (InvalidRequest, "invalid"),
    ):
        if isinstance(answer, kind):
            return name
    if isinstance(answer, Hold):
        return answer.amount_nano_usd
    return answer.granted_nano_usd if isinstance(answer, Grant) else answer
