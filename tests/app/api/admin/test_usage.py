"""/api/usage: exact sums and single calls, by name, between two moments, for who may see them."""

import csv
import io
from typing import Any

import pytest

from app.api.admin.usage import moment_ms
from app.errors import InvalidRequest
from app.ledger.entries import Outcome
from app.storage.database import Transaction
from tests.app.api.admin.conftest import Desk
from tests.app.api.admin.tenants_desk import Tenants, settle_in

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
        (bob, "acme/tiny", 23_456_789, 1),
    ]:
        at_ms = JANUARY_MS + day * DAY_MS
        await desk.record(key, model=model, cost_nano_usd=cost, at_ms=at_ms)
    return desk


async def test_by_model(used: Desk) -> None:
    by_group = {line["group"]: line for line in await _usage(used, by="model")}
    assert by_group["acme/tiny"] == {
        "group": "acme/tiny",
        "label": "acme/tiny",
        "groups": {"model": "acme/tiny"},
        "labels": {"model": "acme/tiny"},
        "calls": 2,
        "input_tokens": 20,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "audio_input_tokens": 0,
        "output_tokens": 6,
        "reasoning_tokens": 0,
        "audio_output_tokens": 0,
        "images": 0,
        "characters": 0,
        "audio_ms": 0,
        "video_ms": 0,
        "compute_ns": 0,
        "cost_nano_usd": 23_456_796,
    }
    assert by_group["acme/gift"]["cost_nano_usd"] == 0


async def test_by_user_and_key_people_see_names(used: Desk) -> None:
    costs = {line["label"]: line["cost_nano_usd"] for line in await _usage(used, by="user")}
    assert costs == {"alice": 7, "bob": 23_456_789}
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
        ("by=model,model", "by"),
        ("by=", "by"),
        ("outcome=well", "outcome"),
        ("limit=0", "limit"),
        ("format=xml", "format"),
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
    assert moment_ms("2026-01-01T00:00:00.999Z", "since") == JANUARY_MS + 999
    assert moment_ms("1969-12-31T23:59:59Z", "since") == -1000
    with pytest.raises(InvalidRequest, match="2026-01-31"):
        moment_ms("31.01.2026", "until")


async def test_several_groupings_at_once(used: Desk) -> None:
    lines = await _usage(used, by="day,model,user")
    assert [(line["labels"], line["cost_nano_usd"]) for line in lines] == [
        ({"day": "2026-01-01", "model": "acme/tiny", "user": "alice"}, 7),
        ({"day": "2026-01-01", "model": "acme/gift", "user": "alice"}, 0),
        ({"day": "2026-01-02", "model": "acme/tiny", "user": "bob"}, 23_456_789),
    ]
    assert len(await _usage(used, by="day,model,user", limit="1")) == 1


async def test_filters_go_by_name_or_id(used: Desk) -> None:
    bob = await used.appliance.services.users.by_name("bob")
    for user in ("bob", "BOB", bob.id):
        assert [line["calls"] for line in await _usage(used, user=user)] == [1]
    assert await _usage(used, user="alice", model="acme/gift", outcome="failed") == []
    keys = {key.user_name: key for key in await used.appliance.services.keys.list()}
    for key in (keys["alice"].id, keys["alice"].prefix, f"tp_{keys['alice'].prefix}…"):
        assert len(await _usage(used, key=key)) == 2
    unknown = await used.http.get("/api/usage", params={"user": "nobody"})
    assert unknown.status_code == 404
    needs_org = await used.http.get("/api/usage", params={"group": "research"})
    assert needs_org.status_code == 404


@pytest.mark.parametrize("how", ["param", "accept"])
async def test_csv(used: Desk, how: str) -> None:
    response = await used.http.get(
        "/api/usage",
        params={"by": "user,model"} | ({"format": "csv"} if how == "param" else {}),
        headers={"accept": "text/csv"} if how == "accept" else {},
    )
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(row["user_name"], row["model"], row["cost_usd"]) for row in rows] == [
        ("bob", "acme/tiny", "0.023456789"),
        ("alice", "acme/tiny", "0.000000007"),
        ("alice", "acme/gift", "0.000000000"),
    ]
    assert sum(int(row["cost_nano_usd"]) for row in rows) == 23_456_796


async def test_rows_by_pages(used: Desk) -> None:
    seen: list[str] = []
    query = {"limit": "2"}
    while True:
        page = (await used.http.get("/api/usage/rows", params=query)).json()
        seen += [f"{row['user_name']} {row['offer']}" for row in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert sorted(seen) == ["alice acme/gift:mock", "alice acme/tiny:mock", "bob acme/tiny:mock"]
    assert seen[0] == "bob acme/tiny:mock"
    early = await used.http.get("/api/usage/rows", params={"until": "2026-01-02"})
    assert [row["user_name"] for row in early.json()["data"]] == ["alice", "alice"]
    bad = await used.http.get("/api/usage/rows", params={"cursor": "x' OR 1=1"})
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "cursor")


