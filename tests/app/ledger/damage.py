"""Books with one of everything, and what may happen to them behind the triggers' back."""

import sqlite3
from pathlib import Path

from msgspec.structs import replace

from app.ledger.accounts import GrantKind
from app.ledger.chain import HEAD, link
from app.ledger.entries import (
    Adjustment,
    EndpointMinute,
    IdempotencyKey,
    Limit,
    NewGrant,
    ProbeRow,
)
from tests.app.ledger.books import (
    PRO,
    START_MS,
    Books,
    HandClock,
    HandStandings,
    hold,
    opened,
    statement,
    used,
)

NEXT_MONTH_MS = START_MS + 30 * 86_400_000
FIRST_MONTHLY = "(SELECT account_id FROM grants WHERE payer_id = 'user_ann' ORDER BY id LIMIT 1)"

# What changes the journal; the hashes are made good again, as by somebody who knows how.
FORGED = {
    "an amount": "UPDATE entries SET amount_nano_usd = amount_nano_usd + 1 WHERE kind = 'charge'",
    "a grant's entry": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'grant'",
    "a purchase": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'purchase'",
    "an expiry": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'expiry'",
    "a reversal": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'reversal'",
    "a fee": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'fee'",
    "an endpoint's minute": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'endpoint'",
    "a loss": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'failover_loss'",
    "a probe": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'probe'",
    "an adjustment": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'adjustment'",
    "who paid": "UPDATE entries SET debit_account_id = (SELECT max(id) FROM accounts)"
    " WHERE kind = 'charge'",
    "which account of the house": "UPDATE entries SET credit_account_id = 3 WHERE kind = 'charge'",
    "the month": "UPDATE entries SET period = '2026-10' WHERE kind = 'charge'",
    "the month of what is owed": "UPDATE entries SET period = '2026-10' WHERE kind = 'fee'",
    "the kind": "UPDATE entries SET kind = 'overrun' WHERE kind = 'charge'",
    "whose call": "UPDATE entries SET subject = 'another' WHERE kind = 'charge'",
    "an account that is not there": "UPDATE entries SET debit_account_id = 99"
    " WHERE kind = 'charge'",
    "a loss in it": "DELETE FROM entries WHERE kind = 'overrun'",
    "one too many": "INSERT INTO entries SELECT 1000, at_ms, period, kind, subject || 'x',"
    " debit_account_id, credit_account_id, amount_nano_usd, hash FROM entries"
    " WHERE kind = 'failover_loss'",
    "its end": "DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)",
}

