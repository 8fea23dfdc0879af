"""Who pays, against a second answer in plain Python, over many small worlds."""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.billing.standing import AccountStandings
from app.billing.tiers import Tiers
from app.config import Config
from app.errors import PermissionDenied
from app.storage.migrate import migrate, shipped_migrations

USERS, ORGS = ("u0", "u1"), ("o0", "o1", "o2")
GROUP_IDS = {org: f"group_{n:032x}" for n, org in enumerate(ORGS)}


class Membership(NamedTuple):
    """A user's place in an org, or none."""

    role: str | None
    joined: int
    in_group: bool


class Drawn(NamedTuple):
    """Which orgs pay by default, and who is what where."""

    pays: dict[str, bool]
    places: dict[tuple[str, str], Membership]


PLACE = st.builds(
    Membership,
    role=st.sampled_from([None, "member", "admin"]),
    joined=st.integers(1, 3),
    in_group=st.booleans(),
)
WORLDS = st.builds(
    Drawn,
    pays=st.fixed_dictionaries({org: st.booleans() for org in ORGS}),
    places=st.fixed_dictionaries({(org, user): PLACE for org in ORGS for user in USERS}),
)


def expected_payer(drawn: Drawn, user: str, bill_to: str | None) -> tuple[str, str] | None:
    """Payer and group; None for a refusal."""
    mine = {org: drawn.places[org, user] for org in ORGS if drawn.places[org, user].role}
    if bill_to is None:
        paying = [(place.joined, org) for org, place in mine.items() if drawn.pays[org]]
        return (min(paying)[1], "") if paying else (user, "")
    if bill_to == user:
        return user, ""
    if bill_to in mine:
        return bill_to, ""
    for org, place in mine.items():
        if bill_to == GROUP_IDS[org] and (place.role == "admin" or place.in_group):
            return org, bill_to
    return None


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    migrate(opened, shipped_migrations(), 0)
    yield opened
    opened.close()


def fill(connection: sqlite3.Connection, drawn: Drawn) -> None:
    run = connection.execute
    for user in USERS:
        run("INSERT INTO users VALUES (?, ?, 'pro', 'member', 0)", (user, user))
        key = (f"k-{user}", user, f"prefix-{user}", bytes(32))
        run("INSERT INTO api_keys VALUES (?, ?, 'k', ?, ?, 0, NULL, NULL)", key)
    for org in ORGS:
        run(
            "INSERT INTO orgs (id, name, tier, default_payer, created_at_ms)"
            " VALUES (?, ?, 'team', ?, 0)",
            (org, org, drawn.pays[org]),
        )
        run("INSERT INTO resource_groups VALUES (?, ?, 'g', 0)", (GROUP_IDS[org], org))
    for (org, user), place in drawn.places.items():
        if place.role:
            run("INSERT INTO members VALUES (?, ?, ?, ?)", (org, user, place.role, place.joined))
        if place.in_group:  # also of those who left the org: a place in the group is not enough
            run("INSERT INTO group_members VALUES (?, ?)", (GROUP_IDS[org], user))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=WORLDS)
def test_the_payer_is_who_the_rules_say(connection: sqlite3.Connection, drawn: Drawn) -> None:
    tiers = Tiers(Config())
    standings = AccountStandings(tiers)
    connection.execute("BEGIN")
    try:
        fill(connection, drawn)
        for user in USERS:
            for bill_to in (None, *USERS, *ORGS, *GROUP_IDS.values()):
                try:
                    found = standings.of_caller(
                        lambda sql, params: connection.execute(sql, params).fetchall(),
                        user,
                        f"k-{user}",
                        bill_to,
                    )
                except PermissionDenied as error:
                    assert error.code == "not_a_member"
                    assert expected_payer(drawn, user, bill_to) is None
                    continue
                assert (found.payer_id, found.group_id) == expected_payer(drawn, user, bill_to)
                if found.payer_id == user:
                    assert found.terms is tiers.terms_of("pro")
                else:
                    seats = sum(
                        drawn.places[found.payer_id, each].role is not None for each in USERS
                    )
                    assert found.terms is tiers.terms_of("team", seats)
    finally:
        connection.execute("ROLLBACK")
