"""What the audit asks: each question finds rows that say two things where they should say one.

All sums over entries come from two temporary tables that ``PREPARE`` fills in one pass each:
``audit_flows``, the journal by kind, month and pair of accounts, and ``audit_folds``, what that
makes of each payer's account. Sums of the house's accounts may leave 64 bits, so flows keep the
amounts in two halves of 30 bits and the rest.
"""

# ruff: noqa: S608 - every part of these texts is a constant of the program

from enum import StrEnum
from typing import NamedTuple

from app.ledger.accounts import EntryKind, HouseAccount


class Area(StrEnum):
    """Where a problem lies, which decides what ``ledger repair`` can do about it."""

    JOURNAL = "journal"  # the entries themselves: only a backup helps
    CACHE = "cache"  # sums that are kept beside the journal, and follow from it
    BOOKING = "booking"  # a call that was charged something else than it says
    USAGE = "usage"  # the usage log and its sums


class Question(NamedTuple):
    """``sql`` returns one row per problem: what it is about, and the two values of ``text``."""

    area: Area
    text: str
    sql: str


_HOUSE = ", ".join(str(account.value) for account in HouseAccount)
_LOW = (1 << 30) - 1

PREPARE = (
    f"""
    CREATE TEMP TABLE audit_flows AS
    SELECT kind, period, debit_account_id AS debit, credit_account_id AS credit, count(*) AS n,
           sum(amount_nano_usd >> 30) AS high, sum(amount_nano_usd & {_LOW}) AS low
    FROM entries GROUP BY debit_account_id, credit_account_id, kind, period
    """,
    "CREATE TEMP TABLE audit_folds (id INTEGER PRIMARY KEY, credits, reversals, expiries, debits)",
    f"""
    INSERT INTO audit_folds
    SELECT id, sum(credit), sum(iif(kind = 'reversal', debit, 0)),
           sum(iif(kind = 'expiry', debit, 0)), sum(debit)
    FROM (
        SELECT credit AS id, kind, high * {_LOW + 1} + low AS credit, 0 AS debit FROM audit_flows
        WHERE credit NOT IN ({_HOUSE})
        UNION ALL
        SELECT debit, kind, 0, high * {_LOW + 1} + low FROM audit_flows
        WHERE debit NOT IN ({_HOUSE})
    ) GROUP BY id
    """,
)
TIDY_UP = ("DROP TABLE IF EXISTS audit_folds", "DROP TABLE IF EXISTS audit_flows")

_GRANTS = ("monthly", "promotional", "purchased", "adjustment")
# From which account to which an entry of each kind moves money; `*` is any kind of grant.
_WAYS = {
    EntryKind.GRANT: (("house:granted", "monthly"), ("house:granted", "promotional")),
    EntryKind.REVERSAL: (("monthly", "house:granted"),),
    EntryKind.PURCHASE: (("house:sold", "purchased"),),
    EntryKind.EXPIRY: (("*", "house:expired"),),
    EntryKind.CHARGE: (("*", "house:cogs"),),
    EntryKind.OVERAGE: (("overage", "house:cogs"),),
    EntryKind.OVERRUN: (("house:overrun", "house:cogs"),),
    EntryKind.FORGIVEN: (("house:forgiven", "house:cogs"),),
    EntryKind.FAILOVER_LOSS: (("house:failover_loss", "house:cogs"),),
    EntryKind.ADJUSTMENT: (
        ("house:adjusted", "*"),
        ("*", "house:adjusted"),
        ("overage", "house:adjusted"),
        ("house:adjusted", "overage"),
    ),
    EntryKind.FEE: (("fee", "house:fees"),),
    EntryKind.ENDPOINT: (("*", "house:endpoints"), ("endpoint", "house:endpoints")),
    EntryKind.PROBE: (("house:probes", "house:cogs"),),
}


def _ways() -> str:
    rows = [
        f"('{kind}', '{one}', '{other}')"
        for kind, ways in _WAYS.items()
        for debit, credit in ways
        for one in (_GRANTS if debit == "*" else (debit,))
        for other in (_GRANTS if credit == "*" else (credit,))
    ]
    return ", ".join(rows)


