"""B1, I13: the process dies at any moment. What was acknowledged is there, and the books are clean.

``TURNPIKE_LEDGER_KILLS`` sets how often; the release runs it with thousands.
"""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from tests.app.ledger.crash_worker import STOPPED
from tests.app.ledger.nursery import SEED, check, nursery

KILLS = int(os.environ.get("TURNPIKE_LEDGER_KILLS", "60"))
KILLS_PER_FILE = 16


@pytest.mark.timeout(60 + 3 * KILLS)
async def test_kill_dash_nine_loses_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    print(f"TURNPIKE_SEED={SEED}")
    lost = total = 0
    with nursery() as workers:
        for round_number in range(KILLS):
            path = tmp_path / f"ledger{round_number // KILLS_PER_FILE}.db"
            pid = workers.fork("serve", chance.randrange(2**32), path)
            workers.ready()
            await asyncio.sleep(chance.uniform(0.0, 0.06))
            os.kill(pid, signal.SIGKILL)
            assert workers.end() == -signal.SIGKILL
            # Mostly the next worker finds what the dead one left; then we look.
            last = (round_number + 1) % KILLS_PER_FILE == 0 or round_number == KILLS - 1
            if last:
                lost += await check(path, workers.acknowledged)
                total += len(workers.acknowledged)
                workers.acknowledged.clear()
    assert total > KILLS
    assert lost > 0, "the kills never hit an open hold: they prove nothing"


@pytest.mark.timeout(60)
async def test_a_full_disk_stops_the_ledger_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with nursery() as workers:
        workers.fork("fill", SEED, path)
        assert workers.end() == STOPPED
        assert len(workers.acknowledged) > 50
        await check(path, workers.acknowledged)
