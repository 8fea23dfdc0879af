"""I20, B8: cancelling callers loses nothing and leaves nothing open."""

import asyncio
import random

from app.ledger.entries import HoldState
from tests.app.ledger.books import Books, hold, used

CALLS = 2_500  # two verbs each
COST = 1_000


async def test_a_storm_of_cancelled_verbs_loses_none(books: Books) -> None:
    chance = random.Random(11)
    requests = [hold(COST, user=f"user_{n % 7}", call_id=f"call_{n:05d}") for n in range(CALLS)]

    async def storm(verbs: list[asyncio.Task[object]]) -> int:
        """Cancel about half of them, at any moment from queued to answered."""
        for verb in chance.sample(verbs, len(verbs) // 2):
            if chance.random() < 0.05:
                await asyncio.sleep(0)
            verb.cancel()
        ended = await asyncio.gather(*verbs, return_exceptions=True)
        assert not [each for each in ended if isinstance(each, Exception)]
        return sum(isinstance(each, asyncio.CancelledError) for each in ended)

    cancelled = 0
    for start in range(0, CALLS, 250):
        some = requests[start : start + 250]
        places: list[asyncio.Task[object]] = [
            asyncio.create_task(books.ledger.place_hold(request)) for request in some
        ]
        await asyncio.sleep(0)  # every verb has begun: from here on it must happen
        cancelled += await storm(places)
        settles: list[asyncio.Task[object]] = [
            asyncio.create_task(
                books.ledger.settle_hold(
                    request.call_id, COST, used(request.call_id, payer=request.user_id)
                )
            )
            for request in some
        ]
        await asyncio.sleep(0)
        cancelled += await storm(settles)
    assert cancelled > CALLS // 2

    # Behind all that is queued: what was cancelled has happened too.
    first = await books.ledger.settle_hold("call_00000", COST, used("call_00000", payer="user_0"))
    assert first.state is HoldState.SETTLED
    assert books.ledger.open_holds() == 0
    assert await books.rows("SELECT count(*), sum(cost_nano_usd) FROM usage") == [
        (CALLS, CALLS * COST)
    ]
    assert await books.rows("SELECT sum(held_nano_usd) FROM wallets") == [(0,)]
    assert await books.rows("SELECT sum(spent_nano_usd) FROM grants") == [(CALLS * COST,)]