# The accounts of months before there were several kinds of grants are of the kind 'grant'.
_KIND = "CASE {0}.kind WHEN 'grant' THEN 'monthly' ELSE {0}.kind END"
_SIDE = f"iif({{0}}.owner_id = 'house', 'house:', '') || {_KIND}"

JOURNAL = (
    Question(
        Area.JOURNAL,
        "{0}: {1} entries that no rule allows, the first in the month {2}",
        f"""
        WITH way (kind, debit, credit) AS (VALUES {_ways()})
        SELECT f.kind || ' from account ' || f.debit || ' to account ' || f.credit, f.n, f.period
        FROM audit_flows f LEFT JOIN accounts d ON d.id = f.debit
        LEFT JOIN accounts c ON c.id = f.credit
        WHERE NOT EXISTS (
            SELECT 1 FROM way WHERE way.kind = f.kind AND way.debit = {_SIDE.format("d")}
            AND way.credit = {_SIDE.format("c")}
        )
        """,
    ),
)


def _grant(what: str, column: str, journal: str) -> Question:
    return Question(
        Area.CACHE,
        f"the grant {{0}} {what} {{1}}, its entries say {{2}}",
        f"""
        SELECT g.id || ' of ' || payer_id, {column}, {journal} AS journal
        FROM grants g LEFT JOIN audit_folds f ON f.id = account_id WHERE {column} <> journal
        """,
    )


