"""``turnpike confine``, ``preferred`` and ``providers`` from the command line."""

from tests.app.cli.terminal import Inside


def test_confinements_are_set_listed_and_lifted(inside: Inside) -> None:
    inside.out("users", "add", "ann", "--tier", "free")
    key = inside.out("keys", "create", "--user", "ann").strip()
    inside.out("orgs", "add", "acme", "--tier", "team", "--admin", "ann")
    prefix = key.rpartition("_")[0]
    assert inside.out("confine", "--user", "ann", "local") == "user ann: only to local now.\n"
    said = inside.out("confine", "--key", key, "local")
    assert said == f"key {prefix}: only to local now.\n"
    inside.out("confine", "--org", "acme", "local")
    lines = [line.split("\t") for line in inside.out("confine").splitlines()]
    assert [line[:4] for line in lines] == [
        ["KIND", "WHO", "ONLY_TO", "BY"],
        ["key", prefix, "local", "operator"],
        ["org", "acme", "local", "operator"],
        ["user", "ann", "local", "operator"],
    ]
    assert inside.out("confine", "--key", key, "--off") == f"key {prefix}: may go anywhere again.\n"
    assert [each["kind"] for each in inside.json("confine")] == ["org", "user"]
    assert inside.json("confine", "--org", "acme", "--off")["labels"] == ["local"]


def test_refusals_say_what_to_do(inside: Inside) -> None:
    assert "no user named 'ghost'" in inside.refused("confine", "--user", "ghost", "local")
    assert "there are: local" in inside.refused("confine", "--user", "ghost", "lcoal")
    assert "no provider 'mokc'" in inside.refused("preferred", "set", "ann", "mokc")
    for typed in (
        ("confine", "local"),
        ("confine", "--off"),
        ("confine", "--user", "ann"),
        ("confine", "--user", "ann", "--off", "local"),
        ("confine", "--user", "ann", "--org", "acme", "local"),
        ("preferred", "set", "ann"),
    ):
        inside.refused(*typed, status=2)


def test_a_users_order_of_providers(inside: Inside) -> None:
    inside.out("users", "add", "ann", "--tier", "free")
    assert inside.out("preferred", "show", "ann") == "ann has no order of providers.\n"
    assert inside.out("preferred", "set", "ann", "mock", "local") == "ann prefers mock, local.\n"
    assert inside.json("preferred", "show", "ann")["providers"] == ["mock", "local"]
    assert inside.out("preferred", "clear", "ann") == "ann has no order of providers.\n"


def test_the_state_of_providers(inside: Inside) -> None:
    lines = [line.split("\t") for line in inside.out("providers").splitlines()]
    assert lines == [
        ["PROVIDER", "KEYS", "MODEL", "CIRCUIT", "FIRST_TOKEN", "TOKENS/S", "LAST_PROBE"],
        ["mock", "-", "acme/tiny", "closed", "-", "-", "never"],
    ]
    assert inside.json("providers", "mock")[0]["provider"] == "mock"
    assert "no provider 'ghost'" in inside.refused("providers", "ghost")