async def test_rows_as_csv_have_them_all(used: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.admin.usage.PAGE_MAX", 2)
    response = await used.http.get("/api/usage/rows", params={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["at"] for row in rows] == ["2026-01-02T00:00:00.000Z"] + [
        "2026-01-01T00:00:00.000Z"
    ] * 2
    assert len({row["call_id"] for row in rows}) == 3
    assert {row["pending"] for row in rows} == {"0"}
    assert rows[0]["paid_from"].endswith(":23456789")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\uff1d1", "\n=1"])
async def test_a_spreadsheet_finds_no_formula(desk: Desk, name: str) -> None:
    key = await desk.member("eve")
    await desk.record(key, model="acme/tiny", cost_nano_usd=1, at_ms=JANUARY_MS)

    def rename(tx: Transaction) -> None:
        tx.execute("UPDATE api_keys SET name = ?", (name,))
        tx.execute("UPDATE users SET name = ?", (name,))

    await desk.appliance.services.users._database.write(rename)
    for path in ("/api/usage?by=key,user&format=csv", "/api/usage/rows?format=csv"):
        text = (await desk.http.get(path)).text
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert f"'{name}" in cells
        assert [cell for cell in cells if cell.strip()[:1] in {*"=+-@", "\uff1d"}] == []


@pytest.fixture
async def tenants(desk: Desk) -> Tenants:
    found = await settle_in(desk)
    for who, org, cost in [("ann", "acme", 1), ("bob", "acme", 10), ("bob", None, 100)]:
        await desk.record(
            found.keys[who], model="acme/tiny", cost_nano_usd=cost, at_ms=JANUARY_MS, bill_to=org
        )
    await desk.record(
        found.keys["olga"],
        model="acme/tiny",
        cost_nano_usd=1_000,
        at_ms=JANUARY_MS,
        bill_to="other",
        outcome=Outcome.TRUNCATED,
    )
    return found


@pytest.mark.parametrize(
    ("who", "query", "expected"),
    [
        ("operator", {}, 1_111),
        ("root", {}, 1_111),
        ("root", {"org": "acme"}, 11),
        ("root", {"org": "acme", "user": "bob"}, 10),
        ("ann", {}, 1),
        ("ann", {"user": "ann"}, 1),
        ("ann", {"org": "acme"}, 11),
        ("ann", {"org": "acme", "user": "bob"}, 10),
        ("bob", {}, 110),
        ("bob", {"outcome": "truncated"}, 0),
        ("zoe", {}, 0),
    ],
)
async def test_everyone_sees_their_own(
    tenants: Tenants, who: str, query: dict[str, str], expected: int
) -> None:
    found = await tenants.answer(who, "GET", "/api/usage", **query)
    assert sum(line["cost_nano_usd"] for line in found["data"]) == expected
    rows = await tenants.answer(who, "GET", "/api/usage/rows", **query)
    assert sum(row["cost_nano_usd"] for row in rows["data"]) == expected


@pytest.mark.parametrize("path", ["/api/usage", "/api/usage/rows"])
@pytest.mark.parametrize(
    ("who", "query", "status"),
    [
        ("anonymous", {}, 401),
        ("bob", {"user": "ann"}, 403),
        ("bob", {"user": "nobody"}, 403),
        ("bob", {"org": "acme"}, 403),
        ("ann", {"org": "other"}, 404),
        ("ann", {"org": "nonesuch"}, 404),
        ("ann", {"org": "acme", "user": "olga"}, 404),
        ("ann", {"org": "acme", "user": "nobody"}, 404),
        ("zoe", {"org": "acme"}, 404),
    ],
)
async def test_nobody_sees_what_is_others(
    tenants: Tenants, path: str, who: str, query: dict[str, str], status: int
) -> None:
    assert (await tenants.refused(who, "GET", path, **query))[0] == status


async def test_keys_and_groups_of_others_show_nothing(tenants: Tenants) -> None:
    keys = {key.user_name: key for key in await tenants.desk.appliance.services.keys.list()}
    for query in ({"key": keys["ann"].id}, {"key": "key_unknown"}, {"group": tenants.group.id}):
        assert (await tenants.answer("bob", "GET", "/api/usage", **query))["data"] == []
        assert (await tenants.answer("bob", "GET", "/api/usage/rows", **query))["data"] == []
