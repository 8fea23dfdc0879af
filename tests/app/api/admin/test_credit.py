"""/api/credit and /api/adjustments: each once by its reference, by owners only, on record."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.api.admin.billing_wire import CreditList, GivenCredit
from tests.app.billing.till import Till, open_till

PROMOTION = {"kind": "promotional", "expires": "2026-06-01"}


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    async with open_till(tmp_path) as opened:
        await opened.user("alice")
        yield opened


def credit(**changes: Any) -> dict[str, Any]:
    body = {"payer": "alice", "kind": "purchased", "amount_usd": "5.00", "reference": "order-1"}
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def adjustment(**changes: Any) -> dict[str, Any]:
    return {"payer": "alice", "amount_usd": "1.00", "reason": "outage", **changes}


async def left(till: Till, payer: str = "alice") -> int:
    found: int = (await till.got("/api/billing", payer=payer))["credit_nano_usd"]
    return found


async def test_purchased_credit_is_given_and_listed(till: Till) -> None:
    given = await till.give("ALICE", "5.000000001", "order 1", note="wire of 3 March")
    assert given == {
        "id": given["id"],
        "payer": "alice",
        "kind": "purchased",
        "reference": "order 1",
        "note": "wire of 3 March",
        "starts_at_ms": till.clock.ms,
        "expires_at_ms": None,
        "granted_nano_usd": 5_000_000_001,
        "granted_usd": "5.000000001",
        "spent_nano_usd": 0,
        "spent_usd": "0.00",
        "expired_nano_usd": 0,
        "expired_usd": "0.00",
        "left_nano_usd": 5_000_000_001,
        "left_usd": "5.000000001",
    }
    listed = await till.got("/api/credit", payer="alice")
    assert [line["kind"] for line in listed["data"]] == ["purchased", "monthly"]
    assert listed["data"][0] == given
    assert listed["next_before"] is None


async def test_an_org_gets_credit_too(till: Till) -> None:
    await till.org("acme", "team", alice="admin")
    await till.give("acme", "7.00")
    assert await left(till, "acme") == 9 * 10**9  # and a seat's monthly credit
    assert await left(till) == 10**8


async def test_the_list_comes_in_pages(till: Till) -> None:
    for number in range(4):
        await till.give("alice", "1.00", f"order-{number}")
    seen: list[str] = []
    query: dict[str, Any] = {"payer": "alice", "limit": 2}
    while True:
        page = await till.got("/api/credit", **query)
        seen += [line["reference"] for line in page["data"]]
        if page["next_before"] is None:
            break
        query["before"] = page["next_before"]
    assert seen == ["order-3", "order-2", "order-1", "order-0", "2026-03"]


@pytest.mark.parametrize("more", [{}, PROMOTION], ids=["purchased", "promotional"])
async def test_sixteen_at_once_give_once(till: Till, more: dict[str, Any]) -> None:
    asked = [till.ask("POST", "/api/credit", json=credit(**more)) for _ in range(16)]
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert await left(till) == 5 * 10**9 + 10**8


async def test_of_sixteen_amounts_under_one_reference_one_is_given(till: Till) -> None:
    asked = [
        till.ask("POST", "/api/credit", json=credit(amount_usd=f"{dollars}.00"))
        for dollars in range(1, 17)
    ]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 15
    (given,) = [answer.json() for answer in answers if answer.status_code == 201]
    assert await left(till) == given["granted_nano_usd"] + 10**8
    refused = next(answer.json()["error"] for answer in answers if answer.status_code == 409)
    assert (refused["param"], refused["code"]) == ("reference", "conflict")
    assert "Use another reference" in refused["message"]


async def test_a_reference_is_for_one_amount_end_payer_and_kind(till: Till) -> None:
    await till.user("bob")
    await till.give("alice", "5.00", "r", **PROMOTION)
    for changes in ({"amount_usd": "5.01"}, {"expires": "2026-06-02"}):
        body = credit(reference="r", **{**PROMOTION, **changes})
        assert (await till.ask("POST", "/api/credit", json=body)).status_code == 409
    await till.give("alice", "6.00", "r")  # another kind
    await till.give("bob", "7.00", "r", **PROMOTION)
    assert await left(till) == 11_100_000_000


async def test_a_promotion_that_is_over_can_still_be_repeated(till: Till) -> None:
    first = await till.give("alice", "5.00", "r", **PROMOTION)
    till.clock.ms = first["expires_at_ms"] + 1
    again = await till.give("alice", "5.00", "r", **PROMOTION)
    assert again["id"] == first["id"]
    assert await left(till) == 10**8
    listed = await till.got("/api/credit", payer="alice")
    by_reference = {line["reference"]: line for line in listed["data"]}
    assert by_reference["r"]["expired_usd"] == "5.00"
    assert by_reference["r"]["left_usd"] == "0.00"


@pytest.mark.parametrize(
    ("changes", "status", "param", "words"),
    [
        ({"amount_usd": "0"}, 400, "amount_usd", "zero"),
        ({"amount_usd": "-1"}, 400, "amount_usd", "such as"),
        ({"amount_usd": "1.0000000001"}, 400, "amount_usd", "nine places"),
        ({"amount_usd": 5}, 400, "amount_usd", "str"),
        ({"payer": "nobody"}, 404, "payer", "/api/users"),
        ({"payer": "' OR 1=1 --"}, 404, "payer", "no user or org"),
        ({"kind": "monthly"}, 400, "kind", "monthly"),
        ({"reference": ""}, 400, "reference", "length"),
        ({"reference": "\n"}, 400, "reference", "regex"),
        ({"reference": None}, 400, "reference", "Missing"),
        ({"expires": "2026-06-01"}, 400, "expires", "leave out"),
        ({"kind": "promotional"}, 400, "expires", "2026-12-31"),
        ({**PROMOTION, "expires": "2026-03-01"}, 400, "expires", "expire"),
        ({**PROMOTION, "expires": "next year!"}, 400, "expires", "2026-01-31"),
        ({"discount": "1"}, 400, "discount", "Unknown"),
    ],
)
async def test_a_wrong_gift_is_refused_by_name(
    till: Till, changes: dict[str, Any], status: int, param: str, words: str
) -> None:
    response = await till.ask("POST", "/api/credit", json=credit(**changes))
    assert response.status_code == status
    error = response.json()["error"]
    assert error["param"] == param
    assert words in error["message"]
    assert await left(till) == 10**8


async def test_a_correction_has_a_reason_an_author_and_is_on_record(till: Till) -> None:
    owner = await till.user("olga", role="owner")
    gave = await till.ask("POST", "/api/adjustments", owner, json=adjustment())
    assert gave.status_code == 201
    till.clock.ms += 1
    took = await till.ask("POST", "/api/adjustments", json=adjustment(amount_usd="-0.25", id="t-1"))
    assert took.json() == {
        "id": "t-1",
        "payer_id": await till.id_of("alice"),
        "payer_name": "alice",
        "period": "2026-03",
        "amount_nano_usd": -250_000_000,
        "amount_usd": "-0.25",
        "reason": "outage",
        "author": "operator",
        "at_ms": till.clock.ms,
    }
    listed = (await till.got("/api/adjustments"))["data"]
    assert listed == [took.json(), gave.json()]
    assert gave.json()["author"] == "olga"
    assert gave.json()["id"].startswith("adj_")
    assert await left(till) == 850_000_000


async def test_corrections_of_one_payer_in_pages(till: Till) -> None:
    await till.user("bob")
    for number in range(5):
        till.clock.ms += number % 2  # some at the same moment
        for payer in ("alice", "bob"):
            body = adjustment(payer=payer, id=f"{payer}-{number}")
            assert (await till.ask("POST", "/api/adjustments", json=body)).status_code == 201
    for payers in ({"payer": "alice"}, {}):
        seen: list[str] = []
        query: dict[str, Any] = {**payers, "limit": 2}
        while True:
            page = await till.got("/api/adjustments", **query)
            seen += [line["id"] for line in page["data"]]
            if page["next_before"] is None:
                break
            query["before"] = page["next_before"]
        names = ["alice"] if payers else ["alice", "bob"]
        assert sorted(seen) == sorted(f"{name}-{number}" for name in names for number in range(5))
        assert seen[0].endswith("-4")


async def test_sixteen_at_once_correct_once(till: Till) -> None:
    body = adjustment(id="once")
    answers = await asyncio.gather(
        *(till.ask("POST", "/api/adjustments", json=body) for _ in range(16))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert await left(till) == 1_100_000_000
    other = await till.ask("POST", "/api/adjustments", json={**body, "amount_usd": "2.00"})
    assert other.status_code == 409
    assert "1.00 USD for alice. Use another id" in other.json()["error"]["message"]
    assert other.json()["error"]["param"] == "id"


async def test_a_debit_takes_what_no_call_holds_and_says_how_much_that_is(till: Till) -> None:
    alice = (await till.services.keys.create("alice", "other"))[1]
    await till.hold(alice, 30_000_000)
    refused = await till.ask("POST", "/api/adjustments", json=adjustment(amount_usd="-0.08"))
    assert refused.status_code == 409
    assert "alice has 0.07 USD that can be taken" in refused.json()["error"]["message"]
    assert (await till.got("/api/adjustments"))["data"] == []
    took = await till.ask("POST", "/api/adjustments", json=adjustment(amount_usd="-0.07"))
    assert took.status_code == 201
    assert (await till.got("/api/billing", payer="alice"))["available_usd"] == "0.00"


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"reason": ""}, 400, "reason"),
        ({"reason": " \t"}, 400, "reason"),
        ({"reason": "x" * 501}, 400, "reason"),
        ({"amount_usd": "0.00"}, 400, "amount_usd"),
        ({"amount_usd": "one"}, 400, "amount_usd"),
        ({"payer": "nobody"}, 404, "payer"),
        ({"id": ""}, 400, "id"),
        ({"id": "a b"}, 400, "id"),
        ({"author": "somebody else"}, 400, "author"),
    ],
)
async def test_a_wrong_correction_is_refused_by_name(
    till: Till, changes: dict[str, Any], status: int, param: str
) -> None:
    response = await till.ask("POST", "/api/adjustments", json=adjustment(**changes))
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert (await till.got("/api/adjustments"))["data"] == []


def test_the_wire_is_what_the_command_line_decodes() -> None:
    names = [field for field in GivenCredit.__struct_fields__ if field.endswith("_nano_usd")]
    assert names == ["granted_nano_usd", "spent_nano_usd", "expired_nano_usd", "left_nano_usd"]
    assert CreditList([]).next_before is None
