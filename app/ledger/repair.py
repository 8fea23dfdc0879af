"""What can be done about what an audit found. The journal is never edited.

Sums that are kept beside a sound journal are made again from it; a call that was charged more than
it says gets the difference back, by an adjustment; everything else is explained. Where the journal
itself is damaged nothing is touched: only a backup helps.
"""

import sqlite3
from pathlib import Path

import msgspec

from app.errors import TurnpikeError
from app.ledger.audit import Audit, Snapshot, audit_file
from app.ledger.audit_questions import PREPARE, TIDY_UP, Area
from app.storage.read_only import open_read_only
from app.storage.restore_advice import restore_advice

ADJUSTMENT_PREFIX = "repair:"

_ADVICE = {
    Area.CACHE: "A sum beside the journal is wrong; --apply makes it again from the journal.",
    Area.BOOKING: "What a call says and what was booked differ; --apply gives back what was taken"
    " too much, and leaves to you what was taken too little.",
    Area.USAGE: "The usage log or its sums are wrong. No money depends on them, so repair leaves"
    " them; a backup has them as they were.",
}

# Made again in this order: wallets follow from grants.
_REBUILD = (
    """
    UPDATE grants SET
        granted_nano_usd = coalesce((SELECT credits - reversals FROM audit_folds
            WHERE id = account_id), 0),
        spent_nano_usd = coalesce((SELECT debits - reversals - expiries FROM audit_folds
            WHERE id = account_id), 0),
        expired_nano_usd = coalesce((SELECT expiries FROM audit_folds WHERE id = account_id), 0)
    """,
    "UPDATE grants SET closed = 0 WHERE closed = 1"
    " AND granted_nano_usd <> spent_nano_usd + expired_nano_usd",
    "UPDATE dues SET amount_nano_usd ="
    " coalesce((SELECT debits - credits FROM audit_folds WHERE id = account_id), 0)",
    """
    INSERT INTO dues (payer_id, period, kind, account_id, amount_nano_usd)
    SELECT owner_id, period, kind, a.id, coalesce(debits - credits, 0)
    FROM accounts a LEFT JOIN audit_folds f ON f.id = a.id
    WHERE owner_id <> 'house' AND kind IN ('overage', 'fee', 'endpoint')
    AND NOT EXISTS (SELECT 1 FROM dues d WHERE d.account_id = a.id)
    """,
    """
    INSERT INTO wallets (payer_id, overage, credit_nano_usd, held_nano_usd)
    SELECT payer_id, overage, credit, held FROM (
        SELECT payer_id,
            coalesce((SELECT sum(granted_nano_usd - spent_nano_usd - expired_nano_usd)
                      FROM grants g WHERE g.payer_id = p.payer_id), 0) AS credit,
            coalesce((SELECT sum(amount_nano_usd) FROM holds h WHERE h.payer_id = p.payer_id), 0)
                AS held,
            0 AS overage
        FROM (SELECT payer_id FROM wallets UNION SELECT payer_id FROM grants
              UNION SELECT payer_id FROM holds) p
    ) WHERE true
    ON CONFLICT DO UPDATE SET credit_nano_usd = excluded.credit_nano_usd,
        held_nano_usd = excluded.held_nano_usd,
        overage = excluded.held_nano_usd > excluded.credit_nano_usd
    """,
    # A limit's month is made anew from the usage sums and the open holds by its next call.
    "DELETE FROM limit_months",
)

_OVERCHARGED = """
SELECT call_id, payer_id, coalesce(u.name, o.name, ''), paid - cost_nano_usd FROM (
    SELECT s.call_id, s.payer_id, s.cost_nano_usd,
        sum(e.amount_nano_usd) - coalesce((
            SELECT r.amount_nano_usd FROM adjustments r WHERE r.id = 'repair:' || s.call_id
        ), 0) AS paid
    FROM settlements s JOIN entries e ON e.subject = s.call_id
    JOIN accounts a ON a.id = e.debit_account_id
    WHERE e.kind IN ('charge', 'overage') AND a.owner_id = s.payer_id
    GROUP BY s.call_id
) LEFT JOIN users u ON u.id = payer_id LEFT JOIN orgs o ON o.id = payer_id
WHERE paid > cost_nano_usd
"""


class GiveBack(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was charged more than it says; ``id`` names the adjustment that makes it good."""

    id: str
    call_id: str
    payer_id: str
    payer_name: str
    amount_nano_usd: int


class RepairFailed(TurnpikeError):
    """The sums that the journal gives cannot be stored; nothing was changed."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, and what a repair would do. Nothing can be done while ``restore`` says why."""

    problems: list[str]
    explanations: list[str]
    restore: str | None
    rebuilds_sums: bool
    gives_back: list[GiveBack]


def plan_repair(path: Path) -> Plan:
    """Audit a database file, and say what can be done. Reads only."""
    found = audit_file(path)
    areas = {finding.area for finding in found.findings}
    if Area.JOURNAL in areas:
        return Plan(
            problems=found.problems,
            explanations=["The journal itself is damaged, so nothing can be made again from it."],
            restore=restore_advice(path),
            rebuilds_sums=False,
            gives_back=[],
        )
    return Plan(
        problems=found.problems,
        explanations=[text for area, text in _ADVICE.items() if area in areas],
        restore=None,
        rebuilds_sums=Area.CACHE in areas,
        gives_back=_gives_back(path) if Area.BOOKING in areas else [],
    )


def rebuild_sums(path: Path) -> Audit:
    """Make the sums beside the journal again from it, in one transaction; the audit after it.

    The caller holds the directory's lock, so no server has them in memory, and has a plan that
    found the journal sound. Raises RepairFailed where the sums that come out cannot be stored.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)
    connection.isolation_level = None
    try:
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        for sql in (*PREPARE, *_REBUILD, *TIDY_UP):
            connection.execute(sql)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise RepairFailed(
            f"What the journal comes to cannot be stored ({error}), so nothing was changed."
            f" {restore_advice(path)}"
        ) from error
    finally:
        connection.close()
    return audit_file(path)


def _gives_back(path: Path) -> list[GiveBack]:
    connection = open_read_only(path)
    try:
        rows = Snapshot(connection).execute(_OVERCHARGED)
    finally:
        connection.close()
    return [
        GiveBack(
            id=f"{ADJUSTMENT_PREFIX}{call_id}",
            call_id=call_id,
            payer_id=payer_id,
            payer_name=payer_name,
            amount_nano_usd=amount,
        )
        for call_id, payer_id, payer_name, amount in rows
    ]
