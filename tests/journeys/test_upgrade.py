"""Promise: the data directory of an earlier release is upgraded at its first start, once, after a
backup that brings it back; the books add up, keys work, and whatever goes wrong changes nothing.

``tests/journeys/releases/`` has the directories; ``record.py`` there records another one.
"""

import asyncio
import base64
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.storage.migrate import shipped_migrations
from tests.appliance import MOCK_PROVIDER, appliance, cli
from tests.upstreams.provider import PlayedProvider

RELEASES = Path(__file__).parent / "releases"
NAMES = sorted(path.name for path in RELEASES.glob("schema-*"))
OLDER = [name for name in NAMES if int(name[-2:]) < len(shipped_migrations())]


def data_of(name: str, data_dir: Path) -> dict[str, Any]:
    """Put a release's data directory in place; what its program said of it."""
    data_dir.mkdir(mode=0o700)
    said: dict[str, Any] = json.loads((RELEASES / name / "release.json").read_text())
    for path, packed in said["files"].items():
        (data_dir / path).parent.mkdir(mode=0o700, exist_ok=True)
        (data_dir / path).write_bytes(zlib.decompress(base64.b64decode(packed)))
        (data_dir / path).chmod(0o600)
    with closing(sqlite3.connect(data_dir / "turnpike.db")) as database:
        database.executescript((RELEASES / name / "turnpike.sql").read_text())
    return said


def schema_of(data_dir: Path) -> int:
    return int(asked(data_dir, "SELECT max(version) FROM schema_migrations")[0][0])


def asked(data_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(data_dir / "turnpike.db")) as database:
        return database.execute(sql).fetchall()


def backups(folder: Path) -> list[Path]:
    return sorted(folder.glob("turnpike-*-before-upgrade-*.tar"))


