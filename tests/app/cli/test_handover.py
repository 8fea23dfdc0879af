"""One program becomes another: what it inherits, and which one it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.handover import check, this_program
from app.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="execve")

# A process with descriptors of all kinds, two of them to hand on, in an order that is not theirs.
BEFORE = """
import os, socket, sys
from app.cli.handover import HandOver, take_place
from app.cli.notify import Notifier

first = socket.create_server(("127.0.0.1", 0))
second = socket.create_server(("127.0.0.1", 0))
print(first.getsockname()[1], second.getsockname()[1], os.getpid(), flush=True)
stray = os.open(os.devnull, os.O_RDONLY)
os.set_inheritable(stray, True)
os.environ["NOTIFY_SOCKET"] = "/nowhere"
notifier = Notifier(os.environ)
assert "NOTIFY_SOCKET" not in os.environ
take_place(HandOver(sys.argv[1:], [second, first], "bound", notifier))
"""
AFTER = """
import json, os, signal, socket
names = {int(name) for name in os.listdir("/dev/fd")}
open_now = sorted(fd for fd in names if os.path.exists(f"/dev/fd/{fd}"))
ports = [socket.socket(fileno=fd).getsockname()[1] for fd in (3, 4)]
variables = ("LISTEN_FDS", "LISTEN_PID", "TURNPIKE_HANDED_OVER", "NOTIFY_SOCKET")
ignored = [signal.getsignal(each) == signal.SIG_IGN for each in (signal.SIGHUP, signal.SIGUSR2)]
blocked = [each.name for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
print(json.dumps([open_now, ports, {n: os.environ.get(n) for n in variables}, ignored, blocked]))
"""


def run(*program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEFORE, *program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_next_program_gets_the_sockets_and_nothing_else() -> None:
    done = run(sys.executable, "-c", AFTER)
    assert done.returncode == 0, done.stderr
    said, heard = done.stdout.splitlines()
    first, second, pid = said.split()
    open_now, ports, variables, ignored, blocked = json.loads(heard)
    assert ports == [int(second), int(first)]
    assert open_now == [0, 1, 2, 3, 4]
    assert variables == {
        "LISTEN_FDS": "2",
        "LISTEN_PID": pid,
        "TURNPIKE_HANDED_OVER": "bound",
        "NOTIFY_SOCKET": "/nowhere",
    }
    assert ignored == [True, True]  # until it listens to them itself
    assert blocked == []


def test_a_program_that_cannot_be_run_ends_with_1_and_says_so() -> None:
    done = run("/nowhere/turnpike")
    assert done.returncode == 1
    assert "/nowhere/turnpike cannot be run: No such file or directory" in done.stderr


async def test_a_check_that_fails_says_what_the_program_said(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "Error: no such thing" >&2\n[ "$1" = good ]\n')
    with pytest.raises(ConfigError, match="cannot be run: Permission denied"):
        await check([str(program)])
    program.chmod(0o755)
    await check([str(program), "good"])
    with pytest.raises(ConfigError, match=r"^no such thing$"):
        await check([str(program)])


def test_from_source_it_is_python_with_the_same_words() -> None:
    assert this_program() == [sys.executable, *sys.orig_argv[1:]]


def test_a_frozen_program_goes_by_the_link_that_it_was_called_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a restart after an upgrade runs what the link points to by then."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "turnpike").touch(0o755)
    link = tmp_path / "current"
    link.symlink_to("1")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.delenv("TURNPIKE_FILE", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "1" / "turnpike"))
    monkeypatch.setattr(sys, "argv", [str(link / "turnpike"), "serve"])
    assert this_program() == [str(link / "turnpike"), "serve"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["current/turnpike", "serve"])
    assert this_program() == [str(link / "turnpike"), "serve"]  # wherever it is by then
    # Not when the name is somebody else's.
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "2" / "turnpike"), "serve"])
    assert this_program() == [str(tmp_path / "1" / "turnpike"), "serve"]
    monkeypatch.setattr(sys, "argv", ["turnpike-that-is-not-on-the-path", "serve"])
    assert this_program() == [str(tmp_path / "1" / "turnpike"), "serve"]


def test_what_is_one_file_is_that_file_and_not_what_it_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("file", "unpacked"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "unpacked"))
    monkeypatch.setenv("TURNPIKE_FILE", str(tmp_path / "file"))
    (tmp_path / "bin").symlink_to("file")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin"), "serve"])
    assert this_program() == [str(tmp_path / "bin"), "serve"]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "unpacked"), "serve"])
    assert this_program() == [str(tmp_path / "file"), "serve"]


def test_descriptors_are_numbered_even_where_the_numbers_are_taken() -> None:
    """Many sockets, whose own numbers are those that they shall have, in reverse."""
    script = """
import socket, sys
from app.cli.handover import HandOver, take_place
from app.cli.notify import Notifier
made = [socket.create_server(("127.0.0.1", 0)) for _ in range(200)]
print(*(each.getsockname()[1] for each in reversed(made)), flush=True)
take_place(HandOver(sys.argv[1:], made[::-1], "bound", Notifier({})))
"""
    after = """
import os, socket
count = int(os.environ["LISTEN_FDS"])
print(*(socket.socket(fileno=fd).getsockname()[1] for fd in range(3, 3 + count)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, "-c", after],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    asked, got = done.stdout.splitlines()
    assert asked == got
    assert len(got.split()) == 200
