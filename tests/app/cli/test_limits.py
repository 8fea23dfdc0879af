"""``turnpike limits``: a limit of each scope from the command line."""

from tests.app.cli.terminal import Inside


def test_limits_are_set_listed_and_removed(inside: Inside) -> None:
    inside.out("users", "add", "ann", "--tier", "free")
    key = inside.out("keys", "create", "--user", "ann").strip()
    inside.out("orgs", "add", "acme", "--tier", "team", "--admin", "ann")
    group = inside.json("orgs", "groups", "add", "acme", "research")["id"]
    prefix = key[:13]
    for scope, subject, amount in (
        ("key", key, "1"),
        ("user", "ann", "2.50"),
        ("member", "acme/ann", "0"),
        ("group", group, "0.000000001"),
        ("payer", "acme", "100"),
    ):
        shown = prefix if scope == "key" else subject
        said = inside.out("limits", "set", scope, subject, amount)
        assert said.startswith(f"{scope} {shown}: at most $")
    lines = [line.split("\t") for line in inside.out("limits", "list").splitlines()]
    assert lines == [
        ["SCOPE", "SUBJECT", "LIMIT", "SPENT", "HELD", "SET_BY"],
        ["group", group, "$0.000000001", "-", "-", "operator"],
        ["key", prefix, "$1.00", "-", "-", "operator"],
        ["member", "acme/ann", "$0.00", "-", "-", "operator"],
        ["payer", "acme", "$100.00", "-", "-", "operator"],
        ["user", "ann", "$2.50", "-", "-", "operator"],
    ]
    removed = inside.out("limits", "remove", "key", key)
    assert removed == f"key {prefix}: no limit any more, was $1.00.\n"
    assert [each["scope"] for each in inside.json("limits", "list")] == [
        "group",
        "member",
        "payer",
        "user",
    ]


def test_refusals_say_what_to_do(inside: Inside) -> None:
    assert "25.00" in inside.refused("limits", "set", "payer", "acme", "five")
    assert "no user named 'ghost'" in inside.refused("limits", "set", "user", "ghost", "5")
    assert "ORG/USER" in inside.refused("limits", "set", "member", "ann", "5")
    inside.refused("limits", "set", "tier", "free", "5", status=2)
