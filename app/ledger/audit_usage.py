"""What the audit asks about usage: each call once, and every sum of them again.

Days whose rows were moved to files are checked by their sums only.
"""

# ruff: noqa: S608 - every part of these texts is a constant of the program

from app.ledger.audit_questions import Area, Question
from app.ledger.usage_rows import SUMMED

# A float takes over past this, and sums may differ by their order: no call comes near.
_EXACT_MAX = 1 << 53
_FINE = "s.coarse_id <> 0 AND s.coarse_id <> s.id"
_KEPT = "NOT IN (SELECT day FROM usage_segments)"
_COLUMNS = ", ".join(SUMMED)
_COUNTED = ", ".join(SUMMED[1:])
_PLUS = ", ".join(f"t.{name}" for name in SUMMED)
_MINUS = ", ".join(f"-t.{name}" for name in SUMMED)
_GAIN = ", ".join(f"t.{name} - lag(t.{name}, 1, 0) OVER past" for name in SUMMED)


def _same_sums(text: str, one: str, other: str) -> Question:
    """Two queries of (id, at, the sums' columns), the second with its signs turned."""
    differs = " OR ".join(f"total({name}) <> 0" for name in SUMMED)
    within = " AND ".join(f"max(abs({name})) < {_EXACT_MAX}" for name in SUMMED)
    return Question(
        Area.USAGE,
        text,
        f"""
        WITH side (id, at, {_COLUMNS}) AS ({one} UNION ALL {other})
        SELECT id || ' ' || at, printf('%d calls', total(calls)),
               printf('%d nano-USD', total(cost_nano_usd))
        FROM side GROUP BY id, at HAVING ({differs}) AND {within}
        """,
    )


USAGE = (
    Question(
        Area.USAGE,
        "call {0} was charged {2}, its usage row says {1}",
        """
        SELECT u.call_id, u.cost_nano_usd || ' of ' || r.payer_id,
               s.cost_nano_usd || ' of ' || s.payer_id
        FROM usage u LEFT JOIN settlements s ON s.call_id = u.call_id
        LEFT JOIN series r ON r.id = u.series_id
        WHERE s.cost_nano_usd IS NOT u.cost_nano_usd OR s.payer_id IS NOT r.payer_id
        """,
    ),
    Question(
        Area.USAGE,
        "call {0} has {1} usage rows, not {2}",
        "SELECT call_id, count(*), 1 FROM usage GROUP BY call_id HAVING count(*) > 1",
    ),
    Question(
        Area.USAGE,
        "all calls: {1} have ended, by the usage sums {2}{0}",
        f"""
        SELECT '', printf('%d at %d nano-USD', calls, cost), printf('%d at %d', used, used_cost)
        FROM (SELECT count(*) AS calls, total(cost_nano_usd) AS cost FROM settlements),
             (SELECT total(calls) AS used, total(cost_nano_usd) AS used_cost
              FROM usage_days t JOIN series s ON s.id = t.series_id WHERE {_FINE})
        WHERE calls <> used OR cost <> used_cost
        """,
    ),
    _same_sums(
        "series and day {0}: the usage rows and their sum are {1} and {2} apart",
        f"SELECT series_id, at_ms / 86400000, 1, {_COUNTED} FROM usage"
        f" WHERE at_ms / 86400000 {_KEPT}",
        f"SELECT t.series_id, t.day, {_MINUS} FROM usage_days t JOIN series s ON s.id = t.series_id"
        f" WHERE {_FINE} AND t.day {_KEPT}",
    ),
    Question(
        Area.USAGE,
        "day {0}: its file and what came after it have {1} usage rows, its sum has {2}",
        f"""
        SELECT g.day, g.rows + (
            SELECT count(*) FROM usage
            WHERE at_ms >= g.day * 86400000 AND at_ms < (g.day + 1) * 86400000
        ) AS moved, (
            SELECT coalesce(sum(t.calls), 0) FROM usage_days t JOIN series s ON s.id = t.series_id
            WHERE t.day = g.day AND {_FINE}
        ) AS summed
        FROM usage_segments g WHERE g.emptied_at_ms IS NOT NULL AND moved <> summed
        """,
    ),
    _same_sums(
        "series and day {0}: the hours and the day are {1} and {2} apart",
        f"SELECT t.series_id, t.hour / 24, {_PLUS} FROM usage_hours t",
        f"SELECT t.series_id, t.day, {_MINUS} FROM usage_days t",
    ),
    _same_sums(
        "coarse series and day {0}: the series and their sum are {1} and {2} apart",
        f"SELECT s.coarse_id, t.day, {_PLUS} FROM usage_days t JOIN series s ON s.id = t.series_id"
        f" WHERE {_FINE}",
        f"SELECT t.series_id, t.day, {_MINUS} FROM usage_days t JOIN series s ON s.id = t.series_id"
        " WHERE s.coarse_id = s.id",
    ),
    _same_sums(
        "coarse series and hour {0}: the series and their sum are {1} and {2} apart",
        f"SELECT s.coarse_id, t.hour, {_PLUS} FROM usage_hours t JOIN series s"
        f" ON s.id = t.series_id WHERE {_FINE}",
        f"SELECT t.series_id, t.hour, {_MINUS} FROM usage_hours t JOIN series s"
        " ON s.id = t.series_id WHERE s.coarse_id = s.id",
    ),
    _same_sums(
        "party and day {0}: the days and what they come to are {1} and {2} apart",
        f"SELECT t.party_id, t.day, {_GAIN} FROM usage_parties t"
        " WINDOW past AS (PARTITION BY t.party_id ORDER BY t.day)",
        f"SELECT s.party_id, t.day, {_MINUS} FROM usage_days t JOIN series s ON s.id = t.series_id"
        f" WHERE {_FINE}",
    ),
)
