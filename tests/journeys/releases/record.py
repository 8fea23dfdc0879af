"""Records the data directory of an earlier release: a program of that time fills it, by its own
commands and over HTTP, in two months of 2025, and is killed with a call open.

    python -m tests.journeys.releases.record TREE tests/journeys/releases/schema-09

``TREE`` is a checkout of that release (``git archive``) that runs in this environment (what it
needs besides can stand in ``PYTHONPATH``); libfaketime must be installed. It writes two files:
``turnpike.sql`` is the database as text, and ``release.json`` has what that program said of it, a
key, and the other files, byte for byte.
"""

import argparse
import asyncio
import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.appliance import MOCK_PROVIDER
from tests.upstreams.provider import PlayedProvider

# Each start has its own: one that began before the last had ended would be in doubt of its clock.
JANUARY = "@2025-01-20 10:00:00"
FEBRUARY = ("@2025-02-10 10:00:00", "@2025-02-10 10:30:00", "@2025-02-10 11:00:00")
AFTER = "@2025-02-10 11:30:00"
MASTER_KEY = "bWFzdGVyIGtleSBvZiBhIGZpeHR1cmUgb25seSwgMzI="
# What no command does at once: sums up the month, and moves the days before into files.
SEAL = """
import asyncio, sys
from pathlib import Path
from app.clock import SystemClock
from app.ledger.time import LedgerClock, keep_mark, open_clock
from app.metering.closing import close_months
from app.metering.segments import Segments
from app.storage.sqlite import SqliteDatabase

async def main():
    folder, clock = Path(sys.argv[1]), LedgerClock(SystemClock())
    database = SqliteDatabase(folder / "turnpike.db", clock)
    await database.open()
    await open_clock(clock, database)
    await keep_mark(clock, database)
    await close_months(database, clock)
    await Segments(folder, database, clock).seal()
    await database.close()

asyncio.run(main())
"""
KEPT = ("usage/*", "master*", "secrets/*", "*.key")


