"""What the tests of credit ask and change on an open store."""

from app.ledger.entries import Balance, CreditTerms
from tests.app.ledger.books import Books


async def balance(books: Books, payer: str = "user_ann") -> Balance:
    return await books.ledger.balance(payer)


async def spent(books: Books) -> int:
    return sum(grant.spent_nano_usd for grant in (await balance(books)).grants)


async def put_on(books: Books, terms: CreditTerms) -> None:
    books.standings.terms["user_ann"] = terms
    await books.changed()
