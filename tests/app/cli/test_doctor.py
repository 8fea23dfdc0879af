"""``turnpike doctor`` on directories in every state, beside a server and without one."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from app.cli.findings import summary
from app.config_carried import CARRIED_FILE
from app.doctor import examination
from app.doctor.examination import Patient, examine
from app.doctor.finding import Finding, Severity
from app.errors import AlreadyRunning
from app.storage.lock import DataDirLock
from tests.app.cli.terminal import Inside, Turnpike
from tests.app.doctor.patients import made

CODES = {"clock.unsynchronised", "disk.low", "disk.slow", "hardware.memory_low"}


@pytest.fixture
def here(tmp_path: Path) -> Inside:
    return Inside(tmp_path / "data", made(tmp_path / "data"))


def codes(done: subprocess.CompletedProcess[str]) -> set[str]:
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {code for severity, code, *_ in lines if severity != "ok"} - CODES


def test_a_healthy_one(here: Inside) -> None:
    done = here.run("doctor", "--offline")
    assert (done.returncode, codes(done)) == (0, set())
    found = here.json("doctor", "--offline")
    assert found["ok"] is True
    groups = [each["about"] for each in found["findings"]]
    for about in ("configuration", "database", "disk", "clock", "models", "hardware", "version"):
        assert about in groups
    assert all("fix" in each for each in found["findings"] if each["severity"] != "ok")


def test_a_machine_on_which_nothing_was_started_yet(tmp_path: Path) -> None:
    there = Inside(tmp_path / "none" / "yet", made(tmp_path / "data"))
    done = there.run("doctor", "--offline")
    assert (done.returncode, codes(done)) == (0, set())
    assert "database.none" in done.stdout
    assert not there.data_dir.exists()


def test_a_broken_configuration_does_not_keep_the_rest_back(here: Inside, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\nprt = 1\nport = 0\n[[local.models]]\n")
    done = here.run("doctor", "--offline")
    assert done.returncode == 1
    assert codes(done) == {"config.unknown_key", "config.missing"}
    assert "database.ok" in done.stdout


def test_what_a_bundle_carried_may_be_damaged(here: Inside) -> None:
    (here.data_dir / CARRIED_FILE).write_text("{")
    done = here.run("doctor", "--offline")
    assert done.returncode == 1
    assert codes(done) == {"config.carried"}
    assert "database.ok" in done.stdout
    assert "turnpike bundle apply" in done.stdout


def test_no_toml_at_all(here: Inside, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("= 1")
    done = here.run("doctor", "--offline")
    assert codes(done) == {"config.unreadable"}
    assert "database.ok" in done.stdout  # the directory is named on the command line
    nameless = examine(Patient(file=tmp_path / "config.toml", data_dir=None, offline=True))
    assert {"config.unreadable", "database.unknown"} <= {each.code for each in nameless}
    assert "database.ok" not in {each.code for each in nameless}


def test_a_directory_that_is_misspelt_is_not_guessed(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[server]\nport = 0\ndata_dirr = "/srv/turnpike"\n')
    found = examine(Patient(file=file, data_dir=None, offline=True))
    assert {"config.unknown_key", "database.unknown"} <= {each.code for each in found}
    assert {"server", "disk", "clock", "backups"}.isdisjoint(each.about for each in found)


def test_a_command_that_holds_the_directory_keeps_it(here: Inside) -> None:
    with DataDirLock(here.data_dir):
        done = here.run("doctor", "--offline")
        assert codes(done) == {"server.silent"}
        assert f"process {os.getpid()}" in done.stdout
        # The lock is held still: nobody else gets it.
        with pytest.raises(AlreadyRunning):
            DataDirLock(here.data_dir).acquire()


def test_a_person_sees_groups_and_a_sum(tmp_path: Path) -> None:
    file = made(tmp_path / "data")
    shown = Turnpike(tmp_path / "data", file).on_terminal("doctor", "--offline")
    assert "Database\n" in shown
    assert "  ok " in shown


def test_a_check_that_fails_is_told_and_the_others_go_on(
    here: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[Finding]:
        raise ZeroDivisionError("nobody thought of it")

    monkeypatch.setattr(examination, "check_limits", fail)
    done = here.run("doctor", "--offline")
    assert (done.returncode, codes(done)) == (1, {"doctor.failed"})
    assert "nobody thought of it" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("ok\tversion")


def test_the_sum() -> None:
    ok = Finding(code="a", severity=Severity.OK, about="a", text="")
    bad = msgspec.structs.replace(ok, severity=Severity.PROBLEM)
    assert summary([ok]) == "\nAll is well."
    assert summary([ok, bad]) == "\n1 problem, no warnings."
    assert summary([bad, bad]) == "\n2 problems, no warnings."
