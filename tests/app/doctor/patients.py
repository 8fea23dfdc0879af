"""Data directories as real ones are, and what the doctor finds in them."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from app.clock import SystemClock
from app.config import Config
from app.doctor.examination import Patient, examine
from app.doctor.finding import Finding, Severity
from app.storage.database import DATABASE_NAME
from tests.app.ledger.books import HandClock, hold, opened, used

FAKE = """
[server]
port = 0
[[local.models]]
id = "acme/tiny"
source = "fake:"
"""


def made(data_dir: Path, text: str = FAKE) -> Path:
    """Make a data directory with books in it, and its file beside it; the file's path."""
    file = data_dir.parent / "config.toml"
    file.write_text(text)
    file.chmod(0o600)

    async def make() -> None:
        clock = HandClock(SystemClock().now_ms())
        async with opened(data_dir / DATABASE_NAME, clock) as books:
            for _ in range(3):
                call = hold(1000, admitted_at_ms=clock.ms)
                await books.ledger.place_hold(call)
                await books.ledger.settle_hold(call.call_id, 900, used(call.call_id))

    asyncio.run(make())
    return file


def wrong(findings: Sequence[Finding]) -> set[str]:
    """The codes of what is a problem, or a warning that this machine did not come with."""
    return {
        each.code
        for each in findings
        if each.severity is not Severity.OK and each.code != "clock.unsynchronised"
    }


def problems(findings: Sequence[Finding]) -> set[str]:
    """The codes of the problems."""
    return {each.code for each in findings if each.severity is Severity.PROBLEM}


def seen(file: Path | None, data_dir: Path, *, deep: bool = False) -> set[str]:
    """What a whole examination finds wrong, asking nobody."""
    patient = Patient(file=file, data_dir=str(data_dir), offline=True, deep=deep)
    return wrong(examine(patient))


def spoil(data_dir: Path, *statements: str) -> None:
    """Change the database behind everybody's back."""
    connection = sqlite3.connect(data_dir / DATABASE_NAME)
    try:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in triggers.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def at(config: Config, data_dir: Path) -> Config:
    """The same with another data directory."""
    server = msgspec.structs.replace(config.server, data_dir=str(data_dir))
    return msgspec.structs.replace(config, server=server)
