"""Clock, limits, hardware, backups, file modes and ports, each from what is known of them."""

import os
import socket
from functools import partial
from pathlib import Path

import msgspec
import pytest

from app.config import Config, Server
from app.config_operations import Backups
from app.doctor import hardware, ports
from app.doctor.backups import HOUR_MS, check_backups
from app.doctor.clock import YEAR_MS, check_clock, is_synchronised
from app.doctor.finding import Commands, Severity
from app.doctor.hardware import check_hardware, devices, of_accelerators, of_memory
from app.doctor.limits import check_limits, check_version, of_files
from app.doctor.modes import check_modes
from app.doctor.ports import check_ports
from app.doctor.server import Presence, RunningServer
from app.installed import versions
from app.ledger.audit import audit_file
from app.ledger.checkup import Checkup, check_up
from app.ledger.time import ClockState
from app.storage.backup import make_backup
from app.storage.backup_folder import BackupFolder
from app.storage.database import DATABASE_NAME
from app.storage.restore_advice import LAST_BACKUP_FILE
from local_runtime.engines.llama.variants import choose
from tests.app.doctor.patients import made, problems, wrong

NOW_MS = 1_795_000_000_000
NEW = Checkup(made_at_ms=NOW_MS, identity="01234567")
COMMANDS = Commands(Path("c.toml"), None)


def test_a_clock_that_agrees() -> None:
    assert wrong(check_clock(NOW_MS, NOW_MS - 5000, None, COMMANDS)) == set()
    assert wrong(check_clock(NOW_MS, NOW_MS + 4000, None, COMMANDS)) == set()
    assert wrong(check_clock(NOW_MS, None, None, COMMANDS)) == set()


@pytest.mark.parametrize(
    ("now_ms", "last_ms", "code"),
    [
        (NOW_MS, NOW_MS + 6000, "clock.behind"),
        (1_000_000_000_000, None, "clock.wrong"),
        (NOW_MS + YEAR_MS + 1, NOW_MS, "clock.ahead"),
    ],
)
def test_a_clock_that_does_not(now_ms: int, last_ms: int | None, code: str) -> None:
    assert wrong(check_clock(now_ms, last_ms, None, COMMANDS)) == {code}


def test_a_clock_that_jumped_under_a_running_server() -> None:
    calm = ClockState(
        ledger_ms=NOW_MS,
        clock_ms=NOW_MS,
        suspended=False,
        suspended_since_ms=None,
        step_ms=0,
        lead_ms=0,
        advice="",
    )
    assert wrong(check_clock(NOW_MS, None, calm, COMMANDS)) == set()
    jumped = msgspec.structs.replace(calm, suspended=True, step_ms=7_200_000)
    found = check_clock(NOW_MS, None, jumped, COMMANDS)
    assert problems(found) == {"clock.jumped"}
    assert found[0].fix.endswith("turnpike --config c.toml clock confirm")
    assert "+7200 s" in found[0].text


def test_the_system_tells_whether_a_time_server_is_followed() -> None:
    assert is_synchronised() in {True, False, None}


def test_open_files() -> None:
    assert of_files(4096).severity is Severity.OK
    assert of_files(1024).code == "limits.files_low"
    assert len(check_limits()) == 1
    assert "Python" in check_version(versions())[0].text


def test_the_processor_runs_llama_cpp_in_a_child() -> None:
    found = check_hardware(needed=True)
    assert problems(found) == set()
    assert "hardware.engine" in {each.code for each in found}


def test_a_processor_on_which_no_build_of_llama_cpp_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libggml-cpu-none.so").write_bytes(b"no code for any processor")
    monkeypatch.setattr(hardware, "choose", partial(choose, folder=tmp_path))
    assert "hardware.engine" in problems(check_hardware(needed=True))
    assert "hardware.engine" in wrong(check_hardware(needed=False))
    assert problems(check_hardware(needed=False)) == set()


def test_a_machine_without_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "library_folder", lambda: None)
    assert "hardware.engine_none" in problems(check_hardware(needed=True))
    assert "hardware.engine_none" not in wrong(check_hardware(needed=False))


def test_memory_and_accelerators(tmp_path: Path) -> None:
    assert of_memory(8 << 30).severity is Severity.OK
    assert of_memory(None).severity is Severity.OK
    assert of_memory(1 << 20).code == "hardware.memory_low"
    assert devices(tmp_path) == []
    (tmp_path / "kfd").touch()
    (card,) = devices(tmp_path)
    assert wrong(of_accelerators([card], [])) == {"hardware.accelerator_unused"}
    assert wrong(of_accelerators([card], ["libggml-hip.so"])) == set()
    assert wrong(of_accelerators([], [])) == set()


