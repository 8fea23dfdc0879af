"""/api/v1/key and /api/v1/credits: OpenRouter's fields, one by one, with exact numbers."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.app.billing.till import DAY_MS, START_MS, Till, open_till

# OpenRouterTeam/typescript-sdk, GetCurrentKeyData: what its schema requires, and of which type.
FIELDS: dict[str, tuple[type, ...]] = {
    "label": (str,),
    "limit": (Decimal, type(None)),
    "limit_reset": (str, type(None)),
    "limit_remaining": (Decimal, type(None)),
    "include_byok_in_limit": (bool,),
    "usage": (Decimal,),
    "usage_daily": (Decimal,),
    "usage_weekly": (Decimal,),
    "usage_monthly": (Decimal,),
    "byok_usage": (Decimal,),
    "byok_usage_daily": (Decimal,),
    "byok_usage_weekly": (Decimal,),
    "byok_usage_monthly": (Decimal,),
    "is_free_tier": (bool,),
    "is_management_key": (bool,),
    "is_provisioning_key": (bool,),
    "creator_user_id": (str,),
    "expires_at": (str, type(None)),
    "rate_limit": (dict,),
}


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    async with open_till(tmp_path) as opened:
        yield opened


async def data(till: Till, path: str, key: str) -> dict[str, Any]:
    """The answer with its numbers as they are written."""
    response = await till.ask("GET", path, key)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/json")
    found = json.loads(response.content, parse_float=Decimal, parse_int=Decimal)
    assert list(found) == ["data"]
    fields: dict[str, Any] = found["data"]
    return fields


async def test_the_fields_of_a_key_without_a_limit(till: Till) -> None:
    alice = await till.user("alice")
    found = await data(till, "/api/v1/key", alice)
    assert {name: type(value) in FIELDS[name] for name, value in found.items()} == dict.fromkeys(
        FIELDS, True
    )
    assert found["label"] == f"tp_{alice[3:13]}..."
    assert alice[13:] not in str(found)
    assert (found["limit"], found["limit_reset"], found["limit_remaining"]) == (None, None, None)
    assert found["creator_user_id"] == await till.id_of("alice")
    assert found["rate_limit"] == {
        "requests": Decimal(-1),
        "interval": "10s",
        "note": "This field is deprecated and safe to ignore.",
    }
    assert (found["is_management_key"], found["include_byok_in_limit"]) == (False, False)


async def test_use_per_day_week_and_month_to_the_last_digit(till: Till) -> None:
    alice = await till.user("alice", "pro")
    # 2026-03-01 is a Sunday. Calls in February, on that day, on the 8th, on Monday, on Tuesday.
    calls = {-1: 1_000_000_001, 0: 15_000_000_000, 7: 5_000_000_000, 8: 300, 9: 4_000_000_000}
    for day, nano in calls.items():
        till.clock.ms = START_MS + day * DAY_MS
        await till.call(alice, nano)
    other = (await till.services.keys.create("alice", "other"))[1]
    await till.call(other, 7)
    found = await data(till, "/api/v1/key", alice)
    assert found["usage"] == Decimal("25.000000301") + Decimal("0.00")
    assert str(found["usage"]) == "25.000000301"
    assert str(found["usage_monthly"]) == "24.0000003"
    assert str(found["usage_weekly"]) == "4.0000003"
    assert str(found["usage_daily"]) == "4.00"
    assert str((await data(till, "/api/v1/key", other))["usage"]) == "7E-9"  # as Decimal shows it
    raw = (await till.ask("GET", "/api/v1/key", other)).text
    assert '"usage":0.000000007,' in raw


async def test_a_limit_is_monthly_and_counts_what_is_held(till: Till) -> None:
    alice = await till.user("alice", "pro")
    now_ms, till.clock.ms = till.clock.ms, START_MS - 1
    await till.call(alice, 7 * 10**9)  # last month
    till.clock.ms = now_ms
    await till.call(alice, 10**9)
    await till.hold(alice, 10**9)
    await till.limit("key", await till.key_id(alice), 5 * 10**9)
    for _ in range(2):  # before a call meets it, and after
        found = await data(till, "/api/v1/key", alice)
        assert str(found["limit"]) == "5.00"
        assert (found["limit_reset"], str(found["limit_remaining"])) == ("monthly", "3.00")
        await till.call(alice, 0)
    await till.limit("key", await till.key_id(alice), 1)
    assert str((await data(till, "/api/v1/key", alice))["limit_remaining"]) == "0.00"


async def test_byok_costs_nothing_and_is_told_apart(till: Till) -> None:
    alice = await till.user("alice")
    await till.call(alice, 0, byok=True)
    await till.call(alice, 5)
    found = await data(till, "/api/v1/key", alice)
    assert {found[f"byok_usage{span}"] for span in ("", "_daily", "_weekly", "_monthly")} == {0}
    assert found["usage"] == Decimal("0.000000005")


async def test_who_is_on_the_free_tier(till: Till) -> None:
    alice, bob = await till.user("alice"), await till.user("bob", "pro")
    carol = await till.user("carol")
    acme = await till.org("acme", "team", carol="admin")

    async def is_free(key: str) -> bool:
        free: bool = (await data(till, "/api/v1/key", key))["is_free_tier"]
        return free

    assert [await is_free(key) for key in (alice, bob, carol)] == [True, False, True]
    await till.sql("UPDATE orgs SET default_payer = 1 WHERE id = ?", acme)
    assert not await is_free(carol)
    await till.give("alice", "1.00", kind="promotional", expires="2027-01-01")
    assert await is_free(alice)
    await till.give("alice", "1.00")
    assert not await is_free(alice)


async def test_credits_less_usage_is_what_is_left(till: Till) -> None:
    alice = await till.user("alice")
    assert await data(till, "/api/v1/credits", alice) == {
        "total_credits": Decimal("0.10"),
        "total_usage": Decimal("0.00"),
    }
    await till.give("alice", "5.000000001")
    await till.call(alice, 1_234_567_891)
    found = await data(till, "/api/v1/credits", alice)
    assert str(found["total_credits"]) == "5.100000001"
    assert str(found["total_usage"]) == "1.234567891"
    till.clock.ms += 40 * DAY_MS  # what was left of March is gone, and April's credit is there
    found = await data(till, "/api/v1/credits", alice)
    left = (await till.got("/api/billing", alice))["credit_usd"]
    assert found["total_credits"] - found["total_usage"] == Decimal(left)


async def test_errors_have_openrouters_shape(till: Till) -> None:
    for path in ("/api/v1/key", "/api/v1/credits"):
        refused = await till.ask("GET", path, "tp_wrong")
        assert refused.status_code == 401
        assert list(refused.json()) == ["error"]
        error = refused.json()["error"]
        assert list(error) == ["code", "message"]
        assert error["code"] == 401
        assert refused.headers["www-authenticate"]
        operator = await till.ask("GET", path)
        assert (operator.status_code, operator.json()["error"]["code"]) == (403, 403)
        assert "user's key" in operator.json()["error"]["message"]
        method = await till.ask("POST", path, json={})
        assert method.status_code == 405
