"""What a bench needs of the machine: its tools, its cores, free ports."""

import os
import platform
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

TOOLS = {"nginx": "nginx-light", "wrk": "wrk"}


class ToolMissing(Exception):
    """A program that the bench runs is not installed; the message says how to install it."""


def find_tools() -> dict[str, str]:
    """Paths of nginx and wrk. Raises ToolMissing."""
    # Debian puts nginx where only root's PATH looks.
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    found = {name: shutil.which(name, path=path) for name in TOOLS}
    missing = [TOOLS[name] for name, where in found.items() if where is None]
    if missing:
        raise ToolMissing(
            f"not installed: {' '.join(missing)}. On Debian and Ubuntu: "
            f"sudo apt-get install {' '.join(missing)}"
        )
    return {name: where for name, where in found.items() if where is not None}


def two_cores() -> tuple[set[int], set[int]]:
    """One core for the server, another for load and upstream; the same one where there is one."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, {cores[1] if len(cores) > 1 else cores[0]}


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Processes started inside are pinned to ``cores``, with all the threads they make."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def describe() -> dict[str, object]:
    """The machine, as far as figures depend on it."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        model = names[0] if names else model
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_1_min": round(os.getloadavg()[0], 2),
    }
