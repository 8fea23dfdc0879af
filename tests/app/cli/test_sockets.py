"""Sockets that a supervisor opened, and a server's own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.cli.sockets import BOUND, GIVEN, HANDED_OVER, Inherited, bind, inherited, listen, moved
from app.config import Server
from app.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are not inherited")
CONFIG = """
[server]
port = 1
[[local.models]]
id = "acme/fake"
source = "fake:"
engine = "fake"
"""
# What systemd does between fork and exec: numbers from 3 on, and the child's own id.
LAUNCH = """
import fcntl, os, sys
given = [int(word) for word in sys.argv[1].split(",")]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in given]
for number, fd in enumerate(high, start=3):
    os.dup2(fd, number, inheritable=True)
    os.close(fd)
os.environ["LISTEN_FDS"] = str(len(given))
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDNAMES"] = ":".join(["http"] * len(given))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def tcp() -> socket.socket:
    found = socket.create_server(("127.0.0.1", 0))
    found.set_inheritable(True)
    return found


@contextmanager
def activated(data_dir: Path, *sockets: socket.socket) -> Iterator[subprocess.Popen[str]]:
    data_dir.mkdir(exist_ok=True)
    config = data_dir / "config.toml"
    config.write_text(CONFIG)
    given = [each.fileno() for each in sockets]
    with (data_dir / "serve.log").open("a") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", LAUNCH, ",".join(map(str, given)), "-m", "app"),
                *("--config", str(config), "--data-dir", str(data_dir), "serve"),
            ],
            pass_fds=given,
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def port_of(given: socket.socket) -> int:
    port: int = given.getsockname()[1]
    return port


def ready(url: str, uds: str | None = None) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(uds=uds), timeout=60) as client:
        return client.get(f"{url}/readyz").status_code


def test_it_serves_on_every_socket_that_it_is_given_and_leaves_them_open(tmp_path: Path) -> None:
    """The configured port 1 is nobody's: the supervisor's sockets are the truth."""
    path = str(tmp_path / "http")
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    local.bind(path)
    local.listen()
    one, two = tcp(), tcp()
    with one, two, local:
        # The first request comes before the server runs: it waits in the socket.
        early = socket.create_connection(("127.0.0.1", port_of(two)))
        early.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        with activated(tmp_path / "data", local, one, two) as process:
            early.settimeout(60)
            assert early.recv(4096).startswith(b"HTTP/1.1 200")
            early.close()
            for given in (one, two):
                assert ready(f"http://127.0.0.1:{port_of(given)}") == 200
            assert ready("http://turnpike", uds=path) == 200
            told = json.loads((tmp_path / "data" / "server.json").read_text())
            assert told["base_url"] == f"http://127.0.0.1:{port_of(one)}"

            os.kill(process.pid, signal.SIGUSR2)
            give_up = time.monotonic() + 60
            while told == _told(tmp_path / "data") or _told(tmp_path / "data") is None:
                assert time.monotonic() < give_up
                time.sleep(0.05)
            assert ready(f"http://127.0.0.1:{port_of(two)}") == 200  # given on to the next one
            assert ready("http://turnpike", uds=path) == 200
            process.terminate()
            assert process.wait(30) == 0
        # The supervisor's sockets are still open: who connects now waits for the next start.
        with socket.create_connection(("127.0.0.1", port_of(one))):
            pass


def _told(data_dir: Path) -> object:
    try:
        return json.loads((data_dir / "server.json").read_text())
    except (OSError, ValueError):
        return None


def test_sockets_for_another_process_are_left_alone() -> None:
    for environ in (
        {"LISTEN_FDS": "1", "LISTEN_PID": "1", "HOME": "/x"},
        {"LISTEN_FDS": "1", "HOME": "/x"},
        {"LISTEN_PID": str(os.getpid()), "HOME": "/x"},
    ):
        found = inherited(environ)
        assert (found.listening, found.connected) == ([], [])
        assert environ == {"HOME": "/x"}


@pytest.mark.parametrize("fd", ["nothing", "file"])
def test_what_is_no_socket_is_refused_with_what_to_do(tmp_path: Path, fd: str) -> None:
    script = (
        "import os, sys\n"
        "from app.cli.sockets import inherited\n"
        "os.closerange(3, 60)\n"
        + ("os.open(os.devnull, os.O_RDONLY)\n" if fd == "file" else "")
        + "inherited({'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ConfigError: LISTEN_FDS=1 says that descriptor 3 is a socket" in done.stderr


def test_a_socket_of_the_forerunners_own_stays_while_the_file_says_the_same() -> None:
    with bind(Server(port=0)) as before:
        before.listen()
        port = port_of(before)
        same, another = Server(port=port), Server(port=0)
        for server in (same, another):
            found = listen(server, Inherited([before], handed_over=BOUND))
            assert (found.sockets, found.origin) == ([before], BOUND)
        assert not moved(Server(host="localhost", port=port), before)
        assert moved(Server(host="127.0.0.2", port=port), before)
        given = listen(Server(host="127.0.0.2", port=1), Inherited([before], handed_over=GIVEN))
        assert (given.sockets, given.origin) == ([before], GIVEN)
        elsewhere = listen(Server(host="127.0.0.2", port=0), Inherited([before], handed_over=BOUND))
        assert before.fileno() == -1
        elsewhere.sockets[0].close()


def test_without_a_tcp_socket_no_command_could_reach_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local:
        local.bind(str(tmp_path / "s"))
        with pytest.raises(ConfigError, match="add ListenStream="):
            listen(Server(), Inherited([local]))


def test_who_made_the_socket_is_told_on() -> None:
    environ = {HANDED_OVER: BOUND}
    assert inherited(environ).handed_over == BOUND
    assert environ == {}
