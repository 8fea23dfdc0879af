"""``turnpike provider-keys``: the key comes in by stdin and never comes out."""

import io
import json
import os
import pty
import select
import subprocess
from pathlib import Path

import pytest

from tests.app.cli.terminal import Inside, Turnpike
from tests.appliance import MOCK_PROVIDER, appliance

SECRET = "sk-canary-0123456789-abcdefgh"


@pytest.fixture
def peopled(inside: Inside) -> Inside:
    inside.out("users", "add", "alice", "--tier", "free")
    inside.out("orgs", "add", "acme", "--tier", "team", "--admin", "alice")
    return inside


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_set_list_and_remove(peopled: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, f"{SECRET}\n")
    said = peopled.out("provider-keys", "set", "mock", "--user", "alice")
    assert said == (
        "alice has a key for mock now. A call with it that fails is not tried at our expense.\n"
    )
    pipe(monkeypatch, "sk-of-the-org-0123456789")
    said = peopled.out("provider-keys", "set", "mock", "--org", "acme", "--paid-fallback")
    assert said.endswith("may be paid here instead.\n")

    (mine,) = peopled.json("provider-keys", "list", "--user", "alice")
    assert (mine["hint"], mine["paid_fallback"], mine["set_by"]) == ("efgh", False, "operator")
    table = peopled.out("provider-keys", "list", "--org", "acme").splitlines()
    assert table[0].split("\t")[:3] == ["PROVIDER", "ENDS_IN", "PAID_FALLBACK"]
    assert table[1].split("\t")[:3] == ["mock", "6789", "yes"]

    said = peopled.out("provider-keys", "remove", "mock", "--user", "alice")
    assert said == "alice has no key for mock any more.\n"
    assert peopled.json("provider-keys", "list", "--user", "alice") == []
    assert "no key for the provider" in peopled.refused(
        "provider-keys", "remove", "mock", "--user", "alice"
    )


def test_a_key_is_never_taken_from_the_command_line(peopled: Inside) -> None:
    peopled.refused("provider-keys", "set", "mock", SECRET, "--user", "alice", status=2)
    peopled.refused("provider-keys", "set", "mock", "--secret", SECRET, status=2)


@pytest.mark.parametrize("options", [(), ("--user", "alice", "--org", "acme")])
def test_it_must_be_said_whose_key_it_is(inside: Inside, options: tuple[str, ...]) -> None:
    for command in (("set", "mock"), ("list",), ("remove", "mock")):
        said = inside.refused("provider-keys", *command, *options, status=2)
        assert "--user NAME or --org ORG" in said
    assert not inside.data_dir.exists()


def test_refusals_do_not_repeat_the_key(peopled: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, place, status in (
        (f"{SECRET} {SECRET}", ("mock", "--user", "alice"), 1),
        (f"{SECRET}\n{SECRET}", ("mock", "--user", "alice"), 1),
        (SECRET * 500, ("mock", "--user", "alice"), 1),
        (SECRET, ("local", "--user", "alice"), 1),
        (SECRET, ("mock", "--user", "bob"), 1),
        (SECRET, ("mock", "--org", "nobody"), 1),
        ("", ("mock", "--user", "alice"), 2),
        ("\n", ("mock", "--user", "alice"), 2),
    ):
        pipe(monkeypatch, text)
        said = peopled.refused("provider-keys", "set", *place, status=status)
        assert "canary" not in said
    assert peopled.json("provider-keys", "list", "--user", "alice") == []


def test_a_person_is_asked_and_sees_nothing_of_it(turnpike: Turnpike) -> None:
    turnpike.out("users", "add", "alice", "--tier", "free")
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*turnpike._command, "provider-keys", "set", "mock", "--user", "alice"],
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        asked = process.stderr.read(len("Key: "))  # only now does it read the terminal
        os.write(parent, f"{SECRET}\n".encode())
        out, err = process.communicate(timeout=60)
        echoed, _, _ = select.select([parent], [], [], 0)
    finally:
        os.close(child)
        os.close(parent)
    assert (process.returncode, asked) == (0, "Key: "), err
    assert out.startswith("alice has a key for mock now.")
    assert not echoed
    assert SECRET not in out + err
    (made,) = turnpike.json("provider-keys", "list", "--user", "alice")
    assert made["hint"] == "efgh"


def test_a_running_server_takes_it_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = MOCK_PROVIDER.format(base_url="http://127.0.0.1:9/v1")
    with appliance(tmp_path / "data", config) as server:
        commands = Inside(tmp_path / "data", server.config_path)
        pipe(monkeypatch, SECRET)
        commands.out("provider-keys", "set", "mock", "--user", "owner")
        (made,) = commands.json("provider-keys", "list", "--user", "owner")
        assert made["hint"] == "efgh"
        rotated = commands.json("secrets", "rotate")
        assert (rotated["rewrapped"], rotated["unreadable"]) == (1, 0)
        log = (tmp_path / "data" / "serve.log").read_text()
        assert SECRET not in log + json.dumps([made, rotated])
