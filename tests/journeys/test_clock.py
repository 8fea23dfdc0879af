"""A real server whose machine's clock jumps (I8): calls go on, months and give-ups do not move.

The clock is played by libfaketime (Debian: ``apt-get install faketime``); monotonic time is real.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider

LIBRARIES = [
    Path(folder) / "faketime" / "libfaketimeMT.so.1"
    for folder in (
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
        "/usr/lib64",
    )
]
LIBRARY = next((path for path in LIBRARIES if path.exists()), None)
pytestmark = pytest.mark.skipif(
    LIBRARY is None, reason="libfaketime is not installed: apt-get install faketime"
)
DAY = timedelta(days=1)


class Machine:
    """A data directory on a machine whose clock is set by hand."""

    def __init__(self, path: Path) -> None:
        self.data_dir = path / "data"
        self._offset = path / "offset"
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
        }
        now = datetime.now(UTC)
        self.tenth = now.replace(day=10, hour=12) - now  # so that no month ends during a test
        self.set(timedelta())

    def month(self, offset: timedelta = timedelta()) -> str:
        """The UTC month that a clock at this offset shows."""
        return (datetime.now(UTC) + self.tenth + offset).strftime("%Y-%m")

    def set(self, offset: timedelta) -> None:
        """Put the clock so far ahead of the 10th; a name at once, never half a file."""
        seconds = int((self.tenth + offset).total_seconds())
        written = self._offset.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        written.replace(self._offset)

    def log(self) -> str:
        return (self.data_dir / "serve.log").read_text()

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        uri = f"{(self.data_dir / 'turnpike.db').as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def grants(self) -> list[str]:
        """Months for which credit was given, by entry."""
        rows = self.ask("SELECT period FROM entries WHERE kind = 'grant' ORDER BY seq")
        return [row[0] for row in rows]

    def months_of_calls(self) -> list[str]:
        rows = self.ask("SELECT period FROM settlements ORDER BY call_id")
        return [row[0] for row in rows]

    def given_up(self) -> int:
        return len(self.ask("SELECT 1 FROM settlements WHERE state = 'gave_up'"))


@pytest.fixture
async def provider() -> AsyncIterator[PlayedProvider]:
    async with PlayedProvider() as found:
        yield found


def called(running: RunningAppliance, key: str) -> None:
    answer = running.chat(key, "acme/tiny", max_tokens=5)
    assert answer.status_code == 200, answer.text


def confirmed(running: RunningAppliance) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.cli("clock", "confirm", "--json"))
    return found


def clock(running: RunningAppliance) -> dict[str, Any]:
    """What ``turnpike clock show`` shows, without its start."""
    token = json.loads((running.data_dir / "server.json").read_text())["token"]
    headers = {"authorization": f"Bearer {token}"}
    url = f"{running.base_url}/api/clock"
    found: dict[str, Any] = httpx.get(url, headers=headers, trust_env=False).json()
    return found


async def test_a_clock_that_jumps_moves_no_money(tmp_path: Path, provider: PlayedProvider) -> None:
    machine = Machine(tmp_path)
    config = MOCK_PROVIDER.format(base_url=provider.base_url)
    began, later = machine.month(), machine.month(40 * DAY)
    assert began < later

    def story() -> None:
        with appliance(machine.data_dir, config, machine.env) as running:
            key = running.user("ann")
            called(running, key)
            assert machine.grants() == [began]
            assert not clock(running)["suspended"]
            assert "the machine's clock" not in machine.log()

            machine.set(timedelta(hours=-1))
            called(running, key)
            state = clock(running)
            assert state["suspended"]
            assert abs(state["step_ms"] + 3_600_000) < 2_000
            assert 3_590_000 < state["ledger_ms"] - state["clock_ms"] < 3_610_000
            assert "1 h earlier" in machine.log() or "59 min" in machine.log()
            assert "turnpike clock confirm" in machine.log()

            state = confirmed(running)
            assert not state["suspended"]
            assert state["lead_ms"] > 3_590_000, "it never goes back"

            machine.set(40 * DAY)
            called(running, key)
            state = clock(running)
            assert state["suspended"]
            assert state["ledger_ms"] < state["clock_ms"] - 39 * 86_400_000
            assert machine.log().count("later at a step, while the server ran") == 1
            assert machine.grants() == [began]
            assert machine.months_of_calls() == [began] * 3
            assert machine.given_up() == 0
            assert machine.ask("SELECT 1 FROM entries WHERE kind = 'expiry'") == []

            assert not confirmed(running)["suspended"]
            called(running, key)
            assert machine.grants() == [began, later]
            assert machine.ask("SELECT count(*) FROM entries WHERE kind = 'expiry'") == [(1,)]
            assert running.stop() == 0

        # Off and on again, and the clock is right: forty days behind what the ledger knows.
        machine.set(timedelta())
        with appliance(machine.data_dir, config, machine.env) as running:
            assert "earlier than when the server last ran" in machine.log()
            called(running, key)
            assert clock(running)["suspended"]
            assert machine.grants() == [began, later]
            assert machine.months_of_calls()[-1] == later, "ledger time never goes back"
            assert machine.given_up() == 0

    await asyncio.to_thread(story)


async def test_a_first_start_in_1970_gives_no_credit_of_1970(
    tmp_path: Path, provider: PlayedProvider
) -> None:
    """A machine without a battery for its clock; the time server answers when calls come already.
    Whatever was booked before it did is of no month that a bill could be made for."""
    machine = Machine(tmp_path)
    config = MOCK_PROVIDER.format(base_url=provider.base_url)
    now, begun = machine.month(), datetime(1970, 1, 10, tzinfo=UTC) - datetime.now(UTC)
    machine.set(begun - machine.tenth)

    def story() -> None:
        with appliance(machine.data_dir, config, machine.env) as running:
            assert "earlier than this program was written" in machine.log()
            key = running.user("ann")
            state = clock(running)
            assert state["suspended"]
            assert state["clock_ms"] < 30 * 86_400_000 < state["ledger_ms"]
            told = httpx.get(f"{running.base_url}/metrics", trust_env=False).text
            assert "turnpike_clock_in_doubt 1.0" in told
            assert machine.grants() == []

            machine.set(timedelta())
            assert not confirmed(running)["suspended"]
            called(running, key)
            assert machine.grants() == [now]
            assert machine.months_of_calls() == [now]
            told = httpx.get(f"{running.base_url}/metrics", trust_env=False).text
            assert "turnpike_clock_in_doubt 0.0" in told
            assert running.stop() == 0

    await asyncio.to_thread(story)


async def test_a_call_that_is_on_its_way_outlives_a_jump(
    tmp_path: Path, provider: PlayedProvider
) -> None:
    """Its hold would have expired 39 days ago by the new time."""
    machine = Machine(tmp_path)
    config = MOCK_PROVIDER.format(base_url=provider.base_url)
    provider.script("slow_body")
    with appliance(machine.data_dir, config, machine.env) as running:
        key = await asyncio.to_thread(running.user, "ann")
        call = asyncio.create_task(asyncio.to_thread(called, running, key))
        await provider.wait_until(lambda: provider.books != [])
        machine.set(40 * DAY)
        assert (await asyncio.to_thread(confirmed, running))["suspended"] is False
        await call
        assert machine.given_up() == 0
        assert machine.ask("SELECT state FROM settlements") == [("settled",)]
        assert len(machine.months_of_calls()) == 1
