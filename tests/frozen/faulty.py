"""A binary that serves on loopback with a played provider behind it, and what is asked of both
after a fault: the same of every fault."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.appliance import MOCK_PROVIDER, RunningAppliance
from tests.journeys.ledger_file import LedgerFile
from tests.upstreams.provider import PlayedProvider

FAKE_MODEL = """
[[local.models]]
id = "tiny/fake"
source = "fake:tokens_per_second=20"
engine = "fake"
"""


def config_for(provider: PlayedProvider, more: str = "") -> str:
    """A file for the provider's one model, ``acme/tiny``."""
    return f"{more}\n{MOCK_PROVIDER.format(base_url=provider.base_url)}"


def charged(provider: PlayedProvider) -> int:
    """What the provider's books say, in nano-USD: of answers that it sent to their end."""
    finished = [booked for booked in provider.books if booked.finished]
    return sum(200 * each.prompt_tokens + 600 * each.completion_tokens for each in finished)


def spent(running: RunningAppliance) -> int:
    """What the ledger says that all calls cost."""
    return sum(row.cost for row in LedgerFile(running.data_dir).calls().values())


def books_agree(running: RunningAppliance, provider: PlayedProvider) -> None:
    """The binary's own audit finds nothing, each call ended once, and both say the same sum."""
    audit = json.loads(running.cli("ledger", "audit", "--json"))
    assert audit["problems"] == []
    LedgerFile(running.data_dir).check()
    assert spent(running) == charged(provider)


def ask(running: RunningAppliance, path: str) -> httpx.Response:
    """A GET without a key."""
    return httpx.get(f"{running.base_url}{path}", timeout=20, trust_env=False)


async def readiness(running: RunningAppliance, status: int, seconds: float = 40.0) -> Any:
    """Wait until ``/readyz`` answers with the status; its body."""
    async with asyncio.timeout(seconds):
        while True:
            answer = await asyncio.to_thread(ask, running, "/readyz")
            if answer.status_code == status:
                return answer.json()
            await asyncio.sleep(0.1)


def children(pid: int) -> list[int]:
    """Processes that this one has started and that live."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def alive(pid: int) -> bool:
    """Whether a process is there; one that ended and was not looked after yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def all_end(pids: list[int], seconds: float = 10.0) -> None:
    """Wait until none of them lives."""
    async with asyncio.timeout(seconds):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110  (other processes)
            await asyncio.sleep(0.05)


def run(program: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A command to its end; what it said is on one line, as a person would read it."""
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **env},
    )
    done.stderr = " ".join(done.stderr.split())
    return done


@asynccontextmanager
async def injected(
    pid: int, syscalls: str, error: str, *, when: str, path: Path
) -> AsyncIterator[None]:
    """Within: system calls on this file fail, as strace's ``when`` says (``2`` the second, ``1+``
    all of them)."""
    process = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-p", str(pid), "-P", str(path), "-o", os.devnull),
        *("-e", f"trace={syscalls}", "-e", f"inject={syscalls}:error={error}:when={when}"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"attached" not in (line := await process.stderr.readline()):
                assert line, "strace ended"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()