class Release:
    """A program of an earlier time, its data directory and its clock."""

    def __init__(self, tree: Path, data_dir: Path, config: str) -> None:
        self.tree, self.data_dir = tree, data_dir
        data_dir.mkdir(mode=0o700)
        self.config = data_dir / "config.toml"
        self.config.write_text(config)
        self.at = JANUARY
        self.base_url = ""

    def _command(self, *args: str) -> list[str]:
        return [sys.executable, *args]

    @property
    def _env(self) -> dict[str, str]:
        faked = {
            "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))),
            "FAKETIME": self.at,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        path = os.pathsep.join([str(self.tree), os.environ.get("PYTHONPATH", "")])
        return {**os.environ, **faked, "PYTHONPATH": path}

    def cli(self, *args: str, stdin: str = "", fails: bool = False) -> str:
        where = ("--config", str(self.config), "--data-dir", str(self.data_dir))
        return self.python("-m", "app", *where, *args, stdin=stdin, fails=fails)

    def python(self, *args: str, stdin: str = "", fails: bool = False) -> str:
        command = self._command(*args)
        done = subprocess.run(
            command, cwd=self.tree, env=self._env, input=stdin, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        if done.returncode and not fails:
            raise SystemExit(f"{' '.join(args)}: {done.stderr}")
        return done.stdout

    def has(self, *command: str) -> bool:
        """Whether this release knows a command."""
        return bool(self.cli(*command, "--help", fails=True))

    @contextmanager
    def serving(self, *, killed: bool = False) -> Iterator[None]:
        where = ("--config", str(self.config), "--data-dir", str(self.data_dir))
        log = (self.data_dir / "serve.log").open("a")
        process = subprocess.Popen(
            self._command("-m", "app", *where, "serve"),
            cwd=self.tree, env=self._env, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            found = self.data_dir / "server.json"
            for _ in range(600):
                if process.poll() is not None:
                    raise SystemExit((self.data_dir / "serve.log").read_text())
                with suppress(OSError, ValueError, httpx.TransportError):
                    said = json.loads(found.read_text())
                    if said["pid"] == process.pid:
                        self.base_url = said["base_url"]
                        httpx.get(f"{self.base_url}/livez", trust_env=False)
                        break
                time.sleep(0.1)
            else:
                raise SystemExit((self.data_dir / "serve.log").read_text())
            yield
        except BaseException:
            sys.stderr.write((self.data_dir / "serve.log").read_text())
            raise
        finally:
            process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
            process.wait(60)
            log.close()

    def chat(self, key: str, text: str = "Hello there", **extra: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        for name in ("bill_to", "idempotency"):
            value = extra.pop(name, None)
            if value:
                headers[{"bill_to": "X-HF-Bill-To"}.get(name, "Idempotency-Key")] = value
        body = {"model": "acme/tiny", "messages": [{"role": "user", "content": text}], **extra}
        timeout = extra.pop("timeout", 60)
        body.pop("timeout", None)
        return httpx.post(
            f"{self.base_url}/v1/chat/completions",
            json=body, headers=headers, timeout=timeout, trust_env=False,
        )  # fmt: skip


def january(release: Release, provider: PlayedProvider) -> str:
    """People, an org, money, and calls; ann's key."""
    with release.serving():
        release.cli("users", "add", "ann", "--tier", "pro")
        release.cli("users", "add", "ben", "--tier", "free")
        ann = release.cli("keys", "create", "--user", "ann").strip()
        ben = release.cli("keys", "create", "--user", "ben").strip()
        release.cli("orgs", "add", "acme", "--tier", "team", "--admin", "ann")
        release.cli("orgs", "members", "add", "acme", "ben")
        release.cli("orgs", "groups", "add", "acme", "research")
        release.cli("orgs", "groups", "add-member", "acme", "research", "ben")
        release.cli("limits", "set", "payer", "acme", "25.00")
        release.cli("limits", "set", "member", "acme/ben", "5.00")
        release.cli("credit", "give", "ann", "25.00", "--reference", "order-17")
        release.cli("adjust", "ann", "-1.00", "--reason", "typed wrong")
        if release.has("provider-keys"):
            release.cli("provider-keys", "set", "mock", "--user", "ben", stdin="sk-of-bens-own-1\n")
        if release.has("confine"):
            release.cli("preferred", "set", "ann", "mock")
            release.cli("confine", "--user", "ann", "mock", fails=True)
        for _ in range(3):
            assert release.chat(ann).status_code == 200
        assert release.chat(ann, bill_to="acme").status_code == 200
        assert release.chat(ben, "two words", stream=True).status_code == 200
        assert release.chat(ann, idempotency="report-17").status_code == 200
        provider.script("server_error")
        assert release.chat(ann).status_code == 502
        release.cli("orgs", "switch-off", "acme", "model", "acme/tiny", "--reason", "no contract")
        revoked = json.loads(release.cli("keys", "create", "--user", "ben", "--json"))
        release.cli("keys", "revoke", revoked["id"], fails=True)
    return ann


def february(release: Release, provider: PlayedProvider, key: str) -> None:
    """The month before is closed and filed; more calls; the last one never ends."""
    release.at = FEBRUARY[0]
    with release.serving():
        time.sleep(2)  # months are caught up at the start
        release.cli("invoices", "close")
    release.at = FEBRUARY[1]
    release.python("-c", SEAL, str(release.data_dir))
    release.at = FEBRUARY[2]
    with release.serving(killed=True):
        assert release.chat(key).status_code == 200
        provider.script("hang")
        with suppress(httpx.TimeoutException):
            release.chat(key, timeout=2)


def write(release: Release, folder: Path, key: str) -> None:
    """What there is now, as text; then what the release says of it, when it has cleared up."""
    with closing(sqlite3.connect(release.data_dir / "turnpike.db")) as database:
        text = "\n".join(database.iterdump()) + "\n"
    release.at = AFTER
    said = {
        "version": release.cli("--version").split()[-1],
        "key": key,
        "user": "ann",
        "usage": json.loads(release.cli("usage", "--by", "user", "--json")),
        "audit": json.loads(release.cli("ledger", "audit", "--json")),
        "files": {
            path.relative_to(release.data_dir).as_posix(): base64.b64encode(
                zlib.compress(path.read_bytes(), 9)
            ).decode()
            for pattern in KEPT
            for path in sorted(release.data_dir.glob(pattern))
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "turnpike.sql").write_text(text)
    (folder / "release.json").write_text(json.dumps(said, indent=1) + "\n")
    for path in folder.iterdir():
        print(path, path.stat().st_size)


async def record(tree: Path, folder: Path) -> None:
    """Let the release live, and write down what it leaves."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        async with PlayedProvider() as provider:
            config = "[server]\nport = 0\n" + MOCK_PROVIDER.format(base_url=provider.base_url)
            release = await asyncio.to_thread(Release, tree, Path(place) / "data", config)
            key = await asyncio.to_thread(january, release, provider)
            await asyncio.to_thread(february, release, provider, key)
            await asyncio.to_thread(write, release, folder, key)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    asyncio.run(record(asked.tree.absolute(), asked.folder.absolute()))
