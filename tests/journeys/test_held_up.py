"""Promise: a server whose event loop is held up says by what, in its log and its metrics; whoever
watches it from outside sees it, since /livez and systemd's watchdog get no answer meanwhile.
"""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.appliance import RunningAppliance, appliance
from tests.journeys.test_drop_in_plugin import ENV, config, put
from tests.plugins.acme import SOURCE, PlayedAcme

HELD_UP_S = 4.0
FIRST = "        by = asyncio.get_running_loop().time() + call.deadline_s\n"
# A plugin that does its work where all calls wait for it.
BROODING = (
    SOURCE.replace(FIRST, f"        brood()\n{FIRST}")
    + f"\n\ndef brood() -> None:\n    import time\n\n    time.sleep({HELD_UP_S})\n"
)


def metric(running: RunningAppliance, name: str) -> float:
    text = httpx.get(f"{running.base_url}/metrics", trust_env=False, timeout=10).text
    found = re.search(rf"^turnpike_{name} (.*)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


class Systemd:
    """Counts what the watchdog hears."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}

    def heard(self, seconds: float) -> int:
        """Signs of life within so many seconds."""
        until, count = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                count += b"WATCHDOG=1" in self.socket.recv(4096)
            except TimeoutError:
                break
        return count


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    found = Systemd(tmp_path / "notify")
    yield found
    found.socket.close()


async def test_a_loop_that_is_held_up_is_seen_from_outside_and_named_inside(
    tmp_path: Path, systemd: Systemd
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    folder.chmod(0o755)
    assert BROODING.count("brood()") == 2
    allowed = put(folder, "acme.py", BROODING)
    async with PlayedAcme() as played:
        text = config(folder, played.origin, allowed)
        with appliance(tmp_path / "data", text, ENV | systemd.env) as running:
            key = await asyncio.to_thread(running.key)
            assert metric(running, "event_loop_stalls_total") == 0
            assert await asyncio.to_thread(systemd.heard, 2.0) >= 2
            call = asyncio.create_task(asyncio.to_thread(running.chat, key, "acme/acme", "hello"))
            await asyncio.sleep(1.0)
            while await asyncio.to_thread(systemd.heard, 0.05):
                pass
            assert await asyncio.to_thread(systemd.heard, 1.5) == 0, "it would be started anew"
            silent = False
            try:
                async with httpx.AsyncClient(trust_env=False, timeout=0.5) as client:
                    await client.get(f"{running.base_url}/livez")
            except httpx.TimeoutException:
                silent = True
            assert silent, "/livez is answered by the loop itself"
            assert (await call).status_code == 200
            assert metric(running, "event_loop_stalls_total") == 1
            assert (await asyncio.to_thread(systemd.heard, 2.0)) >= 2
            assert running.stop() == 0
    log = (tmp_path / "data" / "serve.log").read_text()
    (line,) = [each for each in log.splitlines() if "has been held up for 1 s" in each]
    assert re.search(r"acme\.py:\d+ brood$", line.rstrip())
    assert "turns again, after" in log
