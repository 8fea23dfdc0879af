"""The ledger's README names every file of its room, and the outcomes that calls can have."""

import re
from pathlib import Path

from app.ledger.accounts import DueKind, EntryKind, GrantKind, HouseAccount
from app.ledger.entries import Outcome

ROOM = Path(__file__).parents[2] / "app" / "ledger"
README = (ROOM / "README.md").read_text(encoding="utf-8")


def test_every_file_is_in_the_table() -> None:
    told = set(re.findall(r"`([a-z_]+\.py)`", README))
    assert {path.name for path in ROOM.glob("*.py")} - {"__init__.py"} <= told


def test_every_outcome_has_its_rule() -> None:
    rules = README.partition("## How a call can end")[2]
    for outcome in Outcome:
        assert f"`{outcome}`" in rules, outcome


def test_every_account_and_entry_is_explained() -> None:
    for name in (*EntryKind, *GrantKind, *DueKind, *(each.name.lower() for each in HouseAccount)):
        assert f"`{name}`" in README, name
