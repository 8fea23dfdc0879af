"""Answers that were kept for repeats go after a day; a request that runs keeps its key."""

from pathlib import Path

from app.jobs.forget_answers import forget_answers
from app.ledger.entries import IdempotencyKey, StoredAnswer
from app.ledger.idempotency import LIVES_MS
from tests.app.ledger.books import hold, opened, used


async def test_old_answers_go_and_keys_in_use_stay(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as books:
        for number in range(3):
            request = hold(10, idempotency=IdempotencyKey(key=f"k{number}", request_hash=bytes(32)))
            await books.ledger.place_hold(request)
            if number < 2:
                answer = StoredAnswer(status=200, body=b"{}")
                row = used(request.call_id)
                await books.ledger.settle_hold(request.call_id, 5, row, answer=answer)
        books.clock.ms += LIVES_MS - 1
        assert await forget_answers(books.database, books.clock) == 0
        books.clock.ms += 1
        assert await forget_answers(books.database, books.clock) == 2
        assert await books.rows("SELECT key FROM idempotency") == [("k2",)]
