"""I2: the journal's chain of hashes shows every change, wherever and however it was made."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.audit import audit_file
from app.ledger.chain import HEAD, link
from app.ledger.verify import (
    JournalWatch,
    Walk,
    check_at_boot,
    follow,
    verify_all,
    verify_slice,
    verify_tail,
)
from app.storage.migrate import DatabaseRefused
from tests.app.ledger.books import Books, hold, opened, used

SEED = random.randrange(2**32)
FLIPS = 300
CALLS = 120

_texts = st.text(max_size=8)
_numbers = st.integers(0, 2**63 - 1)
_entries = st.tuples(_numbers, _texts, _texts, _texts, _numbers, _numbers, _numbers)


def chained(entries: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Rows of the journal, as the ledger would have written them."""
    rows, last = [], HEAD
    for seq, entry in enumerate(entries, 1):
        last = link(last, seq, *entry)  # type: ignore[arg-type]
        rows.append((seq, *entry, last))
    return rows


@given(st.lists(_entries, min_size=1, max_size=6), st.data())
def test_any_other_value_is_seen_where_it_stands(
    entries: list[tuple[object, ...]], data: st.DataObject
) -> None:
    rows = chained(entries)
    assert follow(Walk(), rows) == Walk(entries=len(rows), seq=len(rows), hash=rows[-1][-1])  # type: ignore[arg-type]
    at = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, 8))
    old = rows[at][column]
    new: object
    if isinstance(old, int):
        new = data.draw(
            st.one_of(_numbers, st.none(), st.floats(), _texts).filter(
                lambda value: value != old or type(value) is not type(old)
            )
        )
    elif isinstance(old, str):
        new = data.draw(
            st.one_of(_texts, st.binary(max_size=8), st.none()).filter(lambda v: v != old)
        )
    else:
        new = data.draw(st.binary(max_size=40).filter(lambda value: value != old))
    rows[at] = (*rows[at][:column], new, *rows[at][column + 1 :])
    walk = follow(Walk(), rows)
    assert (walk.entries, walk.first_bad) == (at, rows[at][0])


@given(st.lists(_entries, min_size=2, max_size=6, unique=True), st.data())
def test_an_entry_lost_moved_or_slipped_in_is_seen(
    entries: list[tuple[object, ...]], data: st.DataObject
) -> None:
    rows = chained(entries)
    at = data.draw(st.integers(0, len(rows) - 2))
    lost = rows[:at] + rows[at + 1 :]
    swapped = [*rows[:at], rows[at + 1], rows[at], *rows[at + 2 :]]
    twice = [*rows[: at + 1], *rows[at:]]
    for changed in (lost, swapped, twice):
        assert follow(Walk(), changed).first_bad is not None


async def keep_books(path: Path, calls: int) -> None:
    async with opened(path) as books:
        for number in range(calls):
            request = hold(1_000)
            await books.ledger.place_hold(request)
            await books.ledger.settle_hold(request.call_id, 500 + number, used(request.call_id))


