"""Monthly credit over two years (I7): one grant each, however time passes and who comes first."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.ledger.accounts import GrantKind
from app.ledger.entries import Grant, NewGrant
from tests.app.ledger.books import FREE, PERIOD, PRO, HandStandings
from tests.app.ledger.boots import Boots, Run, after, racing, starts
from tests.app.ledger.two_clocks import DAY_MS, HOUR_MS, MINUTE_MS, TwoClocks

MONTHS = 24
CREDIT = FREE.monthly_credit_nano_usd
BOUGHT = 7_000_000


@dataclass
class Story:
    """Two years of one payer: what was spent in each month that anybody noticed."""

    boots: Boots
    spent: dict[str, int] = field(default_factory=dict)
    amounts: random.Random = field(default_factory=lambda: random.Random(24))

    async def call(self, run: Run) -> None:
        """A call of a size that leaves something of the month."""
        cost = self.amounts.randrange(1, CREDIT // 50)
        period = await run.call(cost)
        self.spent[period] = self.spent.get(period, 0) + cost

    async def at(self, moment_ms: int, run: Run | None = None) -> None:
        """Time passes until that moment (in ledger time, where the server runs)."""
        now_ms = self.boots.machine.wall_ms if run is None else run.clock.now_ms()
        assert moment_ms >= now_ms
        self.boots.machine.passes(moment_ms - now_ms)
        if run is not None:
            await run.jobs()


async def boot_at_the_boundary(story: Story) -> None:
    for month in range(MONTHS):
        await story.at(starts(after(PERIOD, month + 1)))
        async with story.boots.boot() as run:
            await story.call(run)
            await story.at(run.clock.now_ms() + DAY_MS, run)
            await story.call(run)


async def three_boots_a_month(story: Story) -> None:
    for month in range(MONTHS):
        for day in (0, 11, 27):
            await story.at(starts(after(PERIOD, month + 1)) + day * DAY_MS + MINUTE_MS)
            async with story.boots.boot() as run:
                await story.call(run)
                await run.minute()


async def two_months_missed(story: Story) -> None:
    for month in range(0, MONTHS, 3):
        await story.at(starts(after(PERIOD, month + 1)) + 3 * DAY_MS)
        async with story.boots.boot() as run:
            await story.call(run)


async def never_off(story: Story) -> None:
    async with story.boots.boot() as run:
        for month in range(MONTHS):
            for day in (0, 9, 18, 26):
                await story.at(starts(after(PERIOD, month + 1)) + day * DAY_MS, run)
                await story.call(run)


async def back_over_the_boundary(story: Story) -> None:
    """The clock steps back an hour, ten minutes into the month; it is put right days later."""
    machine = story.boots.machine
    async with story.boots.boot() as run:
        for month in range(MONTHS):
            period = after(PERIOD, month + 1)
            await story.at(starts(period) + 10 * MINUTE_MS, run)
            await story.call(run)
            machine.steps(-HOUR_MS)
            assert machine.wall_ms < starts(period)
            await story.call(run)
            assert run.clock.suspended
            for _ in range(3):
                await run.minute()
                await story.call(run)
            assert not run.clock.state().suspended
            await story.at(starts(period) + 10 * DAY_MS, run)
            machine.steps(HOUR_MS)
            await run.jobs()
            await story.call(run)


async def back_over_the_boundary_while_off(story: Story) -> None:
    machine = story.boots.machine
    for month in range(MONTHS):
        period = after(PERIOD, month + 1)
        await story.at(starts(period) + 10 * MINUTE_MS)
        async with story.boots.boot() as run:
            await story.call(run)
            await run.minute()
        machine.steps(-HOUR_MS)
        async with story.boots.boot() as run:
            assert run.clock.suspended
            await story.call(run)
            await run.minute()
            await story.call(run)
        machine.steps(HOUR_MS)


async def sixteen_at_once(story: Story) -> None:
    async with story.boots.boot() as run:
        for month in range(MONTHS):
            period = after(PERIOD, month + 1)
            story.boots.machine.passes(starts(period) - run.clock.now_ms())
            for placed in await racing(run, 16, 1_000):
                assert placed.period == period
                await run.settle(placed, 1_000)
            story.spent[period] = 16_000
            await run.jobs()


@pytest.mark.parametrize(
    "live",
    [
        boot_at_the_boundary,
        three_boots_a_month,
        two_months_missed,
        never_off,
        back_over_the_boundary,
        back_over_the_boundary_while_off,
        sixteen_at_once,
    ],
)
async def test_two_years_have_one_grant_for_each_month(
    tmp_path: Path, live: Callable[[Story], Awaitable[None]]
) -> None:
    boots = Boots(tmp_path / "ledger.db", TwoClocks(), HandStandings(FREE))
    story = Story(boots)
    async with boots.boot() as run:
        await story.call(run)
        await run.ledger.give(bought("payment_1"))
        await run.minute()
    await live(story)
    await story.at(boots.machine.wall_ms + 40 * DAY_MS)
    async with boots.boot() as run:
        await story.call(run)
        *before, last = await monthly(run, "user_ann")
        assert [grant.reference for grant in (*before, last)] == sorted(story.spent)
        for grant in (*before, last):
            assert grant.granted_nano_usd == CREDIT
            assert grant.spent_nano_usd == story.spent[grant.reference]
        for grant in before:
            assert grant.expired_nano_usd == CREDIT - story.spent[grant.reference]
        assert last.expired_nano_usd == 0
        assert await entries_of(run, "grant") == [(CREDIT,)] * (len(before) + 1)
        assert await entries_of(run, "expiry") == [(grant.expired_nano_usd,) for grant in before]
        assert await run.database.read("SELECT 1 FROM entries WHERE kind = 'reversal'") == []
        kept = [
            grant for grant in (await run.ledger.balance("user_ann")).grants if grant is not last
        ]
        assert [grant.left_nano_usd for grant in kept if grant.kind == GrantKind.PURCHASED] == [
            BOUGHT
        ]


def bought(reference: str) -> NewGrant:
    return NewGrant(
        payer_id="user_ann",
        kind=GrantKind.PURCHASED,
        reference=reference,
        amount_nano_usd=BOUGHT,
    )


async def monthly(run: Run, payer_id: str) -> list[Grant]:
    """The payer's monthly grants, in the order of months, out of the table."""
    await run.database.write(lambda tx: None)  # what the verbs gathered is written before a unit
    rows = await run.database.read(
        "SELECT id, payer_id, reference, starts_at_ms, expires_at_ms, granted_nano_usd,"
        " spent_nano_usd, expired_nano_usd FROM grants WHERE kind = 'monthly' AND payer_id = ?"
        " ORDER BY reference",
        (payer_id,),
    )
    return [
        Grant(
            id=row[0],
            payer_id=row[1],
            kind=GrantKind.MONTHLY,
            reference=row[2],
            starts_at_ms=row[3],
            expires_at_ms=row[4],
            note="",
            granted_nano_usd=row[5],
            spent_nano_usd=row[6],
            expired_nano_usd=row[7],
        )
        for row in rows
    ]


