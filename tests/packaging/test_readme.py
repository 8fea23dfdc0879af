"""The operators' page, followed to the letter by somebody with an archive and a shell.

It runs as root in mounts of its own. What is played: systemd, by a script that runs what the unit
says, and the archive, whose program is this source.
"""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from app.config import parse
from tests.docs.test_readme import blocks, parses
from tests.packaging.test_install_as_root import own_mounts
from tests.tidy.tree import ROOT

OF_THE_PROGRAM = {"--make-key", "--program", "--model", "--home"}

PAGE = ROOT / "packaging" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")

# Only the loopback interface, so that the page's port is free, and to show that it needs no other.
LOOPBACK = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
"""
MOUNTS = """
set -eu
"$PYTHON" -c "$LOOPBACK"
cp -a /etc "$T/etc"
mkdir "$T/local" "$T/lib" "$T/srv"
mount --bind "$T/etc" /etc
mount --bind "$T/local" /usr/local
mount --bind "$T/lib" /var/lib
mount --bind "$T/srv" /srv
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/bin
cp "$T"/bin/* /run/bin/
PATH=/run/bin:$PATH
cd "$T/carried"
"""
SYSTEMCTL = """#!/bin/sh
unit=/etc/systemd/system/turnpike.service
command() { sed -n "s/^$1=//p" $unit; }
start() {
    [ ! -e /run/pid ] || exit 0
    eval "exec setsid $(command ExecStart)" >>"$T/log" 2>&1 </dev/null &
    echo $! >/run/pid
    for _ in $(seq 300); do
        ! grep -qs base_url /var/lib/turnpike/server.json || exit 0
        sleep 0.1
    done
    exit 1
}
stop() {
    [ -e /run/pid ] || return 0
    kill "$(cat /run/pid)"
    while kill -0 "$(cat /run/pid)" 2>/dev/null; do sleep 0.1; done
    rm /run/pid
}
case $1 in
is-active) exec test -e /run/pid ;;
enable | start) start ;;
stop | disable) stop ;;
restart) stop; start ;;
reload) eval "$(command ExecReload)" ;;
daemon-reload) ;;
*) echo "systemctl $1 is not played" >&2; exit 1 ;;
esac
"""
# Python may lie where the service's user may not look; user and owners have a test of their own.
SUDO = """#!/bin/sh
[ "$1" != -u ] || shift 2
[ "$1" != -- ] || shift
exec "$@"
"""


def script() -> str:
    return "\n".join(blocks("sh", TEXT))


def pack(folder: Path, version: str) -> Path:
    """An archive as the build makes it; the program is this source."""
    name = f"turnpike-{version}"
    inside = folder / name
    (inside / "_internal").mkdir(parents=True)
    program = inside / "turnpike"
    program.write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || {{ echo "turnpike {version}"; exit; }}\n'
        f'PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m app "$@"\n'
    )
    program.chmod(0o755)
    for each in ("install", "turnpike.service", "turnpike.socket"):
        copy = inside / each
        copy.write_bytes((ROOT / "packaging" / each).read_bytes())
        copy.chmod(0o755 if each == "install" else 0o644)
    archive = folder / f"{name}-linux-x86_64.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(inside, name)
    return archive


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not own_mounts(), reason="needs root and mount namespaces")
@pytest.mark.skipif(sys.base_prefix.startswith("/usr/local"), reason="Python itself lies there")
def test_a_stranger_follows_the_page(tmp_path: Path) -> None:
    carried, tools, built = tmp_path / "carried", tmp_path / "bin", tmp_path / "built"
    carried.mkdir()
    tools.mkdir()
    versions = re.findall(r"tar xzf turnpike-([\d.]+)-linux-x86_64\.tar\.gz", TEXT)
    assert len(versions) == 2
    for version in versions:
        archive = pack(built, version)
        archive.rename(carried / archive.name)
    names = sorted(each.name for each in carried.iterdir())
    sums = subprocess.run(["sha256sum", *names], cwd=carried, capture_output=True, check=True)
    (carried / "SHA256SUMS").write_bytes(sums.stdout)
    for name, text in (("systemctl", SYSTEMCTL), ("sudo", SUDO), ("runuser", SUDO)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["unshare", "-m", "-n", "bash", "-c", MOUNTS + script() + "\n[ ! -e /run/pid ]"],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("TURNPIKE")},
            "T": str(tmp_path),
            "PYTHON": sys.executable,
            "LOOPBACK": LOOPBACK,
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    log = tmp_path / "log"
    assert done.returncode == 0, (
        done.stdout + done.stderr + (log.read_text()[-3000:] if log.exists() else "")
    )
    for told in ("takes calls", "restarted in", "goes back from 0.2.0 to 0.1.0", "All is well"):
        assert told in done.stdout
    left = {str(path.relative_to(tmp_path)) for path in (tmp_path / "lib").rglob("turnpike.db")}
    assert "lib/turnpike/turnpike.db" in left  # an uninstall keeps the money
    assert not list((tmp_path / "local").rglob("*turnpike*"))


def command_lines() -> list[list[str]]:
    """Every command of the program's, in blocks and in the text."""
    shell = "\n".join([*blocks("sh", TEXT), *blocks("console", TEXT)])
    lines = re.findall(r"^turnpike (.*)$", shell, re.MULTILINE)
    quoted = re.findall(r"`turnpike ([a-z][^`]*)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
    return [shlex.split(line) for line in {*lines, *quoted}]


@pytest.mark.parametrize("words", sorted(command_lines()), ids=" ".join)
def test_every_command_parses(words: list[str]) -> None:
    parses(words)


def test_every_toml_block_is_a_configuration() -> None:
    for text in blocks("toml", TEXT):
        parse(tomllib.loads(text), source="packaging/README.md")


def test_every_path_named_exists() -> None:
    named = set(re.findall(r"`(packaging/[\w./]+)`", TEXT))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_what_the_table_says_is_in_the_script_and_the_unit() -> None:
    units = (ROOT / "packaging" / "turnpike.service").read_text()
    script_text = (ROOT / "packaging" / "install").read_text()
    for path in ("/etc/turnpike/config.toml", "/var/lib/turnpike"):
        assert path in units
    assert "manifest=$etc/installed" in script_text
    named = set(re.findall(r"`(?:\./install )?(--[a-z-]+)[^`]*`", TEXT)) - OF_THE_PROGRAM
    assert {name for name in named if name not in script_text} == set()