def test_backups_by_hand(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made(data)
    plain = Backups()
    assert check_backups(plain, data, Checkup(), NOW_MS, COMMANDS) == []
    assert wrong(check_backups(plain, data, NEW, NOW_MS + 1, COMMANDS)) == set()
    old = NOW_MS + 25 * HOUR_MS
    assert wrong(check_backups(plain, data, NEW, old, COMMANDS)) == {"backup.none"}
    target = tmp_path / "b.tar"
    make_backup(data, target, prove=audit_file, now_ms=old)
    assert wrong(check_backups(plain, data, NEW, old, COMMANDS)) == set()
    target.unlink()
    assert wrong(check_backups(plain, data, NEW, old, COMMANDS)) == {"backup.gone"}


def test_backups_by_schedule(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made(data)
    daily = Backups(folder=str(tmp_path / "folder"))
    soon, late = NOW_MS + 47 * HOUR_MS, NOW_MS + 49 * HOUR_MS
    assert problems(check_backups(daily, data, NEW, soon, COMMANDS)) == set()
    assert problems(check_backups(daily, data, NEW, late, COMMANDS)) == {"backup.late"}
    make_backup(data, tmp_path / "b.tar", prove=audit_file, now_ms=late)
    found = check_backups(daily, data, NEW, late + HOUR_MS, COMMANDS)
    assert wrong(found) == set()
    assert "1 h old" in found[0].text


def test_a_folder_of_backups_that_cannot_be_made(tmp_path: Path) -> None:
    there = Backups(folder=str(tmp_path / "not mounted" / "b"))
    found = check_backups(there, tmp_path, NEW, NOW_MS, COMMANDS)
    assert problems(found) == {"backup.no_folder"}


def test_backups_in_the_folder_are_known_by_their_owner(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "folder"
    made(data)
    (data / LAST_BACKUP_FILE).unlink(missing_ok=True)
    mine = check_up(data / DATABASE_NAME)
    mine = msgspec.structs.replace(mine, made_at_ms=NOW_MS)
    kept = BackupFolder(folder, mine.identity)
    kept.make()
    late = NOW_MS + 49 * HOUR_MS
    make_backup(data, kept.target(late), prove=audit_file, now_ms=late)
    (data / LAST_BACKUP_FILE).unlink()
    daily = Backups(folder=str(folder))
    assert wrong(check_backups(daily, data, mine, late, COMMANDS)) == set()
    assert problems(check_backups(daily, data, NEW, late, COMMANDS)) == {"backup.late"}


@pytest.mark.skipif(os.name != "posix", reason="modes")
@pytest.mark.parametrize(
    ("name", "mode", "code"),
    [
        ("", 0o750, "modes.data_dir"),
        ("", 0o770, "modes.data_dir"),
        ("turnpike.db", 0o640, "modes.database"),
        ("turnpike.db-wal", 0o604, "modes.database"),
        ("master.key", 0o644, "modes.master_key"),
        ("server.json", 0o644, "modes.server_file"),
    ],
)
def test_modes_of_the_data_directory(tmp_path: Path, name: str, mode: int, code: str) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    for each in ("turnpike.db", "turnpike.db-wal", "master.key", "server.json"):
        (data / each).touch(mode=0o600)
    assert wrong(check_modes(Config(), None, data)) == set()
    (data / name).chmod(mode)
    (finding,) = check_modes(Config(), None, data)
    assert finding.code == code
    assert (finding.severity is Severity.WARNING) == (mode == 0o750)
    assert os.system(finding.fix) == 0  # noqa: S605 - its own advice
    assert wrong(check_modes(Config(), None, data)) == set()


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_modes_of_the_file_and_of_secrets(tmp_path: Path) -> None:
    from app.config import load

    file, secret = tmp_path / "c.toml", tmp_path / "key"
    secret.write_text("k")
    secret.chmod(0o600)
    file.write_text(
        '[[providers]]\nid = "a"\nplugin = "openai_compatible"\nbase_url = "http://h/v1"\n'
        f'api_key = "file:{secret}"\n'
    )
    file.chmod(0o644)
    config = load(file)
    assert wrong(check_modes(config, file, None)) == set()
    secret.chmod(0o640)
    file.chmod(0o666)
    found = check_modes(config, file, None)
    assert problems(found) == {"modes.secret", "modes.config"}
    secret.chmod(0o600)
    file.chmod(0o644)
    file.write_text(file.read_text() + 'settings = { headers = { x-api-key = "sk-1" } }\n')
    assert problems(check_modes(load(file), file, None)) == {"modes.config"}
    file.chmod(0o600)
    assert wrong(check_modes(load(file), file, None)) == set()


def test_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_ports(Server(port=0), Presence())[0].code == "port.any"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        other.listen()
        assert problems(check_ports(Server(port=port), Presence())) == {"port.taken"}
        ours = RunningServer(1, f"http://127.0.0.1:{port}", "t")
        found = check_ports(Server(port=port), Presence(holder=1, server=ours))
        assert found[0].code == "port.ours"
    assert check_ports(Server(port=port), Presence())[0].code == "port.free"
    if os.geteuid() == 0:  # who may have any
        monkeypatch.setattr(ports, "_try", lambda _server: PermissionError(13, "denied"))
    assert problems(check_ports(Server(port=1), Presence())) == {"port.forbidden"}
    monkeypatch.undo()
    foreign = check_ports(Server(host="192.0.2.1", port=port), Presence())
    assert problems(foreign) == {"port.no_address"}