async def entries_of(run: Run, kind: str) -> list[tuple[int]]:
    """The amounts of the entries of a kind, in order."""
    rows = await run.database.read(
        "SELECT amount_nano_usd FROM entries WHERE kind = ? ORDER BY seq", (kind,)
    )
    return [(row[0],) for row in rows]


@pytest.fixture
def boots(tmp_path: Path) -> Boots:
    return Boots(tmp_path / "ledger.db", TwoClocks(), HandStandings(FREE))


async def test_a_late_settlement_goes_to_its_own_month(boots: Boots) -> None:
    """And the month's credit does not expire under a call that is still open."""
    december = after(PERIOD)
    boots.machine.passes(starts(december) - 60_000 - boots.machine.wall_ms)
    async with boots.boot() as run:
        await run.call(10_000)
        placed = await run.ledger.place_hold(run.order(CREDIT - 10_000))
        boots.machine.passes(120_000)
        await run.jobs()
        await run.call(500)
        assert [each.expired_nano_usd for each in await monthly(run, "user_ann")] == [0, 0]
        await run.settle(placed, 3_000)
        await run.jobs()
        november, new = await monthly(run, "user_ann")
        assert (november.spent_nano_usd, new.spent_nano_usd) == (13_000, 500)
        assert november.expired_nano_usd == CREDIT - 13_000
        charged = "SELECT period FROM entries WHERE kind = 'charge' AND amount_nano_usd = 3000"
        assert await run.database.read(charged) == [(PERIOD,)]


async def test_purchased_credit_outlives_the_months(boots: Boots) -> None:
    async with boots.boot() as run:
        await run.ledger.give(bought("payment_1"))
        await run.call(CREDIT)
        await run.call(1_000_000)  # past the month's credit: from what was bought
    boots.machine.passes(400 * DAY_MS)
    async with boots.boot() as run:
        await run.call(CREDIT)
        await run.call(2_000_000)
        balance = await run.ledger.balance("user_ann")
        assert balance.credit_nano_usd == BOUGHT - 3_000_000
        assert await entries_of(run, "expiry") == []


