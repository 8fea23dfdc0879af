"""``turnpike orgs``: an org's life from the command line."""

import pytest

from tests.app.cli.terminal import Inside


@pytest.fixture
def acme(inside: Inside) -> Inside:
    for name in ("ann", "bob"):
        inside.out("users", "add", name, "--tier", "free")
    inside.out("orgs", "add", "acme", "--tier", "team", "--admin", "ann")
    return inside


def test_an_org_is_added_listed_and_changed(inside: Inside) -> None:
    inside.out("users", "add", "ann", "--tier", "free")
    said = inside.out("orgs", "add", "acme", "--tier", "team", "--admin", "ann")
    assert said == "Added acme on tier team, run by ann.\n"
    assert inside.out("orgs", "tier", "acme", "enterprise") == "acme is on tier enterprise now.\n"
    pays = inside.out("orgs", "default-payer", "acme", "on")
    assert pays == "acme pays for members' calls that name no payer.\n"
    [org] = inside.json("orgs", "list")
    assert (org["name"], org["tier"], org["default_payer"], org["seats"]) == (
        "acme",
        "enterprise",
        True,
        1,
    )
    header, line = inside.out("orgs", "list").splitlines()
    assert header == "NAME\tTIER\tSEATS\tDEFAULT_PAYER\tCREATED\tID"
    assert line.split("\t")[:4] == ["acme", "enterprise", "1", "yes"]
    assert "no longer pays" in inside.out("orgs", "default-payer", "acme", "off")
    assert not inside.json("orgs", "list")[0]["default_payer"]


def test_seats(acme: Inside) -> None:
    assert (
        acme.out("orgs", "members", "add", "acme", "bob") == "bob is a seat of acme now, member.\n"
    )
    said = acme.out("orgs", "members", "role", "acme", "bob", "admin")
    assert said == "bob of acme is admin now.\n"
    listed = acme.json("orgs", "members", "list", "acme")
    assert [(each["user_name"], each["role"]) for each in listed] == [
        ("ann", "admin"),
        ("bob", "admin"),
    ]
    assert "ann has no seat" in acme.out("orgs", "members", "remove", "acme", "ann")
    assert "last admin" in acme.refused("orgs", "members", "remove", "acme", "bob")
    assert len(acme.out("orgs", "members", "list", "acme").splitlines()) == 2


def test_groups(acme: Inside) -> None:
    acme.out("orgs", "members", "add", "acme", "bob")
    group = acme.json("orgs", "groups", "add", "acme", "research")
    assert group["id"].startswith("group_")
    said = acme.out("orgs", "groups", "add-member", "acme", "research", "bob")
    assert said == "bob may bill calls to research now.\n"
    [member] = acme.json("orgs", "groups", "members", "acme", group["id"])
    assert member["user_name"] == "bob"
    assert acme.out("orgs", "groups", "members", "acme", "research").splitlines()[1][:4] == "bob\t"
    assert "no longer" in acme.out("orgs", "groups", "remove-member", "acme", "research", "bob")
    assert acme.out("orgs", "groups", "list", "acme").splitlines()[1].startswith("research\t")
    assert acme.out("orgs", "groups", "remove", "acme", "research") == "Removed research.\n"
    assert acme.json("orgs", "groups", "list", "acme") == []


def test_switches(acme: Inside) -> None:
    off = ["orgs", "switch-off", "acme", "model", "acme/tiny", "--reason", "too small"]
    assert acme.out(*off) == "acme does not pay for model acme/tiny now.\n"
    [switched] = acme.json("orgs", "switches", "acme")
    assert (switched["reason"], switched["set_by"]) == ("too small", "operator")
    assert "\ttoo small\t" in acme.out("orgs", "switches", "acme")
    on = acme.out("orgs", "switch-on", "acme", "model", "acme/tiny")
    assert on == "acme pays for model acme/tiny again.\n"
    assert acme.json("orgs", "switches", "acme") == []


def test_refusals_say_what_to_do(acme: Inside) -> None:
    assert "tiers for orgs: team" in acme.refused(
        "orgs", "add", "new", "--tier", "free", "--admin", "ann"
    )
    assert "`turnpike orgs list`" in acme.refused("orgs", "tier", "ghost", "team")
    assert "no provider 'mok'" in acme.refused(
        "orgs", "switch-off", "acme", "provider", "mok", "--reason", "x"
    )
    acme.refused("orgs", "switch-off", "acme", "provider", "mock", status=2)
