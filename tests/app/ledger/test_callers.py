"""Who pays is asked once, and again as soon as anything may have changed it."""

from app.ledger.entries import Standing
from app.ledger.standing import Ask
from tests.app.ledger.books import Books, HandStandings, hold, statement


class Counting(HandStandings):
    asked = 0

    def of_caller(self, ask: Ask, user_id: str, key_id: str, bill_to: str | None) -> Standing:
        self.asked += 1
        return super().of_caller(ask, user_id, key_id, bill_to)


async def test_a_caller_is_asked_about_once_until_something_was_written(books: Books) -> None:
    standings = Counting()
    books.ledger._image.callers.standings = standings
    for _ in range(3):
        await books.ledger.place_hold(hold(10))
    assert standings.asked == 1
    note = statement("UPDATE ledger_clock SET high_ms = high_ms")
    await books.database.write(note, is_note=True)
    await books.ledger.place_hold(hold(10))
    assert standings.asked == 1
    await books.database.write(note)
    await books.ledger.place_hold(hold(10))
    assert standings.asked == 2


async def test_callers_differ_by_key_and_by_whom_they_bill_to(books: Books) -> None:
    standings = Counting()
    books.ledger._image.callers.standings = standings
    await books.ledger.place_hold(hold(10))
    await books.ledger.place_hold(hold(10, key_id="key_2"))
    await books.ledger.place_hold(hold(10, bill_to="org_1"))
    await books.ledger.place_hold(hold(10, bill_to="org_1#group_1"))
    assert standings.asked == 4
