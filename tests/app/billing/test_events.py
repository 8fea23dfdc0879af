"""Events by name, in pages, of an org; and the crossings that the ledger records."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.billing.till import Till, open_till

CENT = 10_000_000


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    async with open_till(tmp_path) as opened:
        yield opened


async def event(till: Till, scope: str, subject_id: str, kind: str = "limit_80") -> None:
    await till.sql(
        "INSERT INTO events (at_ms, kind, scope, subject_id, period, amount_nano_usd,"
        " limit_nano_usd) VALUES (?, ?, ?, ?, '2026-03', 8, 10)",
        *(till.clock.ms, kind, scope, subject_id),
    )


async def test_credit_and_limits_are_told_at_80_and_100_percent_once(till: Till) -> None:
    alice = await till.user("alice")
    await till.limit("key", await till.key_id(alice), 5 * CENT)
    for cents in (3, 1, 1):  # 60, 80 and 100 % of the limit; half of the credit
        await till.call(alice, cents * CENT)
    await till.limit("key", await till.key_id(alice), 50 * CENT)
    for cents in (3, 1, 1):  # 80, 90 and 100 % of the credit
        await till.call(alice, cents * CENT)
    found = (await till.got("/api/events"))["data"][::-1]
    assert [(one["kind"], one["scope"]) for one in found] == [
        ("limit_80", "key"),
        ("limit_100", "key"),
        ("credit_80", "payer"),
        ("credit_100", "payer"),
    ]
    assert found[0] == {
        "id": found[0]["id"],
        "at_ms": till.clock.ms - 1,
        "kind": "limit_80",
        "scope": "key",
        "subject_id": await till.key_id(alice),
        "subject_name": f"laptop (tp_{alice[3:13]}…)",
        "payer_id": await till.id_of("alice"),
        "payer_name": "alice",
        "period": "2026-03",
        "amount_nano_usd": 4 * CENT,
        "amount_usd": "0.04",
        "limit_nano_usd": 5 * CENT,
        "limit_usd": "0.05",
        "attempts": 0,
        "delivered_at_ms": None,
        "given_up": False,
    }
    assert [one["limit_usd"] for one in found] == ["0.05", "0.05", "0.10", "0.10"]


async def test_every_scope_has_names(till: Till) -> None:
    await till.user("ann")
    ann, acme = await till.id_of("ann"), await till.org("acme", "team", ann="admin")
    await till.sql("INSERT INTO resource_groups VALUES ('group_1', ?, 'lab', 0)", acme)
    for scope, subject in (
        ("user", ann),
        ("payer", ann),
        ("payer", acme),
        ("member", f"{acme}/{ann}"),
        ("group", "group_1"),
        ("key", "key_of_nobody"),
    ):
        await event(till, scope, subject)
    found = (await till.got("/api/events"))["data"][::-1]
    assert [(one["subject_name"], one["payer_name"]) for one in found] == [
        ("ann", "ann"),
        ("ann", "ann"),
        ("acme", "acme"),
        ("acme/ann", "acme"),
        ("acme/lab", "acme"),
        ("key_of_nobody", ""),
    ]


async def test_an_org_sees_its_own_members_and_groups_and_no_more(till: Till) -> None:
    ann, bob = await till.user("ann"), await till.user("bob")
    ann_id, bob_id = await till.id_of("ann"), await till.id_of("bob")
    acme = await till.org("acme", "team", ann="admin", bob="member")
    other = await till.org("acme2", "team", bob="admin")
    for org, group in ((acme, "group_1"), (other, "group_2")):
        await till.sql("INSERT INTO resource_groups VALUES (?, ?, 'lab', 0)", group, org)
        await event(till, "payer", org)
        await event(till, "member", f"{org}/{bob_id}")
        await event(till, "group", group)
    await event(till, "user", bob_id)
    await event(till, "payer", ann_id)
    for key, org, names in (
        (ann, "acme", ["acme", "acme/bob", "acme/lab"]),
        (bob, "acme2", ["acme2", "acme2/bob", "acme2/lab"]),
    ):
        found = (await till.got("/api/events", key, org=org))["data"][::-1]
        assert [one["subject_name"] for one in found] == names


async def test_pages_newest_first(till: Till) -> None:
    for number in range(7):
        await event(till, "payer", f"p{number}")
    seen: list[str] = []
    query = {"limit": "3"}
    while True:
        page = await till.got("/api/events", **query)
        seen += [one["subject_id"] for one in page["data"]]
        if page["next_before"] is None:
            break
        query["before"] = page["next_before"]
    assert seen == [f"p{number}" for number in reversed(range(7))]
