"""``turnpike config check`` and ``config show``."""

import socket
import tomllib
from pathlib import Path

import pytest

from app.config import load, parse
from tests.app.cli.terminal import Inside, Turnpike
from tests.app.doctor.patients import made

BAD = """[server]
hots = "x"  # so that it is not known where it would listen
[[providers]]
id = "a"
plugin = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:NOT_SET_ANYWHERE"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text("[server]\nport = 0\n[[local.models]]\nid = 'f'\nsource = 'fake:'\n")
    return path


@pytest.fixture
def here(tmp_path: Path, file: Path) -> Inside:
    return Inside(tmp_path / "data", file)


def test_a_file_that_is_right(here: Inside, file: Path) -> None:
    assert here.out("config", "check") == f"ok\tconfig.ok\t{file} is right\t\n"
    found = here.json("config", "check", str(file))
    assert (found["ok"], [each["code"] for each in found["findings"]]) == (True, ["config.ok"])
    assert not here.data_dir.exists()  # looking makes nothing


def test_all_that_is_wrong_at_once(here: Inside, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(BAD)
    done = here.run("config", "check", str(bad))
    assert done.returncode == 1
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [
        ["problem", "config.unknown_key"],
        ["problem", "secret.missing"],
    ]
    assert f"Correct server.hots in {bad}, line 2" in done.stdout
    assert "line 7" in done.stdout


def test_the_files_of_models_and_the_port(here: Inside, file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        file.write_text(f"[server]\nport = {port}\n[[local.models]]\nid = 'f'\nsource = 'fake:'\n")
        done = here.run("config", "check")
        # It is so now, and says nothing about the file.
        assert (done.returncode, done.stdout.count("\nwarning\tport.taken")) == (0, 1)
    file.write_text(f"[[local.models]]\nid = 'f'\nsource = 'file:{tmp_path}/none.gguf'\n")
    done = here.run("config", "check")
    assert done.returncode == 1
    assert "problem\tmodel.unusable" in done.stdout


def test_a_person_sees_groups(tmp_path: Path, file: Path) -> None:
    shown = Turnpike(tmp_path / "data", file).on_terminal("config", "check")
    assert "Configuration\n" in shown
    assert "All is well." in shown


def test_what_is_in_force_is_toml(here: Inside, file: Path) -> None:
    shown = here.out("config", "show")
    assert parse(tomllib.loads(shown), source="x") == load(file, str(here.data_dir))
    shown = here.out("config", "show", "--origin")
    assert f"port = 0  # {file}:2" in shown
    assert f'data_dir = "{here.data_dir}"  # command line' in shown
    assert 'host = "127.0.0.1"  # default' in shown


def test_what_is_in_force_as_json(here: Inside, file: Path) -> None:
    assert here.json("config", "show")["server.port"] == 0
    found = {each["path"]: each for each in here.json("config", "show", "--origin")}
    assert found["local.models[0].id"] == {
        "path": "local.models[0].id",
        "value": "f",
        "origin": "file",
        "file": str(file),
        "line": 4,
    }
    assert found["server.host"]["origin"] == "default"


def test_what_a_start_refuses_is_not_in_force(here: Inside, file: Path) -> None:
    file.write_text("surprise = 1\n")
    assert "surprise: unknown key" in here.refused("config", "show")


def test_a_backup_waits_for_no_correction(tmp_path: Path) -> None:
    """But whoever wrote something wrong about places gets none anywhere else."""
    file, data, backup = made(tmp_path / "data"), tmp_path / "data", tmp_path / "b.tar"
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(BAD)
    assert Inside(data, file).run("backup", str(backup)).returncode == 0
    assert Inside(data, wrong).run("backup", str(backup), "--force").returncode == 0
    assert Inside(tmp_path / "fresh", wrong).run("restore", str(backup)).returncode == 0
    wrong.write_text("[backups]\nfoldr = '/srv/b'\n")
    refused = Inside(data, wrong).run("backup", "--list")
    assert refused.returncode == 1
    assert "foldr" in refused.stderr
