"""B1, I13: the process dies at any moment. What was acknowledged is there, and the books are clean.

``TURNPIKE_LEDGER_KILLS`` sets how often; the release runs it with thousands.
"""

import asyncio
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.app.ledger import crash_worker
from tests.app.ledger.books import opened

KILLS = int(os.environ.get("TURNPIKE_LEDGER_KILLS", "60"))
SEED = int(os.environ.get("TURNPIKE_SEED", "20261103"))

Work = Callable[[str, Connection, int], None]


def start(work: Work, path: Path, seed: int) -> tuple[BaseProcess, Connection]:
    """A worker, and the pipe that it acknowledges on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.app.ledger.crash_worker"])
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(str(path), writer, seed))
    process.start()
    writer.close()
    return process, reader


def acknowledged(reader: Connection) -> dict[str, int]:
    """All whole lines that came before the end, as call id → cost."""
    data = b""
    while chunk := os.read(reader.fileno(), 65_536):
        data += chunk
    reader.close()
    lines = data.split(b"\n")[:-1]
    pairs = (line.split() for line in lines if line != b"ready")
    return {pair[0].decode(): int(pair[1]) for pair in pairs}


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
    expected: dict[str, int] = {}
    lost = 0
    for round_number in range(KILLS):
        process, reader = start(crash_worker.serve_until_killed, path, chance.randrange(2**32))
        assert os.read(reader.fileno(), 6) == b"ready\n"
        await asyncio.sleep(chance.uniform(0.0, 0.06))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        process.close()
        expected |= acknowledged(reader)
        # Mostly the next worker itself finds what the dead one left; every now and then we look.
        if round_number % 5 == 4 or round_number == KILLS - 1:
            lost += await check(path, expected)
    assert len(expected) > KILLS
    assert lost > 0, "the kills never hit an open hold: they prove nothing"


@pytest.mark.timeout(60)
async def test_a_full_disk_stops_the_ledger_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    process, reader = start(crash_worker.serve_until_the_disk_is_full, path, SEED)
    expected = acknowledged(reader)
    process.join()
    assert process.exitcode == 0
    process.close()
    assert len(expected) > 50
    await check(path, expected)
