"""The usage log and its sums, written in the transaction that ends a call's hold.

Lives on the writer thread, inside the ledger's group: rows are buffered and summed up while the
group runs, and go out together. Who used what is interned: a *series* is one user, key, payer,
group, model, provider and outcome; its *coarse* series is the same offer and outcome over
everybody, its *party* the same caller and payer over all models.
"""

import sqlite3
from typing import NamedTuple

from app.clock import DAY_MS, month_ms
from app.ledger.entries import UsageRow
from app.ledger.rows import RowBuffer

SERIES_CACHED_MAX = 65_536
HOUR_MS = 3_600_000
INT64_MAX = 2**63 - 1

SUMMED = (
    "calls",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "images",
    "compute_ns",
    "cost_nano_usd",
    "characters",
    "audio_ms",
    "video_ms",
)
"""What is added up, in the order of the columns of every table of sums."""

_PARTY_WIDTH = 2 + len(SUMMED)
_Who = tuple[str, str, str, str, str, str, str, bool]
_Sums = list[int]
_At = tuple[int, int]  # of a series, and an hour or a day

_WHO = "user_id, key_id, payer_id, group_id, model, provider, outcome, byok"
_COLUMNS = ", ".join(SUMMED)
# A sum that leaves 64 bits would be stored as a float, which the table refuses: it stays at the
# edge, and the ledger goes on.
_MORE = ", ".join(f"{name} = min({INT64_MAX}, {name} + excluded.{name})" for name in SUMMED)
_ADD = f" ON CONFLICT DO UPDATE SET {_MORE}"
_ADD_LATE = ", ".join(f"{name} = min({INT64_MAX}, {name} + ?)" for name in SUMMED)
_FIND = (
    "SELECT id, coarse_id, party_id FROM series WHERE user_id = ? AND key_id = ? AND payer_id = ?"
    " AND group_id = ? AND model = ? AND provider = ? AND outcome = ? AND byok = ?"
)
_BEFORE = (
    f"SELECT day, {_COLUMNS} FROM usage_parties WHERE party_id = ? AND day <= ?"  # noqa: S608
    " ORDER BY day DESC LIMIT 1"
)
_LATE = f"UPDATE usage_parties SET {_ADD_LATE} WHERE party_id = ? AND day >= ?"  # noqa: S608

SCOPES = {
    "key": "s.key_id = ?",
    "user": "s.user_id = ?",
    "member": "s.payer_id = ? AND s.user_id = ?",
    "group": "s.group_id = ?",
    "payer": "s.payer_id = ?",
}
"""What a series, or a hold, named ``s`` must be for a spending limit of that scope."""


def subject_of(scope: str, subject_id: str) -> tuple[str, ...]:
    """The parameters of a scope's condition: a member is a user within an org, ``ORG/USER``."""
    return tuple(subject_id.split("/", 1)) if scope == "member" else (subject_id,)


class _Series(NamedTuple):
    """The numbers of a series, of its coarse one and of its party."""

    id: int
    coarse_id: int
    party_id: int


