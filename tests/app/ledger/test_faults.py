"""B3, D11: the n-th write to the disk fails, or is the last thing the process does.

For n = 1, 2, … until a run meets no fault any more: what was acknowledged is on disk, the books add
up, and the file can be worked with. A fault happens once, or from then on; the ledger stops either
way and answers nothing more. ``TURNPIKE_FAULTS_STRIDE=1`` tries every n; otherwise one in a few.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.ledger.books import HandStandings, opened
from tests.app.ledger.crash_worker import DONE, NOT_OPENED, STOPPED, TERMS
from tests.app.ledger.nursery import SEED, Nursery, check, nursery

STRIDE = int(os.environ.get("TURNPIKE_FAULTS_STRIDE", "0"))
STRACE = shutil.which("strace")
# What is injected at the n-th call, how often, and the stride where the environment has none.
FAULTS = {
    "sync fails once": ("fdatasync:error=EIO:when={n}", 1),
    "sync fails from then on": ("fdatasync:error=EIO:when={n}+", 2),
    "killed at a sync": ("fdatasync:signal=SIGKILL:when={n}", 1),
    "write fails once": ("pwrite64:error=EIO:when={n}", 19),
    "write fails from then on": ("pwrite64:error=EIO:when={n}+", 29),
    "disk full once": ("pwrite64:error=ENOSPC:when={n}", 23),
    "disk full from then on": ("pwrite64:error=ENOSPC:when={n}+", 29),
    "killed at a write": ("pwrite64:signal=SIGKILL:when={n}", 17),
}
RUNS_MAX = 5_000


def _cannot_trace() -> str | None:
    if sys.platform != "linux" or STRACE is None:
        return "needs strace, which puts faults at system calls (Linux)"
    done = subprocess.run(
        [STRACE, "-qq", "-e", "inject=fdatasync:error=EIO", "true"],
        capture_output=True,
        check=False,
    )
    return None if done.returncode == 0 else "strace may not trace processes here"


_REASON = _cannot_trace()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))


@pytest.fixture(scope="module")
def workers() -> Iterator[Nursery]:
    with nursery() as found:
        yield found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that exists: its migrations are not what is put to the test."""
    path = tmp_path_factory.mktemp("faults") / "ledger.db"

    async def make() -> None:
        async with opened(path, standings=HandStandings(TERMS)):
            pass

    asyncio.run(make())
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_nth_write_fails(fault: str, workers: Nursery, template: Path, tmp_path: Path) -> None:
    inject, stride = FAULTS[fault]
    chance = random.Random(f"{SEED} {fault}")
    print(f"TURNPIKE_SEED={SEED}")
    stride = STRIDE or stride
    stopped = 0
    for n in range(chance.randint(1, stride), RUNS_MAX, stride):
        path = tmp_path / f"ledger{n}.db"
        shutil.copy(template, path)
        workers.acknowledged.clear()
        status, met = traced(workers, path, n, inject.format(n=n), tmp_path / "trace")
        assert status in (DONE, STOPPED, NOT_OPENED, -signal.SIGKILL), f"n={n}: exit {status}"
        asyncio.run(check(path, workers.acknowledged))
        if not met:
            assert status == DONE
            break
        stopped += status != DONE
        path.unlink()
    else:
        pytest.fail("no run was ever without a fault")
    assert stopped > 0, "no fault ever stopped the ledger: they prove nothing"


def traced(workers: Nursery, path: Path, seed: int, inject: str, log: Path) -> tuple[int, bool]:
    """Run the script with a fault; its exit status, and whether it met the fault."""
    assert STRACE is not None
    call = inject.partition(":")[0]
    pid = workers.fork("script", seed, path)
    command = [STRACE, "-f", "-qq", "-o", str(log), "-p", str(pid)]
    strace = subprocess.Popen([*command, "-e", f"trace={call}", "-e", f"inject={inject}"])
    try:
        while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
            assert strace.poll() is None, "strace could not attach"
            time.sleep(0.001)
        os.kill(pid, signal.SIGUSR1)
        status = workers.end()
    finally:
        strace.wait(30)
    text = log.read_text()
    return status, "(INJECTED)" in text or status == -signal.SIGKILL