DAMAGE = {
    "an account lost": f"DELETE FROM accounts WHERE id = {FIRST_MONTHLY}",
    "an account of somebody else": f"UPDATE accounts SET owner_id = 'x' WHERE id = {FIRST_MONTHLY}",
    "an account of another kind": f"UPDATE accounts SET kind = 'purchased'"
    f" WHERE id = {FIRST_MONTHLY}",
    "an account nobody knows": "INSERT INTO accounts VALUES (5000, 'user_ann', 'monthly', 'x')",
    "a grant lost": "DELETE FROM grants WHERE kind = 'purchased'",
    "a grant's sum": "UPDATE grants SET granted_nano_usd = granted_nano_usd + 5",
    "what a grant spent": "UPDATE grants SET spent_nano_usd = spent_nano_usd - 1"
    " WHERE spent_nano_usd > 0",
    "what expired of a grant": "UPDATE grants SET expired_nano_usd = expired_nano_usd - 1"
    " WHERE expired_nano_usd > 0",
    "a grant closed too early": "UPDATE grants SET closed = 1",
    "a grant of somebody else": "UPDATE grants SET payer_id = 'user_x' WHERE kind = 'purchased'",
    "a due's sum": "UPDATE dues SET amount_nano_usd = amount_nano_usd + 1 WHERE kind = 'overage'",
    "a due's month": "UPDATE dues SET period = '2026-10' WHERE kind = 'fee'",
    "a due lost": "DELETE FROM dues WHERE kind = 'endpoint'",
    "a wallet's credit": "UPDATE wallets SET credit_nano_usd = credit_nano_usd + 1",
    "a wallet's holds": "UPDATE wallets SET held_nano_usd = held_nano_usd - 1"
    " WHERE held_nano_usd > 0",
    "a wallet past its hard stop": "UPDATE wallets SET overage = 0, held_nano_usd = 10000000000",
    "a wallet lost": "DELETE FROM wallets WHERE payer_id = 'user_ann'",
    "a limit's holds": "UPDATE limit_months SET held_nano_usd = held_nano_usd + 1",
    "a call's cost": "UPDATE settlements SET cost_nano_usd = 3 WHERE state = 'settled'",
    "a call's overrun": "UPDATE settlements SET overrun_nano_usd = 0 WHERE state = 'settled'",
    "a call's loss": "UPDATE settlements SET lost_nano_usd = 0",
    "a call's payer": "UPDATE settlements SET payer_id = 'user_x' WHERE cost_nano_usd > 0",
    "a call's month": "UPDATE settlements SET period = '2026-10' WHERE cost_nano_usd > 0",
    "an ending lost": "DELETE FROM settlements WHERE state = 'void'",
    "a give-up undone": "UPDATE settlements SET state = 'void' WHERE state = 'gave_up'",
    "a hold lost": "DELETE FROM holds",
    "a hold's amount": "UPDATE holds SET amount_nano_usd = 1",
    "a hold of a call that ended": "INSERT INTO holds SELECT call_id, payer_id, period, '', '', '',"
    " 0, 0, 0, 0, '', 0 FROM settlements LIMIT 1",
    "a hold of a call whose cost is awaited": "DELETE FROM holds WHERE call_id IN"
    " (SELECT call_id FROM pending_costs)",
    "an Idempotency-Key that waits for ever": "UPDATE idempotency SET call_id = 'another'",
    "an adjustment's amount": "UPDATE adjustments SET amount_nano_usd = 7",
    "an adjustment lost": "DELETE FROM adjustments WHERE amount_nano_usd < 0",
    "an endpoint's minute lost": "DELETE FROM endpoint_minutes",
    "a probe's cost": "UPDATE probe_costs SET cost_nano_usd = 22",
    "a probe lost": "DELETE FROM probe_costs",
    "a usage row lost": "DELETE FROM usage WHERE cost_nano_usd > 0",
    "a usage row's cost": "UPDATE usage SET cost_nano_usd = cost_nano_usd + 1",
    "a usage row's tokens": "UPDATE usage SET output_tokens = output_tokens + 1",
    "a usage row of somebody else": "UPDATE series SET payer_id = 'user_x'"
    " WHERE payer_id = 'user_ann'",
    "a usage row twice": "INSERT INTO usage SELECT 1, call_id, series_id, 0, 0, 0, 0, 0, 0, 0, 0,"
    " 0, 0, 0, 0, 0, 0, cost_nano_usd, 0, '', 0, 0, 0 FROM usage LIMIT 1",
    "a day's file": "INSERT INTO usage_segments SELECT at_ms / 86400000, 99, 1,"
    " hex(zeroblob(32)), 0, 1, NULL FROM usage GROUP BY 1",
    "a usage row's characters": "UPDATE usage SET characters = characters + 1",
    "an hour's sound": "UPDATE usage_hours SET audio_ms = audio_ms + 1",
    "a party's video": "UPDATE usage_parties SET video_ms = video_ms + 1",
    "an hour's sum": "UPDATE usage_hours SET input_tokens = input_tokens + 1",
    "a day's sum": "UPDATE usage_days SET cost_nano_usd = cost_nano_usd + 1",
    "a day lost": "DELETE FROM usage_days",
    "a coarse series": "UPDATE usage_hours SET calls = calls + 1"
    " WHERE series_id IN (SELECT coarse_id FROM series)",
    "a party's sum": "UPDATE usage_parties SET calls = calls + 1",
}


