"""Rows of the fault matrix, at the binary: a database that is damaged, and a clock that jumps."""

import asyncio
import json
import os
import random
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.appliance import RunningAppliance, appliance
from tests.frozen.faulty import books_agree, charged, config_for, run, spent
from tests.journeys.callers import seed_of_run
from tests.journeys.ledger_file import LedgerFile
from tests.journeys.test_clock import DAY, LIBRARY, Machine, called, clock, confirmed
from tests.upstreams.provider import PlayedProvider

PAGE = 4096
CALLS = 12
pytestmark = pytest.mark.slow


def scribble(path: Path, at: int, length: int, chance: random.Random) -> None:
    """Overwrite bytes, as a dying disk does."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(chance.randbytes(length))


def damage(path: Path, how: str, chance: random.Random) -> None:
    """Of a database that nobody has open."""
    pages = path.stat().st_size // PAGE
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        roots = dict(database.execute("SELECT name, rootpage FROM sqlite_master"))
    match how:
        case "header":
            scribble(path, 0, 100, chance)
        case "schema":
            scribble(path, 100, PAGE - 100, chance)
        case "journal":
            scribble(path, (roots["entries"] - 1) * PAGE, PAGE, chance)
        case "half of it":
            os.truncate(path, pages // 2 * PAGE)
        case "pages":
            for name in ("settlements", "usage", "wallets", "holds"):
                scribble(path, (roots[name] - 1) * PAGE, 512, chance)


async def served(running: RunningAppliance, key: str) -> None:
    for _ in range(CALLS):
        answer = await asyncio.to_thread(running.chat, key, "acme/tiny")
        assert answer.status_code == 200


async def begun(running: RunningAppliance) -> str:
    """The key of a user who has made some calls."""
    key = await asyncio.to_thread(running.user, "ann", "pro")
    await served(running, key)
    return key


@pytest.mark.parametrize("how", ["header", "schema", "journal", "half of it", "pages"])
async def test_a_damaged_database_is_refused_with_the_command_that_restores_it(
    folder: Path, tmp_path: Path, how: str
) -> None:
    chance = seed_of_run()
    program, data_dir = folder / "turnpike", tmp_path / "data"
    async with PlayedProvider() as provider:
        config = config_for(provider)
        with appliance(data_dir, config, program=program) as running:
            key = await begun(running)
            running.cli("backup", str(tmp_path / "books.tar"))
            assert running.stop() == 0
        database = data_dir / "turnpike.db"
        damage(database, how, chance)
        spoilt = database.read_bytes()
        refused = run(program, "--data-dir", str(running.data_dir), "serve")
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr
        assert database.read_bytes() == spoilt, "nothing was repaired in silence"
        found = re.search(r"turnpike --data-dir \S+ restore \S+\.tar", refused.stderr)
        assert found, refused.stderr
        # As a person would give it, with the program on the PATH.
        restored = run(Path("sh"), "-c", found[0], PATH=f"{folder}:{os.environ['PATH']}")
        assert restored.returncode == 0, restored.stderr
        with appliance(data_dir, config, program=program) as running:
            await served(running, key)
            assert len(provider.books) == 2 * CALLS
            books_agree(running, provider)
            assert running.stop() == 0
        (aside,) = data_dir.glob("before-restore-*")
        assert (aside / "turnpike.db").read_bytes() == spoilt


async def test_damage_while_it_runs_is_found_by_an_audit_and_the_next_start(
    folder: Path, tmp_path: Path
) -> None:
    program = folder / "turnpike"
    async with PlayedProvider() as provider:
        config = config_for(provider)
        with appliance(tmp_path / "data", config, program=program) as running:
            await begun(running)
            with closing(sqlite3.connect(running.data_dir / "turnpike.db", timeout=20)) as database:
                database.execute("DROP TRIGGER entries_no_update")
                database.execute("UPDATE entries SET amount_nano_usd = amount_nano_usd + 4")
                database.commit()
            audit = run(program, "--data-dir", str(running.data_dir), "ledger", "audit", "--json")
            assert audit.returncode == 1
            assert "does not match its hash" in " ".join(json.loads(audit.stdout)["problems"])
            await asyncio.to_thread(running.stop)
        refused = run(program, "--data-dir", str(running.data_dir), "serve")
        assert refused.returncode == 1
        assert "does not match its hash" in refused.stderr
        assert "restore" in refused.stderr


async def test_a_torn_end_of_the_log_is_what_a_power_cut_leaves(
    folder: Path, tmp_path: Path
) -> None:
    """The last frame of a killed server's write-ahead log came to the disk in part only: its
    transaction was never acknowledged, and all before it counts."""
    chance = seed_of_run()
    program, data_dir = folder / "turnpike", tmp_path / "data"
    async with PlayedProvider() as provider:
        config = config_for(provider)
        with appliance(data_dir, config, program=program) as running:
            key = await begun(running)
            ledger = LedgerFile(data_dir)
            acknowledged, cost = set(ledger.calls()), spent(running)
            running.kill()
        wal = data_dir / "turnpike.db-wal"
        with wal.open("ab") as file:
            file.write(chance.randbytes(3 * PAGE + 100))
        with appliance(data_dir, config, program=program) as running:
            assert set(ledger.calls()) == acknowledged
            assert spent(running) == cost == charged(provider)
            await served(running, key)
            books_agree(running, provider)
            assert running.stop() == 0


async def test_a_log_with_a_bad_frame_in_its_middle_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    """SQLite would go on without what stands behind it: settlements that were acknowledged."""
    chance = seed_of_run()
    program, data_dir = folder / "turnpike", tmp_path / "data"
    async with PlayedProvider() as provider:
        config = config_for(provider)
        with appliance(data_dir, config, program=program) as running:
            await begun(running)
            running.kill()
        wal = data_dir / "turnpike.db-wal"
        scribble(wal, wal.stat().st_size * 3 // 4, 64, chance)
        spoilt = wal.read_bytes()
        for _ in range(2):
            refused = run(program, "--data-dir", str(data_dir), "serve")
            assert refused.returncode == 1
            assert "write-ahead log is damaged" in refused.stderr
            assert "Restore a backup: turnpike --data-dir" in refused.stderr
            assert wal.read_bytes() == spoilt, "nothing was repaired in silence"


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
async def test_a_clock_that_jumps_moves_no_money(folder: Path, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    began, later = machine.month(), machine.month(40 * DAY)
    async with PlayedProvider() as provider:
        config = config_for(provider)

        def story() -> None:
            program = folder / "turnpike"
            with appliance(machine.data_dir, config, machine.env, program=program) as running:
                key = running.user("ann")
                called(running, key)
                before = clock(running)["ledger_ms"]
                machine.set(timedelta(hours=-3))
                called(running, key)
                state = clock(running)
                assert state["suspended"]
                assert state["ledger_ms"] >= before, "ledger time never goes back"
                assert not confirmed(running)["suspended"]
                for years in (3, 1):
                    machine.set(365 * years * DAY)
                    called(running, key)
                    assert clock(running)["suspended"]
                assert machine.grants() == [began], "no month begins by a clock in doubt"
                machine.set(40 * DAY)
                assert not confirmed(running)["suspended"]
                called(running, key)
                assert machine.grants() == [began, later]
                assert machine.given_up() == 0
                books_agree(running, provider)
                assert running.stop() == 0
            machine.set(timedelta())
            with appliance(machine.data_dir, config, machine.env, program=program) as running:
                called(running, key)
                assert clock(running)["suspended"]
                assert machine.months_of_calls()[-1] == later
                assert machine.grants() == [began, later]
                books_agree(running, provider)

        await asyncio.to_thread(story)
