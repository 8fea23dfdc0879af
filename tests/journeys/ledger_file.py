"""What an appliance's database file says: read beside the running server, by the tests' own SQL."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.ledger.audit import audit_file


@dataclass(frozen=True)
class CallRow:
    """One usage row and how its hold ended. Amounts are nano-USD."""

    call_id: str
    outcome: str
    provider: str
    model: str
    user_id: str
    key_id: str
    payer_id: str
    group_id: str
    cost: int
    estimated: bool
    attempts: int
    input_tokens: int
    output_tokens: int
    state: str
    overrun: int
    lost: int


_CALLS = """
SELECT u.call_id, s.outcome, s.provider, s.model, s.user_id, s.key_id, s.payer_id, s.group_id,
       u.cost_nano_usd, u.estimated, u.attempts, u.input_tokens, u.output_tokens,
       t.state, t.overrun_nano_usd, t.lost_nano_usd
FROM usage u JOIN series s ON s.id = u.series_id JOIN settlements t ON t.call_id = u.call_id
"""


class LedgerFile:
    """The file ``turnpike.db`` of a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "turnpike.db"

    def ask(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        uri = f"{self.path.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=20)) as database:
            return database.execute(sql, params).fetchall()

    def one(self, sql: str, *params: Any) -> Any:
        """The only value of a query."""
        ((value,),) = self.ask(sql, *params)
        return value

    def calls(self) -> dict[str, CallRow]:
        """All calls that ended, by id."""
        return {row[0]: CallRow(*row) for row in self.ask(_CALLS)}

    def spent(self, column: str, value: str) -> int:
        """What the usage rows of a user, key, payer or group add up to."""
        sql = "SELECT coalesce(sum(u.cost_nano_usd), 0) FROM usage u JOIN series s"
        total: int = self.one(f"{sql} ON s.id = u.series_id WHERE s.{column} = ?", value)
        return total

    def id_of(self, kind: str, name: str) -> str:
        """The id of a user or an org, by name."""
        found: str = self.one(f"SELECT id FROM {kind} WHERE name = ?", name)
        return found

    def open_holds(self) -> int:
        """How many holds have not ended."""
        count: int = self.one("SELECT count(*) FROM holds")
        return count

    async def settled(self, seconds: float = 45.0) -> None:
        """Wait until no hold is open."""
        async with asyncio.timeout(seconds):
            # Another process's database has no event to wait for.
            while await asyncio.to_thread(self.open_holds):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def check(self) -> dict[str, int]:
        """The audit finds nothing, each call ended once; the house accounts' balances."""
        found = audit_file(self.path)
        assert found.problems == [], found.problems
        ends, calls = self.ask(
            "SELECT count(*), count(DISTINCT call_id) FROM settlements UNION ALL"
            " SELECT count(*), count(DISTINCT call_id) FROM usage"
        )
        assert ends == calls == (ends[0], ends[0])
        return found.house