def damaged(path: Path, sql: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER entries_no_update")
    connection.execute("DROP TRIGGER entries_no_delete")
    connection.execute(sql)
    return connection


async def test_walks_see_what_they_cover(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await keep_books(path, 30)
    connection = damaged(path, "UPDATE entries SET amount_nano_usd = 7 WHERE seq = 12")
    ask = connection.execute
    assert verify_all(ask).first_bad == 12
    assert verify_tail(ask, 1000).first_bad == 12
    assert verify_tail(ask, 20).first_bad == 12
    assert verify_tail(ask, 19) == Walk(entries=19, seq=31, hash=verify_tail(ask, 1).hash)
    assert verify_slice(ask, 0, 11).entries == 11
    assert verify_slice(ask, 0, 12).first_bad == 12
    assert verify_slice(ask, 12, 100).first_bad is None
    assert verify_slice(ask, 31, 100) == Walk(seq=31, hash=verify_tail(ask, 1).hash)
    with pytest.raises(DatabaseRefused, match=r"Entry 12 .* turnpike --data-dir .* restore BACKUP"):
        check_at_boot(connection)
    ask("DELETE FROM entries WHERE seq = 1")
    assert verify_all(ask).first_bad == 2
    ask("DELETE FROM entries")
    assert verify_all(ask) == verify_tail(ask) == Walk()
    ask("DROP TABLE entries")
    assert "cannot be read" in (verify_tail(ask).problem or "")
    connection.close()


async def test_the_watch_goes_round_and_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ledger.verify._SLICE_LENGTH_MIN", 25)
    monkeypatch.setattr("app.ledger.verify._SLICE_PAGE_LENGTH", 10)
    path = tmp_path / "ledger.db"
    await keep_books(path, 59)
    async with opened(path) as books:
        watch = JournalWatch(books.database)
        assert [await watch.check_slice() for _ in range(4)] == [30, 30, 30, 30]
        assert watch.problem is None
        await books.database.write(_break_journal)
        assert await watch.check_slice() == 30
        assert watch.problem is None
        assert await watch.check_slice() == 10
        assert "Entry 41 " in str(watch.problem)
        assert await watch.check_slice() == 0
        assert "Entry 41 " in str(watch.problem)


def _break_journal(tx) -> None:  # type: ignore[no-untyped-def]
    tx.execute("DROP TRIGGER entries_no_update")
    tx.execute("UPDATE entries SET subject = 'x' WHERE seq = 41")


def leaves(path: Path, table: str) -> list[int]:
    """Numbers of the pages that hold a table's rows, found by walking its tree."""
    connection = sqlite3.connect(path)
    (root,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
    ).fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = path.read_bytes()
    found, queue = [], [root]
    while queue:
        page = queue.pop()
        start = (page - 1) * size
        kind, cells = data[start], int.from_bytes(data[start + 3 : start + 5])
        found.append(page)
        if kind == 5:  # an inner page: a pointer per cell, and one more in its header
            pointers = [
                int.from_bytes(data[start + 12 + 2 * n : start + 14 + 2 * n]) for n in range(cells)
            ]
            queue += [int.from_bytes(data[start + at : start + at + 4]) for at in pointers]
            queue.append(int.from_bytes(data[start + 8 : start + 12]))
    return found


def journal_of(path: Path) -> list[tuple[object, ...]] | None:
    """Every value of the journal; None where SQLite itself cannot read them."""
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    try:
        return connection.execute("SELECT * FROM entries ORDER BY seq").fetchall()
    except sqlite3.Error:
        return None
    finally:
        connection.close()


async def test_single_bits_that_flip_in_the_journal_are_all_found(tmp_path: Path) -> None:
    """300 flips: whatever changes a value keeps the server from starting, and has its name."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    whole = tmp_path / "whole.db"
    await keep_books(whole, CALLS)
    original, pages = whole.read_bytes(), leaves(whole, "entries")
    assert len(pages) > 3
    expected = journal_of(whole)
    assert expected is not None
    changed = by_chain = 0
    for number in range(FLIPS):
        path = tmp_path / "flipped.db"
        at = (chance.choice(pages) - 1) * 4096 + chance.randrange(4096)
        data = bytearray(original)
        data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        if journal_of(path) == expected:
            continue
        changed += 1
        refusal = await refusal_of(path)
        assert refusal is not None, f"flip {number} at byte {at}"
        assert "restore" in refusal
        problems = audit_problems(path)
        assert problems, f"flip {number} at byte {at}"
        by_chain += "does not match its hash" in problems[0]
        path.unlink()
    assert changed > FLIPS // 2
    assert by_chain > 0


async def refusal_of(path: Path) -> str | None:
    """Why a server does not start on this file."""
    copy = Path(shutil.copy(path, path.with_name("boot.db")))
    try:
        async with opened(copy) as books:
            assert isinstance(books, Books)
    except DatabaseRefused as refused:
        return refused.message
    finally:
        for end in ("", "-wal", "-shm"):
            copy.with_name(copy.name + end).unlink(missing_ok=True)
    return None


def audit_problems(path: Path) -> list[str]:
    try:
        return audit_file(path).problems
    except DatabaseRefused as refused:
        return [refused.message]
