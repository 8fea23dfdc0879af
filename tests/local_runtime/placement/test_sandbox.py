"""What a real child can and cannot do once it may read a model: tried from within one."""

import asyncio
import json
import os
import platform
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.placement.child import ChildHost
from local_runtime.worker import files_of
from tests.local_runtime.calls import collect, engine_request, smollm_path, text_of

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"},
    reason="the sandbox is Linux's, with system call numbers of these machines",
)

# The child's engine tries everything while it "loads", and says how that went.
INTRUDER = """
import ctypes, json, os, socket, subprocess, sys, threading
import local_runtime.placement.drive as drive
from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.fake import FakeEngine
import local_runtime.worker as worker

def attempt(what):
    try:
        return repr(what())
    except OSError as error:
        return error.__class__.__name__

def in_thread(what):
    found = []
    thread = threading.Thread(target=lambda: found.append(attempt(what)))
    thread.start()
    thread.join()
    return found[0]

def connect(family, address):
    with socket.socket(family) as one:
        one.connect(address)
    return "connected"

def system_call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "done"

def read(path):
    with open(path, "rb") as file:
        return len(file.read(4))

def write(path):
    with open(path, "w") as file:
        return file.write("x")

class Intruder(FakeEngine):
    def load(self, spec, progress):
        options, parent = spec.options, os.getppid()
        port = int(options["port"])
        tried = {
            "inet": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", port))),
            "inet6": attempt(lambda: connect(socket.AF_INET6, ("::1", port))),
            "datagrams": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
            "packets": attempt(lambda: socket.socket(17, socket.SOCK_RAW)),
            "inet in a thread": in_thread(lambda: connect(socket.AF_INET, ("127.0.0.1", port))),
            "local pair": attempt(lambda: len(socket.socketpair())),
            "fork": attempt(os.fork),
            "program": attempt(lambda: subprocess.run(["/bin/true"])),
            "program in a thread": in_thread(lambda: os.posix_spawn("/bin/true", ["true"], {})),
            "thread": in_thread(lambda: "ran"),
            "parent's environment": attempt(lambda: read(f"/proc/{parent}/environ")),
            "parent's memory": attempt(lambda: read(f"/proc/{parent}/mem")),
            "parent's files": attempt(lambda: os.readlink(f"/proc/{parent}/fd/0")),
            "signal to parent": attempt(lambda: os.kill(parent, 0)),
            "signal to itself": attempt(lambda: os.kill(os.getpid(), 0)),
            "model": attempt(lambda: read(spec.path)),
            "neighbour": attempt(lambda: read(options["neighbour"])),
            "system": attempt(lambda: read("/proc/cpuinfo")),
            "shadow": attempt(lambda: read("/etc/shadow")),
            "writing": attempt(lambda: write(options["neighbour"] + ".new")),
            "overwriting the model": attempt(lambda: write(spec.path)),
            "null": attempt(lambda: write("/dev/null")),
            "late import": attempt(lambda: __import__("sqlite3").__name__),
        }
        if os.uname().machine == "x86_64":
            tried["io_uring"] = attempt(lambda: system_call(425, 1, bytes(120)))
            tried["ptrace"] = attempt(lambda: system_call(101, 16, parent, 0, 0))
            tried["x32 socket"] = attempt(lambda: system_call(0x40000000 + 41, 2, 1, 0))
        tried["descriptors"] = sorted(os.readlink(f"/proc/self/fd/{fd}") if os.path.lexists(
            f"/proc/self/fd/{fd}") else "" for fd in os.listdir("/proc/self/fd"))
        tried["environment"] = sorted(os.environ.values())
        raise EngineLoadError(json.dumps(tried))

drive.make_engine = lambda name: Intruder()
sys.exit(worker.main())
"""


async def intrude(tmp_path: Path, port: int, command: str = INTRUDER) -> dict[str, Any]:
    model, neighbour = tmp_path / "model.gguf", tmp_path / "ledger.db"
    model.write_bytes(b"GGUF")
    neighbour.write_bytes(b"secret")
    spec = EngineSpec(
        engine="fake", path=str(model), options={"port": str(port), "neighbour": str(neighbour)}
    )
    host = ChildHost(spec, [sys.executable, "-c", command])
    with pytest.raises(EngineLoadError) as caught:
        await host.start(lambda _fraction: None)
    await host.close()
    assert not (tmp_path / "ledger.db.new").exists()
    assert model.read_bytes() == b"GGUF"
    found: dict[str, Any] = json.loads(str(caught.value))
    return found


async def test_a_child_reaches_nothing_but_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCK_API_KEY", "planted-secret")
    secret = tmp_path / "master.key"
    secret.write_bytes(b"planted")
    inherited = os.open(secret, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):  # from here it works
                found = await intrude(tmp_path, port)
    finally:
        os.close(inherited)
    descriptors, environment = found.pop("descriptors"), found.pop("environment")
    assert not any("master.key" in each or "socket:" in each for each in descriptors)
    assert "planted-secret" not in environment
    assert found == {
        "inet": "PermissionError",
        "inet6": "PermissionError",
        "datagrams": "PermissionError",
        "packets": "PermissionError",
        "inet in a thread": "PermissionError",
        "local pair": "2",
        "fork": "PermissionError",
        "program": "PermissionError",
        "program in a thread": "PermissionError",
        "thread": "'ran'",
        "parent's environment": "PermissionError",
        "parent's memory": "PermissionError",
        "parent's files": "PermissionError",
        "signal to parent": "PermissionError",
        "signal to itself": "None",
        "model": "4",
        "neighbour": "PermissionError",
        "system": "4",
        "shadow": "PermissionError",
        "writing": "PermissionError",
        "overwriting the model": "PermissionError",
        "null": "1",
        "late import": "'sqlite3'",
    } | (
        {"io_uring": "PermissionError", "ptrace": "PermissionError", "x32 socket": "OSError"}
        if platform.machine() == "x86_64"
        else {}
    )


async def test_threads_that_run_already_are_confined_too() -> None:
    """What an imported library started before the filter is no way around it."""
    script = (
        "import socket, sys, threading\n"
        "go, found = threading.Event(), []\n"
        "def late():\n"
        "    go.wait()\n"
        "    try:\n"
        "        found.append(socket.socket(socket.AF_INET) and 'opened')\n"
        "    except OSError as error:\n"
        "        found.append(type(error).__name__)\n"
        "thread = threading.Thread(target=late)\n"
        "thread.start()\n"
        "from local_runtime.placement.sandbox import refuse_network\n"
        "assert refuse_network()\n"
        "go.set()\n"
        "thread.join()\n"
        "sys.exit(found != ['PermissionError'])\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == 0


async def test_a_real_model_runs_within() -> None:
    spec = EngineSpec(
        engine="llama", path=str(smollm_path()), context_length=256, threads=2, sequences_max=2
    )
    host = ChildHost(spec)
    await host.start(lambda _fraction: None)
    status = await asyncio.to_thread(Path(f"/proc/{host.stats.pid}/status").read_text)
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert text_of(await collect(host, engine_request("Hello", max_tokens=8)))
    await host.close()


def test_every_part_of_a_split_model_may_be_read(tmp_path: Path) -> None:
    parts = [tmp_path / f"big-q4-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for path in (*parts, tmp_path / "other.gguf"):
        path.touch()
    files = files_of(EngineSpec(engine="llama", path=str(parts[0]), draft_path="/models/d.gguf"))
    assert set(files) == {*map(str, parts), "/models/d.gguf"}