CACHES = (
    _grant("gave", "granted_nano_usd", "coalesce(credits - reversals, 0)"),
    _grant("has spent", "spent_nano_usd", "coalesce(debits - reversals - expiries, 0)"),
    _grant("has expired by", "expired_nano_usd", "coalesce(expiries, 0)"),
    Question(
        Area.CACHE,
        "the grant {0} is closed with {1} left, not {2}",
        """
        SELECT id || ' of ' || payer_id, granted_nano_usd - spent_nano_usd - expired_nano_usd, 0
        FROM grants WHERE closed = 1 AND granted_nano_usd <> spent_nano_usd + expired_nano_usd
        """,
    ),
    Question(
        Area.CACHE,
        "the grant {0} is said to be {1}, its account says {2}",
        f"""
        SELECT g.id, g.payer_id || ' ' || g.kind, a.owner_id || ' ' || {_KIND.format("a")} AS other
        FROM grants g LEFT JOIN accounts a ON a.id = g.account_id
        WHERE g.payer_id || ' ' || g.kind IS NOT other
        """,
    ),
    Question(
        Area.CACHE,
        "the due {0} is {1}, its entries say {2}",
        """
        SELECT payer_id || ' ' || period || ' ' || kind, amount_nano_usd,
               coalesce(debits - credits, 0) AS journal
        FROM dues d LEFT JOIN audit_folds f ON f.id = account_id WHERE amount_nano_usd <> journal
        """,
    ),
    Question(
        Area.CACHE,
        "the due {0} is said to be {1}, its account says {2}",
        """
        SELECT d.account_id, d.payer_id || ' ' || d.kind || ' ' || d.period,
               a.owner_id || ' ' || a.kind || ' ' || a.period AS other
        FROM dues d LEFT JOIN accounts a ON a.id = d.account_id
        WHERE d.payer_id || ' ' || d.kind || ' ' || d.period IS NOT other
        """,
    ),
    Question(
        Area.CACHE,
        "the due {0} is of the month {1}, an entry of it of {2}",
        """
        SELECT d.payer_id || ' ' || d.kind, d.period, f.period
        FROM audit_flows f JOIN dues d ON d.account_id = f.debit WHERE f.period <> d.period
        """,
    ),
    Question(
        Area.CACHE,
        "account {0} of {1} belongs to no grant and no due ({2})",
        """
        SELECT id, owner_id, kind FROM accounts a WHERE owner_id <> 'house'
        AND NOT EXISTS (SELECT 1 FROM grants WHERE account_id = a.id)
        AND NOT EXISTS (SELECT 1 FROM dues WHERE account_id = a.id)
        """,
    ),
    Question(
        Area.CACHE,
        "the credit of {0} is {1}, its grants have {2} left",
        """
        SELECT payer_id, credit_nano_usd, coalesce((
            SELECT sum(granted_nano_usd - spent_nano_usd - expired_nano_usd) FROM grants g
            WHERE g.payer_id = w.payer_id
        ), 0) AS rows
        FROM wallets w WHERE credit_nano_usd <> rows
        UNION ALL
        SELECT payer_id, 0, sum(granted_nano_usd) FROM grants g
        WHERE NOT EXISTS (SELECT 1 FROM wallets w WHERE w.payer_id = g.payer_id) GROUP BY payer_id
        """,
    ),
    Question(
        Area.CACHE,
        "{0} has {1} held, its open holds say {2}",
        """
        WITH open AS (SELECT payer_id, sum(amount_nano_usd) AS amount FROM holds GROUP BY 1)
        SELECT payer_id, held_nano_usd, coalesce(amount, 0) AS rows
        FROM wallets LEFT JOIN open USING (payer_id) WHERE held_nano_usd <> rows
        UNION ALL
        SELECT payer_id, 0, amount FROM open
        WHERE NOT EXISTS (SELECT 1 FROM wallets w WHERE w.payer_id = open.payer_id)
        """,
    ),
    Question(
        Area.CACHE,
        "{0} is past its hard stop: {1} held of {2}",
        """
        SELECT payer_id, held_nano_usd, credit_nano_usd FROM wallets
        WHERE overage = 0 AND held_nano_usd > credit_nano_usd
        """,
    ),
    Question(
        Area.CACHE,
        "the limit {0} has {1} held, its open holds say {2}",
        """
        SELECT m.scope || ' ' || m.subject_id || ' ' || m.period, m.held_nano_usd, coalesce((
            SELECT sum(h.amount_nano_usd) FROM holds h WHERE h.period = m.period
            AND m.subject_id = CASE m.scope WHEN 'key' THEN h.key_id WHEN 'user' THEN h.user_id
                WHEN 'member' THEN h.payer_id || '/' || h.user_id WHEN 'group' THEN h.group_id
                ELSE h.payer_id END
        ), 0) AS rows
        FROM limit_months m JOIN spending_limits l
        ON l.scope = m.scope AND l.subject_id = m.subject_id AND l.set_at_ms = m.set_at_ms
        WHERE m.held_nano_usd <> rows
        """,
    ),
)

