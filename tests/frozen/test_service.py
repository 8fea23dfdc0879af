"""The archive of the folder, installed where systemd is process 1: every promise of the unit."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frozen import system
from tests.frozen.conftest import made
from tests.frozen.system import System

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BODY = json.dumps(
    {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello."}]}
)
ASK = f"""
curl -sS --fail http://127.0.0.1:8000/v1/chat/completions -H "Authorization: Bearer $KEY" \\
    -H 'Content-Type: application/json' -d '{BODY}'
"""
TURNPIKE = "runuser -u turnpike -- turnpike --config /etc/turnpike/config.toml"
pytestmark = pytest.mark.skipif(bool(system.why_not()), reason=system.why_not())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[System]:
    """With the service installed from the edition that has a model inside."""
    place = tmp_path_factory.mktemp("system")
    archive = made("-starter.tar.gz")
    with system.booted(place, archive.parent) as booted:
        booted.shell(
            f"mkdir /srv/new && cd /srv/new && tar xzf {booted.carried}/{archive.name}"
            " && cd turnpike-* && ./install",
        )
        booted.until(f"{TURNPIKE} health")
        yield booted


@pytest.fixture(scope="module")
def key(machine: System) -> str:
    """A key of the owner's."""
    found = re.search(r"tp_\w+", machine.shell(f"{TURNPIKE} keys create --user owner"))
    assert found
    return found[0]


def shown(machine: System, name: str) -> str:
    return machine.run(["systemctl", "show", "turnpike", "-p", name, "--value"]).strip()


def kill(machine: System, name: str) -> None:
    machine.run(["kill", f"-{name}", shown(machine, "MainPID")])


def test_it_answers_and_its_status_says_where(machine: System, key: str) -> None:
    assert shown(machine, "StatusText") == "serves http://127.0.0.1:8000/v1"
    answer = json.loads(machine.shell(f"KEY={key}{ASK}"))
    assert answer["usage"]["completion_tokens"] > 0


def test_the_journal_has_no_key(machine: System, key: str) -> None:
    machine.shell(f"KEY={key}{ASK}")
    journal = machine.run(["journalctl", "-u", "turnpike", "--no-pager"])
    assert "API key         make one" in journal
    assert not re.search(r"tp_\w+", journal)


def test_reload_and_restart_keep_the_process(machine: System, key: str) -> None:
    before = shown(machine, "MainPID")
    machine.run(["systemctl", "reload", "turnpike"])
    assert "restarted in" in machine.shell(f"{TURNPIKE} restart")
    assert shown(machine, "MainPID") == before
    machine.shell(f"KEY={key}{ASK}")


def test_a_killed_server_and_one_that_hangs_are_started_anew(machine: System, key: str) -> None:
    machine.shell(
        "cd /etc/systemd/system && mkdir turnpike.service.d && cd turnpike.service.d"
        " && printf '[Unit]\\nStartLimitIntervalSec=0\\n[Service]\\nWatchdogSec=8\\n' >soon.conf"
        " && systemctl daemon-reload"
        " && systemctl restart turnpike"
    )
    for signal in ("KILL", "STOP"):
        restarts = int(shown(machine, "NRestarts"))
        kill(machine, signal)
        machine.until(
            f"[ $(systemctl show turnpike -p NRestarts --value) -gt {restarts} ]"
            " || { systemctl status --no-pager -n 20 turnpike; false; }",
            seconds_max=90,
        )
        machine.until(f"{TURNPIKE} health")
        machine.shell(f"KEY={key}{ASK}")
    machine.shell(f"{TURNPIKE} ledger audit")
    machine.shell("rm -r /etc/systemd/system/turnpike.service.d && systemctl daemon-reload")


def test_the_address_goes_over_to_systemd(machine: System, key: str) -> None:
    assert "over to systemd" in machine.shell("cd /srv/new/turnpike-* && ./install --socket")
    machine.shell("systemctl is-active turnpike.socket turnpike.service")
    machine.shell("systemctl stop turnpike.service")
    machine.shell(f"KEY={key}{ASK}", timeout_s=60)  # the connection starts it
    machine.shell("systemctl is-active turnpike.service")


def test_nothing_was_refused_that_it_needs(machine: System, key: str) -> None:
    """Nothing that the unit takes away shows up as an error."""
    machine.shell(f"KEY={key}{ASK}")
    journal = machine.run(["journalctl", "-u", "turnpike", "--no-pager", "-o", "cat"])
    faults = [
        line
        for line in journal.splitlines()
        if re.search(r"not permitted|denied|Traceback|\bERROR\b", line)
    ]
    assert faults == []
    assert "ok" in machine.shell(f"{TURNPIKE} doctor --offline")


def test_uninstalled_it_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    archive = made("-starter.tar.gz")
    work = tmp_path / "work"
    work.mkdir()
    with system.booted(work, archive.parent) as machine:
        machine.shell(
            f"mkdir /srv/new && cd /srv/new && tar xzf {machine.carried}/{archive.name}"
            " && cd turnpike-* && ./install && ./install uninstall --purge"
        )
        left = machine.shell(
            "ls -d /etc/turnpike /var/lib/turnpike /usr/local/lib/turnpike /usr/local/bin/turnpike"
            " /etc/systemd/system/turnpike.* 2>/dev/null || true"
        )
        assert left == ""
        assert machine.try_to(["id", "turnpike"]).returncode != 0
        assert machine.try_to(["systemctl", "is-active", "turnpike"]).stdout.strip() == "inactive"
