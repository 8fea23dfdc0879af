"""What a supervisor hears, over a real socket from a real server."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.cli.notify import Notifier
from tests.appliance import appliance

CONFIG = """
[server]
port = 0
drain_seconds_max = 5
[[local.models]]
id = "acme/fake"
source = "fake:"
engine = "fake"
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="datagrams of AF_UNIX")


class Supervisor:
    """Keeps each message, as fields, with the time at which it came."""

    def __init__(self, address: str) -> None:
        self.heard: list[tuple[float, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(0.1)
        self._over = False
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over:
            try:
                text = self._socket.recv(65536).decode()
            except TimeoutError:
                continue
            fields = dict(line.split("=", 1) for line in text.split("\n"))
            self.heard.append((time.monotonic(), fields))

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self._socket.close()

    def with_field(self, name: str) -> list[dict[str, str]]:
        return [fields for _, fields in list(self.heard) if name in fields]

    def times_of(self, name: str) -> list[float]:
        return [at for at, fields in list(self.heard) if name in fields]

    def wait_for(self, name: str, count: int = 1, seconds: float = 30.0) -> dict[str, str]:
        give_up = time.monotonic() + seconds
        while len(found := self.with_field(name)) < count:
            assert time.monotonic() < give_up, (name, self.heard)
            time.sleep(0.02)
        return found[count - 1]


@contextmanager
def supervisor(address: str) -> Iterator[Supervisor]:
    listening = Supervisor(address)
    try:
        yield listening
    finally:
        listening.close()


def environment(path: Path, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(path), **more}


def test_a_message_is_one_datagram_of_lines(tmp_path: Path) -> None:
    with supervisor(str(tmp_path / "s")) as heard:
        environ = environment(tmp_path / "s", WATCHDOG_USEC="2000000", HOME="/x")
        notifier = Notifier(environ)
        assert environ == {"HOME": "/x"}
        assert notifier.watchdog_seconds == 2.0
        assert notifier.environment() == environment(tmp_path / "s", WATCHDOG_USEC="2000000")
        notifier.tell(READY=1, STATUS="one\nline")
        assert heard.wait_for("READY") == {"READY": "1", "STATUS": "one line"}


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_an_abstract_name_begins_with_an_at_sign(tmp_path: Path) -> None:
    name = f"turnpike-test-{os.getpid()}-{tmp_path.name}"
    with supervisor(f"\0{name}") as heard:
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).tell(READY=1)
        assert heard.wait_for("READY") == {"READY": "1"}


def test_a_supervisor_that_is_gone_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(environment(tmp_path / "nobody"))
    notifier.tell(READY=1)
    notifier.tell(READY=1)
    assert len(caplog.records) == 1  # said once
    Notifier({}).tell(READY=1)
    Notifier({"NOTIFY_SOCKET": "vsock:2:1"}).tell(READY=1)


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_whose_watchdog_it_is(variables: dict[str, str], seconds: float | None) -> None:
    assert Notifier(dict(variables)).watchdog_seconds == seconds


async def test_the_watchdog_hears_nothing_when_nothing_can_be_written(tmp_path: Path) -> None:
    with supervisor(str(tmp_path / "s")) as heard:
        notifier = Notifier(environment(tmp_path / "s", WATCHDOG_USEC="100000"))
        alive = True
        kept = asyncio.create_task(notifier.keep_watchdog(lambda: alive))
        await asyncio.to_thread(heard.wait_for, "WATCHDOG", 3)
        alive = False
        await asyncio.sleep(0.2)
        before = len(heard.with_field("WATCHDOG"))
        await asyncio.sleep(0.4)
        assert len(heard.with_field("WATCHDOG")) == before
        kept.cancel()


def test_a_server_tells_its_life(tmp_path: Path) -> None:
    """Start, a reload, a restart with another pid's READY, and the stop, in this order."""
    path = tmp_path / "s"
    with (
        supervisor(str(path)) as heard,
        appliance(tmp_path / "data", CONFIG, environment(path, WATCHDOG_USEC="1000000")) as running,
    ):
        pid = running.process.pid
        ready = heard.wait_for("READY")
        assert ready["STATUS"] == f"serves {running.base_url}/v1"
        heard.wait_for("WATCHDOG", 4)
        beats = heard.times_of("WATCHDOG")
        assert max(b - a for a, b in itertools.pairwise(beats)) < 1.0

        running.cli("reload")
        assert int(heard.wait_for("RELOADING")["MONOTONIC_USEC"]) > 0
        assert heard.wait_for("READY", 2)["STATUS"] == ready["STATUS"]
        running.config_path.write_text("[[server]\n")
        os.kill(pid, signal.SIGHUP)  # however it ends, the reload is over
        heard.wait_for("READY", 3)
        running.config_path.write_text(CONFIG)

        before = len(heard.heard)
        running.cli("restart")
        leaving = heard.wait_for("RELOADING", 3)
        assert int(leaving["EXTEND_TIMEOUT_USEC"]) > 5_000_000
        assert int(leaving["WATCHDOG_USEC"]) > 60_000_000  # nobody answers it for a while
        again = heard.wait_for("READY", 4)
        assert again["MAINPID"] == str(pid)
        assert again["WATCHDOG_USEC"] == "1000000"
        assert heard.with_field("STOPPING") == []  # the service does not stop
        assert len(heard.heard) > before
        heard.wait_for("WATCHDOG", len(heard.with_field("WATCHDOG")) + 2)

        (engine,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (Path(f"/proc/{pid}/environ"), Path(f"/proc/{engine}/environ")):
            names = {line.split(b"=")[0] for line in each.read_bytes().split(b"\0")}
            # That of the server shows what it was started with, and was given to it anew.
            assert (b"NOTIFY_SOCKET" in names) is (each.parent.name == str(pid))

        assert running.stop() == 0
        assert int(heard.wait_for("STOPPING")["EXTEND_TIMEOUT_USEC"]) > 5_000_000
        assert heard.with_field("READY")[-1] is again


def test_a_hung_server_lets_the_watchdog_bark(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with (
        supervisor(str(path)) as heard,
        appliance(tmp_path / "data", CONFIG, environment(path, WATCHDOG_USEC="400000")) as running,
    ):
        heard.wait_for("WATCHDOG", 3)
        os.kill(running.process.pid, signal.SIGSTOP)  # its loop does not turn any more
        time.sleep(0.3)
        before = len(heard.with_field("WATCHDOG"))
        time.sleep(1.0)
        assert len(heard.with_field("WATCHDOG")) == before
        os.kill(running.process.pid, signal.SIGCONT)
        heard.wait_for("WATCHDOG", before + 2)


def test_without_a_supervisor_a_server_is_silent(tmp_path: Path) -> None:
    """The variable of another process' watchdog is not answered."""
    path = tmp_path / "s"
    with supervisor(str(path)) as heard:
        more = {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}
        with appliance(tmp_path / "data", CONFIG, environment(path, **more)):
            heard.wait_for("READY")
            time.sleep(0.5)
        assert heard.with_field("WATCHDOG") == []
        done = subprocess.run(
            [sys.executable, "-m", "app", "--data-dir", str(tmp_path / "data"), "users", "list"],
            env={**os.environ, **environment(path)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0
        assert len(heard.with_field("READY")) == 1