async def test_down_up_and_back_never_gives_twice(boots: Boots) -> None:
    terms = boots.standings.terms
    most = PRO.monthly_credit_nano_usd
    async with boots.boot() as run:
        for spend in (1_000, 50_000_000, most // 2, 1_000, 7):
            for tier in (PRO, FREE, PRO, FREE, FREE, PRO):
                terms["user_ann"] = tier
                await run.database.write(lambda tx: None)
                await run.ledger.catch_up(["user_ann", "user_ann"])
                (grant,) = await monthly(run, "user_ann")
                given = max(tier.monthly_credit_nano_usd, grant.spent_nano_usd)
                assert grant.granted_nano_usd == given <= most
            await run.call(spend)
        (grant,) = await monthly(run, "user_ann")
        given = sum(amount for (amount,) in await entries_of(run, "grant"))
        taken = sum(amount for (amount,) in await entries_of(run, "reversal"))
        assert given - taken == grant.granted_nano_usd == most


async def test_a_downgrade_leaves_what_open_calls_hold(boots: Boots) -> None:
    boots.standings.terms["user_ann"] = PRO
    async with boots.boot() as run:
        placed = await run.ledger.place_hold(run.order(1_500_000_000))
        boots.standings.terms["user_ann"] = FREE
        await run.database.write(lambda tx: None)
        assert (await run.ledger.balance("user_ann")).credit_nano_usd == 1_500_000_000
        await run.settle(placed, 1_000)
        assert (await run.ledger.balance("user_ann")).credit_nano_usd == CREDIT - 1_000


async def test_seats_change_the_pool_by_entries(boots: Boots) -> None:
    seat = 2_000_000_000

    async def seats(run: Run, count: int) -> int:
        """The pool's credit once there are so many."""
        boots.standings.terms["org_acme"] = PRO.__class__(
            tier="team", monthly_credit_nano_usd=count * seat, overage=True, fee_nano_usd=count * 10
        )
        await run.database.write(lambda tx: None)
        return (await run.ledger.balance("org_acme")).credit_nano_usd

    async with boots.boot() as run:
        assert await seats(run, 3) == 3 * seat
        assert await seats(run, 5) == 5 * seat
        await run.call(4 * seat, user="user_bob", bill_to="org_acme")
        assert await seats(run, 2) == 0, "what was spent is not taken back"
        assert await seats(run, 4) == 0
        assert await seats(run, 6) == 2 * seat
        (grant,) = await monthly(run, "org_acme")
        assert (grant.granted_nano_usd, grant.spent_nano_usd) == (6 * seat, 4 * seat)
        assert await entries_of(run, "grant") == [(3 * seat,), (2 * seat,), (2 * seat,)]
        assert await entries_of(run, "reversal") == [(seat,)]
        dues = "SELECT amount_nano_usd FROM dues WHERE kind = 'fee'"
        assert await run.database.read(dues) == [(60,)]
        boots.machine.passes(starts(after(PERIOD)) - boots.machine.wall_ms)
        await run.jobs()
        assert [each.granted_nano_usd for each in await monthly(run, "org_acme")] == [6 * seat] * 2
        assert await run.database.read(dues) == [(60,), (60,)]


# While the time is in doubt.


async def test_a_jump_ahead_begins_no_month_and_ends_no_call(boots: Boots) -> None:
    async with boots.boot() as run:
        await run.call(1_000)
        open_call = await run.ledger.place_hold(run.order(5_000))
        boots.machine.steps(40 * DAY_MS)
        await run.jobs()
        assert await run.call(2_000) == PERIOD, "calls go on, in the month that ledger time says"
        await run.minute()
        assert run.clock.suspended
        assert await entries_of(run, "grant") == [(CREDIT,)]
        assert await entries_of(run, "expiry") == []
        assert run.ledger.open_holds() == 1

        await run.minute()
        assert not run.clock.state().suspended
        await run.jobs()
        assert run.ledger.open_holds() == 1, "it is two minutes old, not forty days"
        await run.settle(open_call, 4_000)
        await run.jobs()
        assert await entries_of(run, "expiry") == [(CREDIT - 7_000,)]
        assert len(await entries_of(run, "grant")) == 2


async def test_a_hold_is_given_up_at_its_age_whatever_the_clock_does(boots: Boots) -> None:
    """It expires after 30 minutes. The clock jumps ahead, is confirmed, and steps back again."""
    async with boots.boot() as run:
        await run.ledger.place_hold(run.order(5_000))
        for step_ms in (40 * DAY_MS, 0, 0, -35 * DAY_MS, 0, 0):
            boots.machine.steps(step_ms)
            for _ in range(4):
                await run.minute()
            assert run.ledger.open_holds() == 1
        for _ in range(9):
            await run.minute()
        assert run.ledger.open_holds() == 0


async def test_nobody_is_granted_a_month_by_a_clock_in_doubt(boots: Boots) -> None:
    """Not by a call, not by a look at the balance, not by the job."""
    async with boots.boot() as run:
        boots.machine.steps(-2 * HOUR_MS)
        assert (await run.ledger.balance("user_new")).credit_nano_usd == 0
        await run.ledger.catch_up(["user_new"])
        assert await entries_of(run, "grant") == []
        run.clock.confirm()
        assert (await run.ledger.balance("user_new")).credit_nano_usd == CREDIT
