"""B1, I13: the process dies at any moment. What was acknowledged is there, and the books are clean.

``TURNPIKE_LEDGER_KILLS`` sets how often; the release runs it with thousands.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.app.ledger.books import opened

KILLS = int(os.environ.get("TURNPIKE_LEDGER_KILLS", "60"))
SEED = int(os.environ.get("TURNPIKE_SEED", "20261103"))
ROOT = Path(__file__).parents[3]


class Nursery:
    """Forks workers on one ledger file; see ``crash_worker``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.acknowledged: dict[str, int] = {}

    def start(self, work: str, seed: int) -> int:
        """A worker that is ready: its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{work} {seed}\n")
        self._process.stdin.flush()
        pid, ready = 0, False
        while not (pid and ready):
            kind, *rest = self._line()
            assert kind in ("pid", "ready", "ack"), kind
            pid = int(rest[0]) if kind == "pid" else pid
            ready = ready or kind == "ready"
        return pid

    def end(self) -> int:
        """Take in what the worker acknowledged, up to its end: its exit status."""
        while True:
            kind, *rest = self._line()
            if kind == "died":
                return int(rest[0])

    def _line(self) -> list[str]:
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        assert words, "the nursery itself has died"
        if words[0] == "ack":
            self.acknowledged[words[1]] = int(words[2])
        return words


@contextmanager
def nursery(path: Path) -> Iterator[Nursery]:
    """Ends with the block; a worker that is still alive then is killed by it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.app.ledger.crash_worker", str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Nursery(process)


async def check(path: Path, expected: dict[str, int]) -> int:
    """No acknowledged settlement lost or changed, the audit clean, no open hold after recovery."""
    async with opened(path) as books:
        lost = len(await books.ledger.recover())
        assert books.ledger.open_holds() == 0
        on_disk = dict(await books.rows("SELECT call_id, cost_nano_usd FROM settlements"))
        assert {call: on_disk.get(call) for call in expected} == expected
        found = await books.audit()
        assert (found.problems, found.open_holds) == ([], 0)
        return lost


@pytest.mark.timeout(60 + 3 * KILLS)
async def test_kill_dash_nine_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    chance = random.Random(SEED)
    print(f"TURNPIKE_SEED={SEED}")
    lost = 0
    with nursery(path) as workers:
        for round_number in range(KILLS):
            pid = workers.start("serve", chance.randrange(2**32))
            await asyncio.sleep(chance.uniform(0.0, 0.06))
            os.kill(pid, signal.SIGKILL)
            assert workers.end() == -signal.SIGKILL
            # Mostly the next worker finds what the dead one left; every now and then we look.
            if round_number % 5 == 4 or round_number == KILLS - 1:
                lost += await check(path, workers.acknowledged)
        assert len(workers.acknowledged) > KILLS
    assert lost > 0, "the kills never hit an open hold: they prove nothing"


@pytest.mark.timeout(60)
async def test_a_full_disk_stops_the_ledger_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with nursery(path) as workers:
        workers.start("fill", SEED)
        assert workers.end() == 0
        assert len(workers.acknowledged) > 50
        await check(path, workers.acknowledged)