class UsageRows:
    """Gathers usage rows; ``flush`` writes them and everything that they add up to.

    Nothing here is undone: where a flush fails, the ledger has stopped and this is never used
    again.
    """

    def __init__(self) -> None:
        self._series = RowBuffer("series", f"id, coarse_id, party_id, {_WHO}")
        self._rows = RowBuffer(
            "usage",
            "at_ms, call_id, series_id, streamed, attempts, input_tokens, cache_read_tokens,"
            " cache_write_tokens, output_tokens, reasoning_tokens, audio_input_tokens,"
            " audio_output_tokens, images, compute_ns, estimated, latency_ms, first_token_ms,"
            " cost_nano_usd, provider_cost_nano_usd, paid_from, characters, audio_ms, video_ms",
        )
        self._hours = RowBuffer("usage_hours", f"hour, series_id, {_COLUMNS}", _ADD)
        self._days = RowBuffer("usage_days", f"series_id, day, {_COLUMNS}", _ADD)
        self._parties = RowBuffer("usage_parties", f"party_id, day, {_COLUMNS}", _ADD)
        self._recent: dict[_Who, _Series] = {}
        self._older: dict[_Who, _Series] = {}
        self._sums: dict[tuple[_Series, int], _Sums] = {}
        self._last_day: dict[int, int] = {}  # of a party, as it stands in the table
        self._next_id = 1
        self._connection: sqlite3.Connection

    def opened(self, connection: sqlite3.Connection) -> None:
        """Learn where the numbers of series go on; before the first ``add``."""
        self._connection = connection
        self._next_id = connection.execute("SELECT coalesce(max(id), 0) FROM series").fetchone()[0]
        self._next_id += 1

    def add(self, usage: UsageRow, cost_nano_usd: int, paid_from: str) -> None:
        """One call that ended, what its payer was charged and which grants paid."""
        u = usage
        who = (
            u.user_id,
            u.key_id,
            u.payer_id,
            u.group_id,
            u.model,
            u.provider,
            u.outcome,
            u.byok,
        )
        series = self._recent.get(who) or self._intern(who)
        self._rows.values += (
            u.at_ms,
            u.call_id,
            series[0],
            1 if u.streamed else 0,
            u.attempts,
            u.input_tokens,
            u.cache_read_tokens,
            u.cache_write_tokens,
            u.output_tokens,
            u.reasoning_tokens,
            u.audio_input_tokens,
            u.audio_output_tokens,
            u.images,
            u.compute_ns,
            1 if u.estimated else 0,
            u.latency_ms,
            u.first_token_ms,
            cost_nano_usd,
            u.provider_cost_nano_usd,
            paid_from,
            u.characters,
            u.audio_ms,
            u.video_ms,
        )
        at = (series, u.at_ms // HOUR_MS)
        sums = self._sums.get(at)
        if sums is None:
            sums = self._sums[at] = [0] * len(SUMMED)
        sums[0] += 1
        sums[1] += u.input_tokens
        sums[2] += u.cache_read_tokens
        sums[3] += u.cache_write_tokens
        sums[4] += u.output_tokens
        sums[5] += u.reasoning_tokens
        sums[6] += u.audio_input_tokens
        sums[7] += u.audio_output_tokens
        sums[8] += u.images
        sums[9] += u.compute_ns
        sums[10] += cost_nano_usd
        sums[11] += u.characters
        sums[12] += u.audio_ms
        sums[13] += u.video_ms

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write the rows, and raise their sums."""
        if not self._sums:
            return
        self._series.flush(connection)
        self._rows.flush(connection)
        coarse: dict[_At, _Sums] = {}
        days: dict[_At, _Sums] = {}
        parties: dict[_At, _Sums] = {}
        hours: dict[_At, _Sums] = {}
        for (series, hour), sums in self._sums.items():
            day = hour // 24
            hours[(hour, series.id)] = sums
            _fold(days, (series.id, day), sums)
            _fold(parties, (series.party_id, day), sums)
            _fold(coarse, (hour, series.coarse_id), sums)
        for (hour, coarse_id), sums in coarse.items():
            _fold(days, (coarse_id, hour // 24), sums)
        hours.update(coarse)
        for buffer, gathered in ((self._hours, hours), (self._days, days)):
            for at in sorted(gathered):
                buffer.values += at
                buffer.values += _within(gathered[at])
            buffer.flush(connection)
        for at in sorted(parties):
            self._raise_party(connection, at, _within(parties[at]))
        self._parties.flush(connection)
        self._sums.clear()
        self._trim()

    def spent(
        self, connection: sqlite3.Connection, scope: str, subject_id: str, period: str
    ) -> int:
        """Nano-USD that calls of a month (``YYYY-MM``) cost, as far as it is flushed.

        ``scope`` is key, user, member (``ORG/USER``), group or payer.
        """
        subject = subject_of(scope, subject_id)
        began, ended = (edge_ms // DAY_MS - 1 for edge_ms in month_ms(period))
        upto = (
            "coalesce((SELECT cost_nano_usd FROM usage_parties WHERE party_id = s.id AND day <= ?"
            " ORDER BY day DESC LIMIT 1), 0)"
        )
        found: int = connection.execute(
            f"SELECT coalesce(sum({upto} - {upto}), 0) FROM series s"  # noqa: S608
            f" WHERE s.coarse_id = 0 AND {SCOPES[scope]}",
            (ended, began, *subject),
        ).fetchone()[0]
        return found

    def _raise_party(self, connection: sqlite3.Connection, at: _At, sums: _Sums) -> None:
        """Add to what a party has used up to a day, and to the days after it."""
        party_id, day = at
        last = self._last_day.get(party_id)
        if last is None:
            last = connection.execute(
                "SELECT coalesce(max(day), -1) FROM usage_parties WHERE party_id = ?", (party_id,)
            ).fetchone()[0]
        if day > last:
            if last >= 0:
                sums = [a + b for a, b in zip(sums, self._before(connection, at)[1:], strict=True)]
            self._parties.values += at
            self._parties.values += _within(sums)
        elif day == last:
            self._parties.values += at
            self._parties.values += sums
        else:
            self._raise_late(connection, at, sums)
        self._last_day[party_id] = max(day, last)

    def _raise_late(self, connection: sqlite3.Connection, at: _At, sums: _Sums) -> None:
        """A call that ended on a later day than it was admitted, after others did."""
        before = self._before(connection, at)
        if before[0] != at[1]:
            self._parties.values += at
            self._parties.values += before[1:]
            self._parties.flush(connection)
        connection.execute(_LATE, (*sums, *at))

    def _before(self, connection: sqlite3.Connection, at: _At) -> tuple[int, ...]:
        """The party's row of the day or of the last day before it; zeros without one."""
        # Parties come in order: what is buffered of this one was buffered last.
        if self._parties.values and self._parties.values[-_PARTY_WIDTH] == at[0]:
            self._parties.flush(connection)
        found: tuple[int, ...] | None = connection.execute(_BEFORE, at).fetchone()
        return found or (-1, *[0] * len(SUMMED))

    def _intern(self, who: _Who) -> _Series:
        """The series of these names: made, if there is none yet."""
        found = self._older.get(who) or self._look_up(who)
        if found is None:
            user_id, key_id, payer_id, group_id, model, provider, outcome, _ = who
            offer = ("", "", "", "", model, provider, outcome, False)
            party = (user_id, key_id, payer_id, group_id, "", "", "", False)
            coarse_id = self._shared(offer, coarse=True)
            party_id = self._shared(party, coarse=False)
            found = self._make(who, coarse_id, party_id)
        self._recent[who] = found
        return found

    def _shared(self, who: _Who, *, coarse: bool) -> int:
        """The number of a coarse series or of a party."""
        found = self._recent.get(who) or self._older.get(who) or self._look_up(who)
        if found is None:
            found = self._make(who, self._next_id if coarse else 0, 0)
        self._recent[who] = found
        return found.id

    def _make(self, who: _Who, coarse_id: int, party_id: int) -> _Series:
        made = _Series(self._next_id, coarse_id, party_id)
        self._next_id += 1
        *names, byok = who
        self._series.add((*made, *(str(name) for name in names), 1 if byok else 0))
        return made

    def _look_up(self, who: _Who) -> _Series | None:
        *names, byok = who
        found = self._connection.execute(_FIND, (*map(str, names), 1 if byok else 0)).fetchone()
        return None if found is None else _Series(*found)

    def _trim(self) -> None:
        """Keep the names of late, twice as many at most as fit one generation."""
        if len(self._recent) > SERIES_CACHED_MAX // 2:
            self._older, self._recent = self._recent, {}
        if len(self._last_day) > SERIES_CACHED_MAX:
            self._last_day.clear()


def _fold(into: dict[_At, _Sums], at: _At, sums: _Sums) -> None:
    found = into.get(at)
    into[at] = sums if found is None else [a + b for a, b in zip(found, sums, strict=True)]


def _within(sums: _Sums) -> _Sums:
    """The sums, none past the edge of 64 bits."""
    return sums if max(sums) <= INT64_MAX else [min(each, INT64_MAX) for each in sums]
