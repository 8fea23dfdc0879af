"""/api/usage: exact sums, by name, between two moments."""

from typing import Any

import pytest

from app.api.admin.usage import moment_ms
from app.errors import InvalidRequest
from tests.app.api.admin.conftest import Desk

JANUARY_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY_MS = 86_400_000


async def _usage(desk: Desk, **query: str) -> list[dict[str, Any]]:
    response = await desk.http.get("/api/usage", params=query)
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


@pytest.fixture
async def used(desk: Desk) -> Desk:
    alice, bob = await desk.member("alice"), await desk.member("bob")
    for key, model, cost, day in [
        (alice, "acme/tiny", 7, 0),
        (alice, "acme/gift", 0, 0),
        (bob, "acme/tiny", 123_456_789, 1),
    ]:
        at_ms = JANUARY_MS + day * DAY_MS
        await desk.record(key, model=model, cost_nano_usd=cost, at_ms=at_ms)
    return desk


async def test_by_model(used: Desk) -> None:
    by_group = {line["group"]: line for line in await _usage(used, by="model")}
    assert by_group["acme/tiny"] == {
        "group": "acme/tiny",
        "label": "acme/tiny",
        "calls": 2,
        "input_tokens": 20,
        "output_tokens": 6,
        "compute_ns": 0,
        "cost_nano_usd": 123_456_796,
    }
    assert by_group["acme/gift"]["cost_nano_usd"] == 0


async def test_by_user_and_key_people_see_names(used: Desk) -> None:
    costs = {line["label"]: line["cost_nano_usd"] for line in await _usage(used, by="user")}
    assert costs == {"alice": 7, "bob": 123_456_789}
    keys = {key.id: key for key in await used.appliance.services.keys.list()}
    for line in await _usage(used, by="key"):
        key = keys[line["group"]]
        assert line["label"] == f"laptop (tp_{key.prefix}…)"


async def test_by_day_and_provider(used: Desk) -> None:
    days = [(line["label"], line["calls"]) for line in await _usage(used, by="day")]
    assert sorted(days) == [("2026-01-01", 2), ("2026-01-02", 1)]
    assert [line["label"] for line in await _usage(used, by="provider")] == ["mock"]


async def test_since_counts_and_until_does_not(used: Desk) -> None:
    async def calls(**query: str) -> int:
        return sum(line["calls"] for line in await _usage(used, **query))

    assert await calls() == 3
    assert await calls(since="2026-01-02") == 1
    assert await calls(until="2026-01-02") == 2
    assert await calls(since="2026-01-01", until="2026-01-03") == 3
    assert await calls(since="2026-01-02T01:00:00+01:00") == 1
    assert await calls(since="2026-01-02T00:00:01Z") == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("by=nothing", "by"),
        ("since=yesterday!", "since"),
        ("until=2026-13-01", "until"),
        ("since=2026-01-01' OR 1=1", "since"),
        ("sort=cost", "sort"),
        ("by=model&by=user", "by"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(desk: Desk, query: str, param: str) -> None:
    response = await desk.http.get(f"/api/usage?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_moments() -> None:
    assert moment_ms("1970-01-01", "since") == 0
    assert moment_ms("2026-01-01", "since") == JANUARY_MS
    assert moment_ms("2026-01-01T00:00:00.999Z", "since") == JANUARY_MS
    assert moment_ms("1969-12-31T23:59:59Z", "since") == -1000
    with pytest.raises(InvalidRequest, match="2026-01-31"):
        moment_ms("31.01.2026", "until")
