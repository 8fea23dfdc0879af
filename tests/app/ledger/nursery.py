"""The test's side of ``crash_worker``: starts workers, takes in what they acknowledge."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.app.ledger.books import HandStandings, opened
from tests.app.ledger.crash_worker import TERMS

ROOT = Path(__file__).parents[3]
SEED = int(os.environ.get("TURNPIKE_SEED", "20261103"))


class Nursery:
    """Forks workers, one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.acknowledged: dict[str, int] = {}
        self._ready = False

    def fork(self, work: str, seed: int, path: Path) -> int:
        """A worker that may not have begun yet: its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{work} {seed} {path}\n")
        self._process.stdin.flush()
        self._ready = False
        while True:
            kind, *rest = self._line()
            if kind == "pid":
                return int(rest[0])

    def end(self) -> int:
        """Take in what the worker acknowledged, up to its end: its exit status."""
        while True:
            kind, *rest = self._line()
            if kind == "died":
                return int(rest[0])

    def ready(self) -> None:
        """Wait until the worker has the ledger open."""
        while not self._ready:
            assert self._line()[0] != "died"

    def _line(self) -> list[str]:
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        assert words, "the nursery itself has died"
        self._ready = self._ready or words[0] == "ready"
        if words[0] == "ack":
            self.acknowledged[words[1]] = int(words[2])
        return words


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Ends with the block; a worker that is still alive then ends with its parent's pipes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.app.ledger.crash_worker"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Nursery(process)


async def check(path: Path, expected: dict[str, int]) -> int:
    """No acknowledged settlement lost or changed, the audit clean, no open hold after recovery.

    How many holds the dead processes had left, whoever of those that followed found them.
    """
    async with opened(path, standings=HandStandings(TERMS)) as books:
        await books.ledger.recover()
        await books.ledger.give_up_expired(2**53)
        assert books.ledger.open_holds() == 0
        on_disk = dict(await books.rows("SELECT call_id, cost_nano_usd FROM settlements"))
        assert {call: on_disk.get(call) for call in expected} == expected
        found = await books.audit()
        assert found.problems == [], found.problems
        assert found.open_holds == 0
        rows = await books.rows("SELECT count(*) FROM settlements WHERE state = 'gave_up'")
        lost: int = rows[0][0]
        return lost
