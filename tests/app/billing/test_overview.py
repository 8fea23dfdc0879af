"""What a payer sees adds up, at every moment of a month, whoever looks."""

import calendar
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.billing.overview import projection
from app.clock import DAY_MS, month_ms
from app.ledger.accounts import GrantKind
from app.ledger.entries import NewGrant
from tests.app.billing.till import Till, open_till

CENT = 10_000_000
MONTHS = st.builds("{:04d}-{:02d}".format, st.integers(1971, 2100), st.integers(1, 12))


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    async with open_till(tmp_path) as opened:
        yield opened


@given(MONTHS)
def test_months_follow_each_other(period: str) -> None:
    begin, end = month_ms(period)
    year, month = int(period[:4]), int(period[5:])
    assert end - begin == calendar.monthrange(year, month)[1] * DAY_MS
    first = datetime.fromtimestamp(begin // 1000, UTC)
    assert (first.year, first.month, first.day, first.hour) == (year, month, 1, 0)
    after = datetime.fromtimestamp(end // 1000, UTC).strftime("%Y-%m")
    assert month_ms(after)[0] == end


@given(MONTHS, st.integers(0, 10**18), st.integers(-DAY_MS, 40 * DAY_MS))
def test_the_projection_is_the_straight_line(period: str, used: int, at: int) -> None:
    begin, end = month_ms(period)
    found = projection(used, begin, begin + at, end)
    if at < DAY_MS:
        assert found is None
        return
    elapsed = min(at, end - begin)
    exact = Fraction(used) * (end - begin) / elapsed
    assert found is not None
    assert 0 <= exact - found < 1
    assert found >= used
    if at >= end - begin:
        assert found == used


@given(MONTHS, st.integers(0, 10**15), st.integers(1, 27))
def test_a_steady_use_is_projected_exactly(period: str, daily: int, days: int) -> None:
    begin, end = month_ms(period)
    total = daily * ((end - begin) // DAY_MS)
    assert projection(daily * days, begin, begin + days * DAY_MS, end) == total


async def overview(till: Till, key: str, **query: str) -> dict[str, Any]:
    found: dict[str, Any] = await till.got("/api/billing", key, **query)
    assert found["credit_nano_usd"] == sum(grant["left_nano_usd"] for grant in found["grants"])
    owed = ("overage_nano_usd", "fee_nano_usd", "endpoints_nano_usd")
    assert found["due_nano_usd"] == sum(found[name] for name in owed)
    return found


async def test_a_month_of_a_user_on_a_hard_stop(till: Till) -> None:
    alice = await till.user("alice")
    await till.call(alice, 6 * CENT)
    await till.hold(alice, CENT)
    found = await overview(till, alice)
    assert found["payer"] == {"id": await till.id_of("alice"), "name": "alice", "kind": "user"}
    assert (found["tier"], found["period"]) == ("free", "2026-03")
    assert found["resets_at"] == "2026-04-01T00:00:00Z"
    assert (found["credit_usd"], found["held_usd"], found["used_usd"]) == ("0.04", "0.01", "0.06")
    assert found["available_usd"] == "0.03"
    assert found["projected_usd"] == "0.186"  # 10 of 31 days are over
    assert (found["overage_usd"], found["due_usd"]) == ("0.00", "0.00")
    assert found["overage_limit_usd"] is None
    (grant,) = found["grants"]
    assert (grant["kind"], grant["granted_usd"], grant["left_usd"]) == ("monthly", "0.10", "0.04")


async def test_credit_stands_in_the_order_in_which_it_is_spent(till: Till) -> None:
    alice = await till.user("alice")
    await till.give("alice", "1.00", "order-1")
    await till.give("alice", "2.00", "june", kind="promotional", expires="2026-06-01")
    await till.give("alice", "3.00", "march", kind="promotional", expires="2026-03-20")
    found = await overview(till, alice)
    assert [grant["reference"] for grant in found["grants"]] == [
        "march",
        "2026-03",
        "june",
        "order-1",
    ]
    assert found["grants"][3]["expires_at_ms"] is None
    await till.call(alice, 3 * 10**9 + CENT)
    left = [grant["left_usd"] for grant in (await overview(till, alice))["grants"]]
    assert left == ["0.00", "0.09", "2.00", "1.00"]


async def test_pay_as_you_go_up_to_its_limit(till: Till) -> None:
    bob = await till.user("bob", "capped")
    assert (await overview(till, bob))["available_usd"] == "4.00"
    await till.call(bob, 2_500_000_000)
    await till.hold(bob, 10**9)
    found = await overview(till, bob)
    assert (found["credit_usd"], found["used_usd"]) == ("0.00", "2.50")
    assert (found["overage_usd"], found["overage_limit_usd"]) == ("1.50", "3.00")
    assert (found["available_usd"], found["due_usd"]) == ("0.50", "1.50")


async def test_a_fee_is_due_and_nothing_bounds_pay_as_you_go(till: Till) -> None:
    carol = await till.user("carol", "pro")
    found = await overview(till, carol)
    assert (found["fee_usd"], found["due_usd"]) == ("9.00", "9.00")
    assert found["available_nano_usd"] is None
    assert found["available_usd"] is None


async def test_calls_whose_cost_is_awaited_are_held_and_pending(till: Till) -> None:
    alice = await till.user("alice")
    call_id = await till.hold(alice, 3 * CENT)
    await till.hold(alice, CENT)
    ledger = till.services.ledger
    await ledger.bind_request(call_id, "mock", "r1")
    usage = await till.usage(call_id)
    await ledger.await_cost(call_id, usage, give_up_at_ms=till.clock.ms + 1)
    found = await overview(till, alice)
    assert found["held_usd"] == "0.04"
    assert found["pending"] == {"calls": 1, "held_nano_usd": 3 * CENT, "held_usd": "0.03"}
    await ledger.resolve_cost(call_id, 2 * CENT)
    found = await overview(till, alice)
    assert found["pending"]["calls"] == 0
    assert (found["held_usd"], found["used_usd"]) == ("0.01", "0.02")


async def test_a_new_month_begins_with_nothing_used(till: Till) -> None:
    alice = await till.user("alice")
    await till.call(alice, 6 * CENT)
    till.clock.ms = month_ms("2026-04")[0]
    found = await overview(till, alice)
    assert (found["period"], found["used_usd"], found["credit_usd"]) == ("2026-04", "0.00", "0.10")
    assert found["projected_nano_usd"] is None
    await till.call(alice, CENT)
    till.clock.ms += DAY_MS
    assert (await overview(till, alice))["projected_usd"] == "0.30"


async def test_limits_count_from_use_before_a_call_meets_them_and_the_same_after(
    till: Till,
) -> None:
    alice = await till.user("alice", "pro")
    user_id, key_id = await till.id_of("alice"), await till.key_id(alice)
    await till.call(alice, 4 * CENT)
    await till.hold(alice, CENT)
    for scope, subject in (("key", key_id), ("user", user_id), ("payer", user_id)):
        await till.limit(scope, subject, 6 * CENT)
    await till.limit("user", await till.id_of("alice") + "x", 1)  # nobody's, and not shown
    before = (await overview(till, alice))["limits"]
    for line in before:
        assert (line["used_usd"], line["held_usd"], line["left_usd"]) == ("0.04", "0.01", "0.01")
    assert sorted(line["scope"] for line in before) == ["key", "payer", "user"]
    names = {line["scope"]: line["subject_name"] for line in before}
    assert names == {"payer": "alice", "user": "alice", "key": f"laptop (tp_{alice[3:13]}…)"}
    await till.call(alice, 0)  # meets them
    assert (await overview(till, alice))["limits"] == before
    await till.limit("user", user_id, CENT)  # lowered under what is used
    lowered = {line["scope"]: line["left_usd"] for line in (await overview(till, alice))["limits"]}
    assert lowered == {"key": "0.01", "payer": "0.01", "user": "0.00"}


async def test_a_limit_set_anew_counts_what_was_used_without_it(till: Till) -> None:
    alice = await till.user("alice", "pro")
    user_id = await till.id_of("alice")
    await till.limit("user", user_id, 9 * CENT)
    await till.call(alice, CENT)
    await till.sql("DELETE FROM spending_limits")
    assert (await overview(till, alice))["limits"] == []
    await till.call(alice, 2 * CENT)
    await till.limit("user", user_id, 9 * CENT)
    (line,) = (await overview(till, alice))["limits"]
    assert (line["used_usd"], line["left_usd"]) == ("0.03", "0.06")


async def test_an_orgs_limits_are_shown_to_whom_they_concern(till: Till) -> None:
    ann, bea = await till.user("ann"), await till.user("bea")
    acme = await till.org("acme", "team", ann="admin", bea="member")
    ids = {name: await till.id_of(name) for name in ("ann", "bea")}
    for number, name in enumerate(("lab", "ops")):
        await till.sql(
            "INSERT INTO resource_groups VALUES (?, ?, ?, 0)",
            *(f"group_{number:032x}", acme, name),
        )
    await till.sql("INSERT INTO group_members VALUES (?, ?)", f"group_{0:032x}", ids["bea"])
    await till.limit("payer", acme, 10 * CENT)
    for number in (0, 1):
        await till.limit("group", f"group_{number:032x}", 5 * CENT)
    for name in ("ann", "bea"):
        await till.limit("member", f"{acme}/{ids[name]}", 3 * CENT)
    await till.call(bea, CENT, bill_to=f"group_{0:032x}")

    async def seen(key: str) -> dict[str, str]:
        found = await overview(till, key, org="ACME")
        assert (found["payer"]["name"], found["used_usd"]) == ("acme", "0.01")
        return {line["subject_name"]: line["left_usd"] for line in found["limits"]}

    everything = {
        "acme": "0.09",
        "acme/lab": "0.04",
        "acme/ops": "0.05",
        "acme/ann": "0.03",
        "acme/bea": "0.02",
    }
    assert await seen(ann) == everything
    assert await seen("the-operators-own-token") == everything
    assert await seen(bea) == {"acme": "0.09", "acme/lab": "0.04", "acme/bea": "0.02"}
    # What the org paid is not bea's own.
    assert (await overview(till, bea))["used_usd"] == "0.00"


async def test_the_ledger_and_the_overview_agree_on_a_promotion_that_ended(till: Till) -> None:
    await till.user("alice")
    payer = await till.id_of("alice")
    await till.services.ledger.give(
        NewGrant(
            payer_id=payer,
            kind=GrantKind.PROMOTIONAL,
            reference="x",
            amount_nano_usd=CENT,
            expires_at_ms=till.clock.ms + 1,
        )
    )
    assert (await overview(till, "the-operators-own-token", payer="alice"))["credit_usd"] == "0.11"
    till.clock.ms += 1
    assert (await overview(till, "the-operators-own-token", payer="alice"))["credit_usd"] == "0.10"
