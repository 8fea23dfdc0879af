"""The install script, run for real into a tree, by the shells that targets have."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.tidy.tree import ROOT

PACKAGING = ROOT / "packaging"
SHELLS = [["dash"], ["busybox", "sh"], ["bash", "--posix"]]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="services of Linux")


@pytest.fixture(params=SHELLS, ids=lambda words: words[0])
def shell(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = request.param
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return words


def program(folder: Path, version: str = "1.2.3", body: str = "") -> Path:
    """What stands for the executable; it says its version."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "turnpike"
    file.write_text(f'#!/bin/sh\n[ "$1" != --version ] || echo "turnpike {version}"\n{body}')
    file.chmod(0o755)
    return file


def install(shell: list[str], root: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    verb = [str(word) for word in words if word in {"uninstall", "rollback"}]
    rest = [str(word) for word in words if word not in {"uninstall", "rollback"}]
    return subprocess.run(
        [*shell, str(PACKAGING / "install"), *verb, "--root", str(root), *rest],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def tree(root: Path) -> dict[str, tuple[str, str]]:
    """Everything in it, with its mode and its contents."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = stat.filemode(path.lstat().st_mode)
        if path.is_symlink():
            text = f"-> {path.readlink()}"
        else:
            text = path.read_text() if path.is_file() else ""
        found[str(path.relative_to(root))] = (mode, text)
    return found


def test_it_makes_a_tree_with_the_right_modes(shell: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    good(install(shell, root, program(tmp_path / "p")))
    made = tree(root)
    modes = {
        "etc/turnpike": "drwxr-x---",
        "etc/turnpike/config.toml": "-rw-r-----",
        "etc/turnpike/installed": "-rw-------",
        "etc/systemd/system/turnpike.service": "-rw-r--r--",
        "var/lib/turnpike": "drwx------",
        "usr/local/lib/turnpike/1.2.3": "drwxr-xr-x",
        "usr/local/lib/turnpike/1.2.3/turnpike": "-rwxr-xr-x",
    }
    assert {path: made[path][0] for path in modes} == modes
    assert made["usr/local/lib/turnpike/current"][1] == "-> 1.2.3"
    ran = subprocess.run(
        [root / "usr/local/bin/turnpike", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "turnpike 1.2.3\n"
    assert "etc/systemd/system/turnpike.socket" not in made


def test_twice_is_once_and_a_configuration_is_never_overwritten(
    shell: list[str], tmp_path: Path
) -> None:
    root, file = tmp_path / "root", program(tmp_path / "p")
    good(install(shell, root, file))
    config = root / "etc/turnpike/config.toml"
    config.write_text("# mine\n")
    before = tree(root)
    told = good(install(shell, root, file))
    assert tree(root) == before
    assert "writes" not in told
    assert "copies" not in told


def test_uninstall_removes_what_it_made_and_nothing_else(shell: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/other").write_text("not ours")
    (root / "etc").mkdir()
    empty = tree(root)
    good(install(shell, root, "--socket", program(tmp_path / "p")))
    assert "etc/systemd/system/turnpike.socket" in tree(root)
    (root / "var/lib/turnpike/turnpike.db").write_text("money")
    told = good(install(shell, root, "uninstall"))
    assert "configuration and data stay" in told
    left = set(tree(root)) - set(empty)
    assert left == {
        "etc/turnpike", "etc/turnpike/config.toml", "etc/turnpike/installed",
        "var", "var/lib", "var/lib/turnpike", "var/lib/turnpike/turnpike.db",
    }  # fmt: skip
    good(install(shell, root, program(tmp_path / "p")))  # and back, on the data that stayed
    assert (root / "var/lib/turnpike/turnpike.db").read_text() == "money"
    good(install(shell, root, "uninstall", "--purge"))
    assert tree(root) == empty
    assert "not installed" in good(install(shell, root, "uninstall"))


def test_a_purge_leaves_what_others_put_beside(shell: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    good(install(shell, root, program(tmp_path / "p")))
    (root / "etc/turnpike/master.key").write_text("the only one")
    told = good(install(shell, root, "uninstall", "--purge"))
    assert f"leaves {root}/etc/turnpike, which has files" in told
    assert [path for path in tree(root) if "turnpike" in path] == [
        "etc/turnpike",
        "etc/turnpike/master.key",
    ]


def test_a_dry_run_says_everything_and_does_nothing(shell: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    told = good(install(shell, root, "--dry-run", "--socket", program(tmp_path / "p")))
    assert tree(root) == {}
    for path in ("usr/local/lib/turnpike/1.2.3", "etc/turnpike/config.toml", "var/lib/turnpike"):
        assert f"{root}/{path}" in told
    good(install(shell, root, program(tmp_path / "p")))
    before = tree(root)
    told = good(install(shell, root, "uninstall", "--purge", "--dry-run"))
    assert "would run: rm" in told
    assert tree(root) == before


def test_upgrade_and_roll_back_switch_one_link(shell: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    lib = root / "usr/local/lib/turnpike"
    for version in ("1.0", "1.1", "1.2"):
        good(install(shell, root, program(tmp_path / version, version)))
    assert (os.readlink(lib / "current"), os.readlink(lib / "previous")) == ("1.2", "1.1")
    assert not (lib / "1.0").exists()  # the one before is enough
    good(install(shell, root, "rollback"))
    assert (os.readlink(lib / "current"), os.readlink(lib / "previous")) == ("1.1", "1.2")
    good(install(shell, root, "rollback"))
    assert os.readlink(lib / "current") == "1.2"
    # Another build of a version that runs does not change under the running program.
    good(install(shell, root, program(tmp_path / "again", "1.2", "exit 0\n")))
    assert os.readlink(lib / "current").startswith("1.2-")
    assert os.readlink(lib / "previous") == "1.2"
    good(install(shell, root, "uninstall", "--purge"))
    assert tree(root) == {}


def test_a_folder_is_installed_whole(shell: list[str], tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "turnpike-1.2.3"
    program(folder)
    (folder / "_internal").mkdir()
    (folder / "_internal/library.so").write_text("code")
    (folder / "_internal/link.so").symlink_to("library.so")
    good(install(shell, root, folder))
    made = tree(root / "usr/local/lib/turnpike/1.2.3")
    assert made["_internal/library.so"][1] == "code"
    assert made["_internal/link.so"][1] == "-> library.so"


def sums(folder: Path, *names: str) -> None:
    lines = subprocess.run(
        ["sha256sum", *names], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    (folder / "SHA256SUMS").write_text(lines)


def test_checksums_beside_the_program_are_checked(shell: list[str], tmp_path: Path) -> None:
    root, file = tmp_path / "root", program(tmp_path / "p")
    sums(tmp_path / "p", "turnpike")
    assert "turnpike is what SHA256SUMS says" in good(install(shell, root, file))
    file.write_text(file.read_text() + "# damaged\n")
    refused = install(shell, tmp_path / "other", file)
    assert refused.returncode == 1
    assert "is not what" in refused.stderr
    assert not (tmp_path / "other").exists()

    folder = tmp_path / "folder"
    program(folder)
    (folder / "lib").mkdir()
    (folder / "lib/a b").write_text("code")
    sums(folder, "turnpike", "lib/a b")
    good(install(shell, tmp_path / "third", folder))
    (folder / "lib/a b").unlink()
    refused = install(shell, tmp_path / "other", folder)
    assert "a b is missing: unpack the archive again" in refused.stderr


def test_what_is_not_its_own_is_not_overwritten(shell: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    unit = root / "etc/systemd/system/turnpike.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("mine")
    refused = install(shell, root, program(tmp_path / "p"))
    assert refused.returncode == 1
    assert "was not made by this script" in refused.stderr
    assert unit.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--nothing"], "unknown option --nothing"),
        (["--prefix", "relative", "x"], "--prefix must begin with /"),
        (["--purge", "x"], "--purge goes with uninstall only"),
        (["/nowhere/turnpike"], "/nowhere/turnpike is missing"),
        (["rollback"], "not installed here"),
        (["--version"], "--version needs a value"),
    ],
)
def test_a_mistake_is_named(shell: list[str], tmp_path: Path, words: list[str], told: str) -> None:
    refused = install(shell, tmp_path / "root", *words)
    assert refused.returncode == 1
    assert told in refused.stderr
    assert not (tmp_path / "root").exists()


def test_another_prefix_is_in_the_unit_too(shell: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    good(install(shell, root, "--prefix", "/usr", program(tmp_path / "p")))
    unit = (root / "etc/systemd/system/turnpike.service").read_text()
    assert "ExecStart=/usr/lib/turnpike/current/turnpike " in unit
    assert "/usr/local" not in unit
    assert (root / "usr/bin/turnpike").exists()


def settings(unit: str) -> Iterator[tuple[str, str]]:
    for line in unit.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def test_the_units_command_serves_from_the_tree(tmp_path: Path) -> None:
    """ExecStart as it stands, with the root before its paths; this source is the program."""
    root = tmp_path / "root"
    body = f'cd "{ROOT}" && exec "{sys.executable}" -m app "$@"\n'
    launcher = program(tmp_path / "p", body=f'[ "$1" != --version ] || exit 0\n{body}')
    good(install(["sh"], root, launcher))
    config = root / "etc/turnpike/config.toml"
    text = config.read_text()
    assert 'data_dir = "/var/lib/turnpike"' in text
    config.write_text(
        text.replace("port = 8000", "port = 0")
        + '[[local.models]]\nid = "acme/fake"\nsource = "fake:"\nengine = "fake"\n'
    )
    unit = (root / "etc/systemd/system/turnpike.service").read_text()
    starts = [value for name, value in settings(unit) if name == "ExecStart"]
    reloads = [value for name, value in settings(unit) if name == "ExecReload"]

    def in_tree(line: str) -> list[str]:
        return [f"{root}{word}" if word.startswith("/") else word for word in line.split()]

    (start,), (again,) = starts, reloads
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(in_tree(start), stdout=log, stderr=log)
    try:
        endpoint = root / "var/lib/turnpike/server.json"
        give_up = time.monotonic() + 60
        while not endpoint.exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.05)
        tool = [str(root / "usr/local/bin/turnpike"), *in_tree(start)[1:-1]]
        asked = subprocess.run([*tool, "health"], capture_output=True, text=True, check=True)
        url = asked.stdout.split()[0]
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        subprocess.run(in_tree(again), capture_output=True, timeout=60, check=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_units_and_little_exposed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    good(install(["sh"], root, "--socket", program(tmp_path / "p")))
    folder = root / "etc/systemd/system"
    (folder / "here").mkdir()
    for name in ("turnpike.service", "turnpike.socket"):
        text = (folder / name).read_text()
        # `verify` wants to see the program.
        (folder / "here" / name).write_text(text.replace("=/usr/local/", f"={root}/usr/local/"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, (folder / "here").iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in checked.stderr.splitlines() if "turnpike" in line]
    assert ours == []
    exposed = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(folder / "turnpike.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    level = [line for line in exposed.stdout.splitlines() if "exposure level" in line]
    assert level, exposed.stderr
    assert float(level[0].split(":")[1].split()[0]) < 2.0, exposed.stdout


def test_the_time_to_stop_is_longer_than_the_drain() -> None:
    from app.config import Server

    unit = dict(settings((PACKAGING / "turnpike.service").read_text()))
    assert float(unit["TimeoutStopSec"]) > 2 * Server().drain_seconds_max
    assert unit["KillMode"] == "mixed"  # engines end after the calls that they compute
    assert unit["Type"] == "notify"


def test_the_archive_brings_what_the_script_needs() -> None:
    build = (PACKAGING / "build.py").read_text()
    found = re.search(r"^_FOR_OPERATORS = \((.*?)^\)", build, re.MULTILINE | re.DOTALL)
    assert found is not None
    brought = set(re.findall(r'"([^"]+)"', found[1]))
    assert {f"packaging/{name}" for name in ("install", "turnpike.service")} <= brought
    assert "packaging/turnpike.socket" in brought
    assert [path for path in sorted(brought) if not (ROOT / path).is_file()] == []
    assert os.access(PACKAGING / "install", os.X_OK)
