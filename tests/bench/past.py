"""A ledger with a past: users, keys, money and so many calls, made by SQL in a migrated database.

All of it is what the ledger itself would have written, hash chain and sums included: the audit
finds nothing. Half of the calls are of the month before, whose credit has expired.
"""

import json
import sqlite3
from pathlib import Path
from random import Random

from app.clock import SystemClock, month_ms, period_of
from app.identity import key_format
from app.ledger.accounts import HouseAccount
from app.ledger.usage_rows import SUMMED
from app.storage.chain import Chain
from app.storage.migrate import migrate, shipped_migrations

CALLS_PER_USER = 10
MODEL, PROVIDER = "acme/tiny", "mock"
HOLD_NANO_USD, COST_NANO_USD = 1_000_000, 16_800
INPUT_TOKENS, OUTPUT_TOKENS = 120, 240
FREE_NANO_USD, PRO_NANO_USD, PRO_FEE_NANO_USD = 10**8, 2 * 10**9, 9 * 10**9
KEYS_KNOWN = 1_000
NOW_MS = 1_781_956_800_000  # 2026-06-20T12:00:00Z, so that no month ends during a run
_PERIODS = ("2026-05", "2026-06")

_NAMED = ", ".join(f"sum({name}) AS {name}" for name in SUMMED)
_COUNTS = ", ".join(f"sum({name})" for name in SUMMED[1:])
_RUNNING = ", ".join(f"sum({name}) OVER past" for name in SUMMED)
_USERS = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :users - 1)"
# The calls of one month, in the order of time: in every round each user has one, in mixed order.
_CALLS = """
WITH RECURSIVE n (i) AS (
    SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :first + :calls - 1
), call (id, at_ms, user, user_id) AS (
    SELECT printf('00000000-0000-7000-8000-%012x', i),
           :starts_ms + (i - :first) * :lasts_ms / :calls,
           (i * 2654435761) % :users, printf('user_%032x', (i * 2654435761) % :users)
    FROM n
)
"""
_CREDIT = f"iif(i % 2, {PRO_NANO_USD}, {FREE_NANO_USD})"

# Every other user is on pro and pays its fee; every tenth key has a spending limit.
_ACCOUNTS = (
    f"INSERT INTO users {_USERS} SELECT printf('user_%032x', i), printf('name-%08x', i),"
    " iif(i % 2, 'pro', 'free'), 'member', 0 FROM n",
    "INSERT INTO series (id, coarse_id, party_id, user_id, key_id, payer_id, group_id, model,"
    f" provider, outcome, byok) VALUES (1, 1, 0, '', '', '', '', '{MODEL}', '{PROVIDER}',"
    " 'completed', 0)",
    "INSERT INTO series (id, coarse_id, party_id, user_id, key_id, payer_id, group_id, model,"
    f" provider, outcome, byok) {_USERS}, who (i, user, key) AS (SELECT i, printf('user_%032x', i),"
    " printf('key_%032x', i) FROM n) SELECT 2 * i + 2, 0, 0, user, key, user, '', '', '', '', 0"
    f" FROM who UNION ALL SELECT 2 * i + 3, 1, 2 * i + 2, user, key, user, '', '{MODEL}',"
    f" '{PROVIDER}', 'completed', 0 FROM who ORDER BY 1",
    f"INSERT INTO wallets {_USERS} SELECT printf('user_%032x', i), 0, {_CREDIT} - :spent, 0 FROM n",
    f"INSERT INTO spending_limits {_USERS} SELECT 'key', printf('key_%032x', i), 1000000000000,"
    " 'owner', 0 FROM n WHERE i % 10 = 0",
)

# One month, :at_ms its first moment; accounts are numbered by month and user.
_MONTH = (
    f"INSERT INTO accounts {_USERS} SELECT 5 + 2 * :month * :users + i, printf('user_%032x', i),"
    " 'monthly', :period FROM n UNION ALL SELECT 5 + (2 * :month + 1) * :users + i,"
    " printf('user_%032x', i), 'fee', :period FROM n WHERE i % 2 ORDER BY 1",
    f"INSERT INTO grants {_USERS} SELECT 1 + :month * :users + i, printf('user_%032x', i),"
    " 'monthly', :period, 5 + 2 * :month * :users + i, :at_ms, :ends_ms, iif(i % 2, 'pro',"
    f" 'free'), :over, {_CREDIT}, :spent, :over * ({_CREDIT} - :spent) FROM n",
    f"INSERT INTO dues {_USERS} SELECT printf('user_%032x', i), :period, 'fee',"
    f" 5 + (2 * :month + 1) * :users + i, {PRO_FEE_NANO_USD} FROM n WHERE i % 2",
    f"INSERT INTO limit_months {_USERS} SELECT 'key', printf('key_%032x', i), :period, 0,"
    f" 1000000000000, 0, :spent, 0 FROM n WHERE i % 10 = 0",
    f"INSERT INTO settlements {_CALLS} SELECT id, user_id, :period, 'settled', {HOLD_NANO_USD},"
    f" {COST_NANO_USD}, 0, at_ms + 12, 0 FROM call",
    f"INSERT INTO usage {_CALLS} SELECT at_ms, id, 2 * user + 3, 0, 1, {INPUT_TOKENS}, 0, 0,"
    f" {OUTPUT_TOKENS}, 0, 0, 0, 0, 0, 0, 12, NULL, {COST_NANO_USD}, NULL,"
    f" (1 + :month * :users + user) || ':{COST_NANO_USD}', 0, 0, 0 FROM call",
)
_JOURNAL = "seq, at_ms, period, kind, subject, debit, credit, amount"
_ENTRIES = (
    (
        f"{_USERS} SELECT :seq + i, :at_ms, :period, 'grant',"
        " printf('user_%032x/%s/%d', i, :period, :seq + i),"
        f" {HouseAccount.GRANTED.value}, 5 + 2 * :month * :users + i, {_CREDIT} FROM n",
        "users",
    ),
    (
        f"{_USERS} SELECT :seq + i / 2, :at_ms, :period, 'fee',"
        " printf('user_%032x/%s/%d', i, :period, :seq + i / 2),"
        f" 5 + (2 * :month + 1) * :users + i, {HouseAccount.FEES.value}, {PRO_FEE_NANO_USD}"
        " FROM n WHERE i % 2",
        "pros",
    ),
    (
        f"{_CALLS} SELECT :seq + row_number() OVER () - 1, at_ms + 12, :period, 'charge', id,"
        " 5 + 2 * :month * :users + user,"
        f" {HouseAccount.COGS.value}, {COST_NANO_USD} FROM call",
        "calls",
    ),
    (
        f"{_USERS} SELECT :seq + i, :ends_ms, :period, 'expiry', 'grant/' || (1 + :month * :users"
        f" + i), 5 + 2 * :month * :users + i, {HouseAccount.EXPIRED.value}, {_CREDIT} - :spent"
        " FROM n WHERE :over",
        "users",
    ),
)