BOOKINGS = (
    Question(
        Area.BOOKING,
        "call {0} says {1}, its entries say {2}",
        """
        SELECT call_id,
               printf('cost %d, overrun %d, lost %d',
                      cost_nano_usd, overrun_nano_usd, lost_nano_usd),
               printf('cost %d, overrun %d, lost %d, forgiven %d, of others %d',
                      paid, overrun, lost, forgiven, strange)
        FROM (
            SELECT s.*,
                coalesce(sum(iif(e.kind IN ('charge', 'overage') AND a.owner_id = s.payer_id
                    AND e.period = s.period, e.amount_nano_usd, 0)), 0) - coalesce((
                    SELECT r.amount_nano_usd FROM adjustments r WHERE r.id = 'repair:' || s.call_id
                ), 0) AS paid,
                coalesce(sum(iif(e.kind IN ('charge', 'overage') AND (a.owner_id <> s.payer_id
                    OR e.period <> s.period), e.amount_nano_usd, 0)), 0) AS strange,
                coalesce(sum(iif(e.kind = 'overrun', e.amount_nano_usd, 0)), 0) AS overrun,
                coalesce(sum(iif(e.kind = 'failover_loss', e.amount_nano_usd, 0)), 0) AS lost,
                coalesce(sum(iif(e.kind = 'forgiven', e.amount_nano_usd, 0)), 0) AS forgiven
            FROM settlements s LEFT JOIN entries e ON e.subject = s.call_id
            LEFT JOIN accounts a ON a.id = e.debit_account_id
            GROUP BY s.call_id
        )
        WHERE cost_nano_usd <> paid OR overrun_nano_usd <> overrun OR lost_nano_usd <> lost
        OR strange <> 0 OR (forgiven <> 0 AND state <> 'gave_up')
        """,
    ),
    Question(
        Area.BOOKING,
        "call {0} has not ended, but has an entry ({1}) of {2}",
        """
        SELECT subject, kind, amount_nano_usd FROM entries e
        WHERE kind IN ('charge', 'overage', 'overrun', 'failover_loss', 'forgiven')
        AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.call_id = e.subject)
        AND NOT (kind = 'failover_loss'
                 AND EXISTS (SELECT 1 FROM pending_costs p WHERE p.call_id = e.subject))
        """,
    ),
    Question(
        Area.BOOKING,
        "call {0} has ended and still holds {1}, not {2}",
        "SELECT call_id, amount_nano_usd, 0 FROM holds JOIN settlements USING (call_id)",
    ),
    Question(
        Area.BOOKING,
        "call {0} waits for a cost of {1} and has no hold{2}",
        """
        SELECT call_id, provider, '' FROM pending_costs p
        WHERE NOT EXISTS (SELECT 1 FROM holds h WHERE h.call_id = p.call_id)
        """,
    ),
    Question(
        Area.BOOKING,
        "the Idempotency-Key {0} of {1} waits for call {2}, which is not running",
        """
        SELECT key, user_id, call_id FROM idempotency i
        WHERE status IS NULL AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.call_id = i.call_id)
        """,
    ),
    Question(
        Area.BOOKING,
        "the adjustment {0} is of {1}, its entries say {2}",
        """
        WITH made AS (
            SELECT subject, sum(iif(debit_account_id = -4, 1, -1) * amount_nano_usd) AS amount
            FROM entries WHERE kind = 'adjustment' GROUP BY 1
        ), said AS (
            SELECT id, amount_nano_usd, 'adjustment/'
                   || iif(amount_nano_usd > 0, payer_id || '/', '') || id AS subject
            FROM adjustments
        )
        SELECT id, amount_nano_usd, coalesce(amount, 0) AS journal
        FROM said LEFT JOIN made USING (subject) WHERE amount_nano_usd <> journal
        UNION ALL
        SELECT subject, 0, amount FROM made WHERE subject NOT IN (SELECT subject FROM said)
        """,
    ),
    Question(
        Area.BOOKING,
        "the endpoint minutes of {0} cost {1}, their entries say {2}",
        """
        WITH booked AS (
            SELECT owner_id, sum(high * 1073741824 + low) AS amount
            FROM audit_flows f JOIN accounts a ON a.id = f.debit WHERE f.kind = 'endpoint'
            GROUP BY 1
        ), ran AS (
            SELECT payer_id, sum(amount_nano_usd) AS amount FROM endpoint_minutes GROUP BY 1
        )
        SELECT payer_id, ran.amount, coalesce(booked.amount, 0) AS journal
        FROM ran LEFT JOIN booked ON owner_id = payer_id WHERE ran.amount <> journal
        UNION ALL
        SELECT owner_id, 0, booked.amount FROM booked
        WHERE NOT EXISTS (SELECT 1 FROM ran WHERE payer_id = owner_id)
        """,
    ),
    Question(
        Area.BOOKING,
        "the probe {0} cost {1}, its entries say {2}",
        """
        WITH booked AS (
            SELECT substr(subject, 7) AS probe_id, sum(amount_nano_usd) AS amount
            FROM entries WHERE kind = 'probe' GROUP BY 1
        )
        SELECT probe_id, cost_nano_usd, coalesce(amount, 0) AS journal
        FROM probe_costs LEFT JOIN booked USING (probe_id) WHERE cost_nano_usd <> journal
        UNION ALL
        SELECT probe_id, 0, amount FROM booked
        WHERE NOT EXISTS (SELECT 1 FROM probe_costs p WHERE p.probe_id = booked.probe_id)
        """,
    ),
)
