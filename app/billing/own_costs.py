"""What a user's own calls cost: for whom this appliance is a provider (the billing protocol's other
side)."""

from collections.abc import Sequence

import msgspec

from app.storage.database import Database

# Each id is looked up by itself, whatever the number of calls. A call is its user's where the user
# paid, and where `org_calls` says so; the scalar query runs for the calls of other payers only.
_COSTS = """
SELECT asked.value, s.cost_nano_usd
FROM json_each(?1) AS asked CROSS JOIN settlements AS s ON s.call_id = asked.value
WHERE s.payer_id = ?2 OR (SELECT o.user_id FROM org_calls o WHERE o.call_id = s.call_id) = ?2
"""


class OwnCosts:
    """Answers from the settlements, which never change: the same id has the same cost for ever."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, user_id: str, call_ids: Sequence[str]) -> dict[str, int]:
        """Nano-USD of each of these calls, in their order.

        Left out: calls that have not ended, whose cost is not known yet, that never were, or that
        are somebody else's. A call that ended without a charge costs 0.
        """
        asked = list(dict.fromkeys(call_ids))
        rows = await self._database.read(_COSTS, (msgspec.json.encode(asked).decode(), user_id))
        costs: dict[str, int] = dict(rows)
        return {call_id: costs[call_id] for call_id in asked if call_id in costs}