_SUMS = (
    f"INSERT INTO usage_hours SELECT at_ms / 3600000, series_id, count(*), {_COUNTS} FROM usage"
    " GROUP BY 1, 2",
    f"INSERT INTO usage_hours SELECT hour, 1, sum(calls), {_COUNTS} FROM usage_hours GROUP BY 1",
    f"INSERT INTO usage_days SELECT series_id, hour / 24, sum(calls), {_COUNTS} FROM usage_hours"
    " GROUP BY 1, 2 ORDER BY 1, 2",
    f"INSERT INTO usage_parties SELECT party_id, day, {_RUNNING} FROM (SELECT party_id, day,"
    f" {_NAMED} FROM usage_days JOIN series ON id = series_id WHERE party_id <> 0 GROUP BY 1, 2)"
    " WINDOW past AS (PARTITION BY party_id ORDER BY day)",
)


class BenchClock(SystemClock):
    """The machine's clock, moved so that this process began right after the past."""

    def __init__(self) -> None:
        self._ahead_ms = NOW_MS - SystemClock.now_ms(self)

    def now_ms(self) -> int:
        return super().now_ms() + self._ahead_ms


def user_id(number: int) -> str:
    return f"user_{number:032x}"


def key_id(number: int) -> str:
    return f"key_{number:032x}"


def generate(path: Path, calls: int, users: int | None = None) -> int:
    """A database with so many past calls, a thousand or more; how many users it has: so many, or
    one for every ten calls.

    ``known_keys`` has some users' keys in the clear, spread over all of them.
    """
    users = users or calls // CALLS_PER_USER
    monthly = calls // users // 2
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, shipped_migrations(), 0)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-2000000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.create_function("chain_hash", 8, Chain())
    connection.execute("BEGIN")
    for sql in _ACCOUNTS:
        connection.execute(sql, {"users": users, "spent": monthly * COST_NANO_USD})
    _add_keys(connection, path, users)
    seq = 1
    for month, period in enumerate(_PERIODS):
        starts_ms, ends_ms = month_ms(period)
        over = period != period_of(NOW_MS)
        size = {"users": users, "pros": users // 2, "calls": users * monthly}
        values = {
            "month": month,
            "period": period,
            "users": users,
            "spent": monthly * COST_NANO_USD,
            "first": month * size["calls"],
            "calls": size["calls"],
            "at_ms": starts_ms,
            "starts_ms": starts_ms,
            "ends_ms": ends_ms,
            "lasts_ms": (ends_ms if over else NOW_MS) - starts_ms - 60_000,
            "over": int(over),
        }
        for sql in _MONTH:
            connection.execute(sql, values)
        for sql, rows in _ENTRIES:
            connection.execute(
                f"INSERT INTO entries WITH entry ({_JOURNAL}) AS ({sql})"
                f" SELECT {_JOURNAL}, chain_hash({_JOURNAL}) FROM entry",
                {**values, "seq": seq},
            )
            seq += size[rows]
    for sql in _SUMS:
        connection.execute(sql)
    connection.execute("UPDATE ledger_clock SET high_ms = ?", (NOW_MS - 60_000,))
    connection.execute("COMMIT")
    connection.close()
    return users


def known_keys(path: Path) -> list[str]:
    """Keys in the clear of a database that ``generate`` made."""
    found: list[str] = json.loads(path.with_suffix(".keys").read_text())
    return found


def _add_keys(connection: sqlite3.Connection, path: Path, users: int) -> None:
    """A key for each user. Only those that are asked for later are made as real ones are."""
    known = {
        number: key_format.new_key()
        for number in Random(1).sample(range(users), min(users, KEYS_KNOWN))
    }
    made = Random(2)

    def row(number: int) -> tuple[str, str, str, str, bytes]:
        if number in known:
            parts = known[number][1]
            prefix, secret = parts.prefix, key_format.digest(parts.secret)
        else:
            prefix = "".join(made.choices(key_format.ALPHABET, k=key_format.PREFIX_LENGTH))
            secret = made.randbytes(32)
        return (key_id(number), user_id(number), "bench", prefix, secret)

    connection.executemany(
        "INSERT INTO api_keys (id, user_id, name, prefix, secret_hash, created_at_ms)"
        " VALUES (?, ?, ?, ?, ?, 0)",
        map(row, range(users)),
    )
    path.with_suffix(".keys").write_text(json.dumps([text for text, _ in known.values()]))