async def keep_books(path: Path) -> None:
    """Books with one of everything."""
    clock, standings = HandClock(), HandStandings()
    standings.terms["user_ben"] = PRO
    standings.limits["key", "key_1"] = Limit("key", "key_1", 10**12, 5)
    async with opened(path, clock, standings) as books:
        ledger = books.ledger
        await books.database.write(
            statement("INSERT INTO spending_limits VALUES ('key', 'key_1', ?, '', 5)", 10**12)
        )
        over = hold(60_000_000)
        await ledger.place_hold(over)
        row = used(over.call_id)
        await ledger.settle_hold(over.call_id, 10**8 + 1_000, row, lost_nano_usd=11)
        past = hold(3 * 10**9, user="user_ben")
        await ledger.place_hold(past)
        await ledger.settle_hold(past.call_id, 3 * 10**9, used(past.call_id, payer="user_ben"))
        for user in ("user_cleo", "user_dan"):
            voided = hold(10, user=user)
            await ledger.place_hold(voided)
            await ledger.void_hold(voided.call_id, used(voided.call_id, payer=user))
        expired = hold(10, user="user_dan", expires_at_ms=0)
        await ledger.place_hold(expired)
        await ledger.give_up_expired(1)
        await ledger.settle_hold(expired.call_id, 9, used(expired.call_id))
        await _move_money(books)
        clock.ms = NEXT_MONTH_MS
        await ledger.catch_up(["user_dan"])
        key = IdempotencyKey(key="k", request_hash=bytes(32))
        await ledger.place_hold(hold(500, user="user_cleo", idempotency=key))
        waits = hold(700, user="user_cleo")
        await ledger.place_hold(waits)
        await ledger.bind_request(waits.call_id, "mock", "up_1")
        row = used(waits.call_id, payer="user_cleo")
        await ledger.await_cost(waits.call_id, row, give_up_at_ms=NEXT_MONTH_MS)


async def _move_money(books: Books) -> None:
    """Money that moves beside calls."""
    ledger = books.ledger
    await ledger.give(
        NewGrant(
            payer_id="user_ann",
            kind=GrantKind.PURCHASED,
            reference="pay_1",
            amount_nano_usd=5_000,
        )
    )
    for name, amount in (("more", 700), ("less", -300)):
        await ledger.adjust(
            Adjustment(
                id=name, payer_id="user_ann", amount_nano_usd=amount, reason="why", author="who"
            )
        )
    minute = EndpointMinute(
        endpoint_id="end_1", replica=0, minute=START_MS // 60_000, amount_nano_usd=40
    )
    await ledger.bill_minutes("user_ann", [minute])
    probe = ProbeRow(at_ms=START_MS, provider="mock", model="acme/tiny")
    await ledger.book_probe("probe_1", probe, 21)
    # Up a tier with a fee, and down again.
    books.standings.terms["user_eve"] = replace(PRO, fee_nano_usd=9 * 10**9)
    await ledger.catch_up(["user_eve"])
    del books.standings.terms["user_eve"]
    await books.changed()
    await ledger.catch_up(["user_eve"])


def do(path: Path, sql: str, *, forge: bool = False) -> None:
    """Run a statement with nothing in its way; then make the hashes good again, or not."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints=1")
    connection.execute("PRAGMA synchronous=OFF")
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
        connection.execute(f"DROP TRIGGER {name}")
    assert connection.execute(sql).rowcount > 0
    if forge:
        last = HEAD
        for row in connection.execute("SELECT * FROM entries ORDER BY seq").fetchall():
            last = link(last, *row[:8])
            connection.execute("UPDATE entries SET hash = ? WHERE seq = ?", (last, row[0]))
    connection.commit()
    connection.close()