def used(lines: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    return {line["label"]: (line["calls"], line["cost_nano_usd"]) for line in lines}


def run(data_dir: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "--data-dir", str(data_dir), *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_there_are_releases_to_upgrade() -> None:
    assert len(NAMES) >= 2
    assert OLDER
    for name in NAMES:
        for path in (RELEASES / name).iterdir():
            assert path.stat().st_size < 60_000, "a fixture is to be read, not unpacked"


@pytest.mark.parametrize("name", NAMES)
async def test_a_release_is_upgraded_once_and_can_be_brought_back(
    name: str, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    said = data_of(name, data_dir)
    calls = used(said["usage"])
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        for start in (1, 2):
            with await asyncio.to_thread(lambda: appliance(data_dir, config)) as running:
                answer = await asyncio.to_thread(running.chat, said["key"], "acme/tiny")
                assert answer.status_code == 200, answer.text
                found = json.loads(
                    await asyncio.to_thread(running.cli, "ledger", "audit", "--json")
                )
                assert found["problems"] == []
                now = used(await asyncio.to_thread(running.usage, "user"))
                assert now["ann"][0] == calls["ann"][0] + start
                assert {who: sums for who, sums in now.items() if who != "ann"} == {
                    who: sums for who, sums in calls.items() if who != "ann"
                }
            assert len(backups(data_dir / "backups")) == (name in OLDER)
    log = (data_dir / "serve.log").read_text()
    assert log.count("Upgrading the database") == (name in OLDER)
    assert schema_of(data_dir) == len(shipped_migrations())
    if name not in OLDER:
        return
    (backup,) = backups(data_dir / "backups")
    assert f"schema-{int(name[-2:])}" in backup.name
    assert backup.stat().st_mode & 0o777 == 0o600
    listed = json.loads(cli(data_dir, "backup", "--list", "--json"))
    assert [(each["kind"], each["path"]) for each in listed] == [("before upgrade", str(backup))]
    shutil.rmtree(data_dir / "usage", ignore_errors=True)
    assert "Restored" in cli(data_dir, "restore", str(backup))
    assert used(json.loads(cli(data_dir, "usage", "--by", "user", "--json"))) == calls
    assert json.loads(cli(data_dir, "ledger", "audit", "--json"))["problems"] == []


@pytest.mark.parametrize("name", OLDER)
def test_a_command_upgrades_too_and_says_so(name: str, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_of(name, data_dir)
    reading = run(data_dir, "ledger", "audit")
    assert reading.returncode == 1
    assert "older Turnpike" in reading.stderr
    assert "Start this version on it once" in reading.stderr
    first = run(data_dir, "users", "list", "--json")
    assert first.returncode == 0, first.stderr
    assert {user["name"] for user in json.loads(first.stdout)} == {"owner", "ann", "ben"}
    assert "Upgrading the database" in first.stderr
    assert len(backups(data_dir / "backups")) == 1
    assert "Upgrading" not in run(data_dir, "users", "list").stderr


@pytest.mark.parametrize("name", OLDER)
def test_without_room_for_the_backup_nothing_changes(name: str, tmp_path: Path) -> None:
    data_dir, file = tmp_path / "data", tmp_path / "file"
    data_of(name, data_dir)
    file.write_text("")
    config = tmp_path / "config.toml"
    config.write_text(f'[backups]\nfolder = "{file}/backups"\n')
    before = (data_dir / "turnpike.db").read_bytes()
    refused = run(data_dir, "--config", str(config), "serve")
    assert refused.returncode == 1
    said = " ".join(refused.stderr.split())
    assert "has not begun" in said
    assert "under [backups]" in said
    assert "Nothing was changed" in said
    assert schema_of(data_dir) == int(name[-2:])
    with closing(sqlite3.connect(tmp_path / "before.db")) as database:
        (tmp_path / "before.db").write_bytes(before)
        old = "\n".join(database.iterdump())
    with closing(sqlite3.connect(data_dir / "turnpike.db")) as database:
        assert "\n".join(database.iterdump()) == old


@pytest.mark.parametrize("name", OLDER)
def test_books_that_do_not_add_up_are_not_upgraded(name: str, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_of(name, data_dir)
    with closing(sqlite3.connect(data_dir / "turnpike.db", isolation_level=None)) as database:
        database.execute("UPDATE wallets SET credit_nano_usd = credit_nano_usd + 7")
    refused = run(data_dir, "serve")
    assert refused.returncode == 1
    assert "does not add up" in " ".join(refused.stderr.split())
    assert schema_of(data_dir) == int(name[-2:])
    assert list((data_dir / "backups").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("name", OLDER)
def test_an_upgrade_that_is_killed_is_finished_by_the_next_start(name: str, tmp_path: Path) -> None:
    """At many moments: the database is as before or as after, and the next start gets there."""
    template = tmp_path / "template"
    data_of(name, template)
    seen: set[int] = set()
    for number, after_s in enumerate((0.0, 0.02, 0.04, 0.06, 0.08, 0.12, 0.2)):
        data_dir = tmp_path / f"data-{number}"
        shutil.copytree(template, data_dir)
        command = [sys.executable, "-m", "app", "--data-dir", str(data_dir), "users", "list"]
        with (tmp_path / "out").open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        folder = data_dir / "backups"
        give_up = time.monotonic() + 30
        while not folder.exists() and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.001)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        seen.add(schema_of(data_dir))
        assert seen <= {int(name[-2:]), len(shipped_migrations())}
        done = run(data_dir, "users", "list")
        assert done.returncode == 0, done.stderr
        assert schema_of(data_dir) == len(shipped_migrations())
        assert json.loads(cli(data_dir, "ledger", "audit", "--json"))["problems"] == []
        assert backups(folder)
    assert int(name[-2:]) in seen


def test_an_older_program_names_the_version_that_is_needed(tmp_path: Path) -> None:
    """Whoever opens the file says the same, and changes nothing."""
    data_dir = tmp_path / "data"
    cli(data_dir, "users", "list")
    with closing(sqlite3.connect(data_dir / "turnpike.db")) as database:
        database.execute("INSERT INTO schema_migrations VALUES (9999, '9999_later.sql', 'x', 0)")
        for version in ("7.1.0", "7.2.5"):
            database.execute(
                "INSERT INTO schema_programs (version, schema, since_ms) VALUES (?, 9999, 0)",
                (version,),
            )
        database.commit()
    before = (data_dir / "turnpike.db").read_bytes()
    for args in (
        ("serve",),
        ("users", "list"),
        ("ledger", "audit"),
        ("ledger", "statement", "owner"),
        ("ledger", "repair"),
        ("backup", str(tmp_path / "b.tar")),
    ):
        refused = run(data_dir, *args)
        said = " ".join(refused.stderr.split())
        assert refused.returncode == 1, args
        assert "needs Turnpike 7.1.0 or newer" in said, args
        assert "last opened by 7.2.5" in said, args
        assert "Traceback" not in said
    assert (data_dir / "turnpike.db").read_bytes() == before
    assert not (tmp_path / "b.tar").exists()
    assert not (data_dir / "backups").exists()
