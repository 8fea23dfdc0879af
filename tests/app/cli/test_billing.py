"""``turnpike billing``, ``adjust`` and ``credit``, as a script and as a person would run them."""

import re

import pytest

from tests.app.cli.terminal import Inside, Turnpike


@pytest.fixture
def alice(inside: Inside) -> Inside:
    inside.out("users", "add", "alice", "--tier", "free")
    return inside


def test_credit_is_given_once_and_listed(alice: Inside) -> None:
    give = ("credit", "give", "alice", "25.00", "--reference", "order-17")
    said = alice.out(*give)
    assert said == "alice has $25.00 of purchased credit for order-17; $25.00 of it is left.\n"
    assert alice.out(*give) == said
    promotion = ("--kind", "promotional", "--expires", "2999-12-31", "--note", "spring")
    given = alice.json("credit", "give", "alice", "1", "--reference", "spring", *promotion)
    assert (given["kind"], given["left_nano_usd"], given["note"]) == (
        "promotional",
        10**9,
        "spring",
    )
    header, *rows = alice.out("credit", "list", "alice").splitlines()
    assert header == "KIND\tREFERENCE\tEXPIRES\tGIVEN\tSPENT\tEXPIRED\tLEFT"
    assert rows[0] == "promotional\tspring\t2999-12-31T00:00:00Z\t$1.00\t$0.00\t$0.00\t$1.00"
    assert rows[1] == "purchased\torder-17\tnever\t$25.00\t$0.00\t$0.00\t$25.00"
    assert rows[2].startswith("monthly\t")
    listed = alice.json("credit", "list", "alice")
    assert [line["reference"] for line in listed[:2]] == ["spring", "order-17"]


def test_the_month_of_a_payer(alice: Inside) -> None:
    alice.out("credit", "give", "alice", "2", "--reference", "r")
    rows = [line.split("\t") for line in alice.out("billing", "alice").splitlines()]
    lines = {name: rest for name, *rest in rows}
    assert lines["Payer"] == ["", "alice, user on tier free"]
    assert lines["Credit left"] == ["$2.10", ""]
    assert lines["Due"][0] == "$0.00"
    purchased = next(value for name, value in lines.items() if "purchased" in name)
    assert purchased == ["$2.00", "of $2.00, expires never"]
    found = alice.json("billing", "alice")
    assert (found["payer"]["name"], found["credit_nano_usd"]) == ("alice", 2_100_000_000)


def test_without_a_payer_it_is_the_owners(alice: Inside) -> None:
    assert "payer" in alice.refused("billing")
    alice.out("users", "add", "root", "--tier", "pro", "--role", "owner")
    found = alice.json("billing")
    assert (found["payer"]["name"], found["fee_nano_usd"]) == ("root", 9 * 10**9)


def test_corrections_go_both_ways(alice: Inside) -> None:
    gave = alice.out("adjust", "alice", "5.00", "--reason", "outage of 3 March")
    assert re.fullmatch(r"Gave \$5\.00 to alice: outage of 3 March \(adj_\w{32}\)\.\n", gave)
    took = alice.out("adjust", "alice", "-1.25", "--reason", "typed wrong", "--id", "fix-1")
    assert took == "Took $1.25 from alice: typed wrong (fix-1).\n"
    booked = alice.json("adjust", "alice", "-1.25", "--reason", "typed wrong", "--id", "fix-1")
    assert (booked["amount_nano_usd"], booked["author"]) == (-1_250_000_000, "operator")
    assert alice.json("billing", "alice")["credit_nano_usd"] == 3_850_000_000


def test_mistakes_are_one_line_and_say_what_to_do(alice: Inside) -> None:
    assert "nobody" in alice.refused("billing", "nobody")
    assert "such as" in alice.refused("credit", "give", "alice", "1,50", "--reference", "r")
    alice.out("credit", "give", "alice", "1", "--reference", "r")
    assert "another reference" in alice.refused("credit", "give", "alice", "2", "--reference", "r")
    late = ("--kind", "promotional", "--reference", "x")
    assert "2026-12-31" in alice.refused("credit", "give", "alice", "1", *late)
    assert "can be taken" in alice.refused("adjust", "alice", "-99", "--reason", "x")
    assert "--reason" in alice.refused("adjust", "alice", "-1", status=2)
    assert "--reference" in alice.refused("credit", "give", "alice", "1", status=2)


def test_a_person_sees_a_table(turnpike: Turnpike) -> None:
    turnpike.out("users", "add", "alice", "--tier", "free")
    assert "was not given any credit yet" in turnpike.on_terminal("credit", "list", "alice")
    shown = turnpike.on_terminal("billing", "alice")
    assert "\t" not in shown
    assert "Credit left" in shown
    assert "$0.10" in shown
