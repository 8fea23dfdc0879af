"""Own provider keys over a real database: set, listed, removed, rotated; and never readable by
whoever has the database, or changed anything in it."""

import asyncio
import base64
import contextlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest, NotFound
from app.identity.master_keys import FILE_NAME
from app.identity.provider_keys import check_secret
from app.identity.sealing import SealBroken, parse_master_key
from tests.app.identity.own_room import SECRET, room, spoil


async def test_a_key_is_set_opened_listed_and_removed(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        info = await here.keys.put("user_1", "mock", SECRET, paid_fallback=True, set_by="operator")
        assert (info.hint, info.paid_fallback, info.set_by) == ("efgh", True, "operator")
        assert await here.keys.list("user_1") == [info]
        assert await here.keys.list("user_2") == []
        own = here.keys.own.of("user_1")
        assert list(own) == ["mock"]
        assert (own["mock"].paid_fallback, own["mock"].owner_id) == (True, "user_1")
        assert here.opened("user_1") == SECRET
        assert dict(here.keys.own.of("user_2")) == {}

        assert await here.keys.remove("user_1", "mock") == info
        assert list(own) == ["mock"]  # what a running call holds does not change
        assert dict(here.keys.own.of("user_1")) == {}
        with pytest.raises(NotFound):
            await here.keys.remove("user_1", "mock")


async def test_there_is_one_key_for_each_owner_and_provider(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        before = here.keys.own.of("user_1")["mock"]
        await here.put("user_1", secret="sk-other-0123456789-ijkl")
        await here.put("user_1", "second", "short")
        await here.put("org_1", secret="sk-org-0123456789-mnopqrs")
        assert here.opened("user_1") == "sk-other-0123456789-ijkl"
        assert here.keys.own.open(before) == SECRET  # a call that had begun with it
        listed = await here.keys.list("user_1")
        assert [(key.provider, key.hint) for key in listed] == [("mock", "ijkl"), ("second", None)]
        assert here.opened("org_1") == "sk-org-0123456789-mnopqrs"


async def test_another_start_finds_them_all(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        for owner in ("user_1", "user_2", "org_1"):
            await here.put(owner, secret=f"{SECRET}-{owner}")
            await here.put(owner, "second", f"second-{owner}")
    async with room(tmp_path) as here:
        for owner in ("user_1", "user_2", "org_1"):
            assert here.opened(owner) == f"{SECRET}-{owner}"
            assert here.opened(owner, "second") == f"second-{owner}"


async def test_looking_up_and_opening_reads_no_database(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        await here.database.close()
        assert here.opened("user_1") == SECRET


@pytest.mark.parametrize(
    "secret",
    ["", "with space", "line\nend", "line\r\nend", "tab\t", "nul\0", "ünïcode", "x" * 4097, "\x7f"],
)
async def test_what_cannot_be_a_key_is_refused_and_not_repeated(
    tmp_path: Path, secret: str
) -> None:
    async with room(tmp_path) as here:
        with pytest.raises(InvalidRequest) as caught:
            await here.put("user_1", secret=secret)
        assert caught.value.param == "secret"
        assert len(secret) < 4 or secret not in caught.value.message
        assert await here.keys.list("user_1") == []


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=4096))
def test_every_printable_text_is_a_key(secret: str) -> None:
    check_secret(secret)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_no_file_of_the_data_directory_has_the_secret_in_it(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        await here.keys.rotate()
        contents = contents_of(tmp_path)  # the write-ahead log among them
        master = contents.pop(FILE_NAME).split()
        assert len(master) == 2
        assert len(contents) >= 2
        for content in contents.values():
            for canary in (SECRET.encode(), *master, *map(base64.b64decode, master)):
                assert canary not in content


COLUMNS = (
    *("owner_id", "provider", "id", "hint", "paid_fallback", "set_by", "created_at_ms"),
    *("kid", "wrapped_key", "box"),
)


@pytest.mark.parametrize("column", COLUMNS)
async def test_values_swapped_between_rows_open_nothing(tmp_path: Path, column: str) -> None:
    """Another owner's row, made to look like one's own."""
    async with room(tmp_path) as here:
        await here.put("user_1", secret="sk-of-user-1")
        here.clock.advance(1)
        await here.keys.put("user_2", "second", SECRET, paid_fallback=True, set_by="operator")
        await here.keys.rotate()
        await here.put("user_3")  # sealed under the key that user_1's and user_2's now are too
    path = tmp_path / "turnpike.db"
    connection = sqlite3.connect(path)
    (theirs,) = connection.execute(
        f"SELECT {column} FROM provider_keys WHERE owner_id = 'user_2'"
    ).fetchone()
    connection.close()
    if column == "id":
        spoil(path, "DELETE FROM provider_keys WHERE owner_id = 'user_2'")
    if column == "kid":
        theirs = parse_master_key((tmp_path / FILE_NAME).read_text().split()[1]).kid
    spoil(path, f"UPDATE provider_keys SET {column} = ? WHERE owner_id = 'user_1'", theirs)
    async with room(tmp_path) as here:
        owner = "user_2" if column == "owner_id" else "user_1"
        provider = "second" if column == "provider" else "mock"
        with pytest.raises(SealBroken):
            here.opened(owner, provider)
        assert here.opened("user_3") == SECRET


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["wrapped_key", "box"]), st.integers(0, 10_000), st.integers(0, 7))
async def test_bits_flipped_on_disk_open_nothing(
    tmp_path_factory: pytest.TempPathFactory, column: str, at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    async with room(folder) as here:
        await here.put("user_1")
    connection = sqlite3.connect(folder / "turnpike.db")
    (value,) = connection.execute(f"SELECT {column} FROM provider_keys").fetchone()
    connection.close()
    spoilt = bytearray(value)
    spoilt[at % len(spoilt)] ^= 1 << bit
    spoil(folder / "turnpike.db", f"UPDATE provider_keys SET {column} = ?", bytes(spoilt))
    async with room(folder) as here:
        with pytest.raises(SealBroken):
            here.opened("user_1")


async def test_an_altered_row_cannot_allow_paid_routes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        await here.keys.put("user_2", "mock", SECRET, paid_fallback=True, set_by="user_2")
    spoil(tmp_path / "turnpike.db", "UPDATE provider_keys SET paid_fallback = 1")
    async with room(tmp_path) as here:
        assert here.keys.own.of("user_1")["mock"].paid_fallback is False
        assert here.keys.own.of("user_2")["mock"].paid_fallback is True
        with pytest.raises(SealBroken):
            here.opened("user_1")
    assert "the key of user_1 for mock was altered" in caplog.text


async def test_what_was_written_is_known_though_nobody_waited(tmp_path: Path) -> None:
    """The client left: the row is there all the same, and so must the memory be."""
    async with room(tmp_path) as here:
        for number in range(50):
            asking = asyncio.create_task(here.put("user_1", secret=f"{SECRET}-{number}"))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        await here.put("user_2")  # comes behind all of them
        rows = await here.database.read("SELECT id FROM provider_keys WHERE owner_id = 'user_1'")
        assert [row[0] for row in rows] == [key.id for key in here.keys.own.of("user_1").values()]
        assert here.opened("user_1").startswith(SECRET)


async def test_use_and_failure_are_noted_at_most_once_a_minute(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        own = here.keys.own
        key = own.of("user_1")["mock"]
        began_ms = here.clock.now_ms()
        for seconds in (0, 20, 39, 2):
            here.clock.advance(seconds)
            own.note_use(key)
            own.note_failure(key, "auth" if seconds == 0 else "rate_limited")
            await own.close()
            (info,) = await here.keys.list("user_1")
            late_ms = 61_000 if seconds == 2 else 0
            assert info.last_used_at_ms == began_ms + late_ms
            assert info.last_failed_at_ms == began_ms + late_ms
            assert info.last_failure == ("rate_limited" if late_ms else "auth")


async def test_a_note_that_cannot_be_written_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        key = here.keys.own.of("user_1")["mock"]
        await here.database.close()
        here.keys.own.note_use(key)
        await here.keys.own.close()
        assert "could not be noted" in caplog.text
        assert SECRET not in caplog.text


async def test_nothing_that_is_printed_holds_a_secret(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        info = await here.keys.put("user_1", "mock", SECRET, paid_fallback=False, set_by="x")
        key = here.keys.own.of("user_1")["mock"]
        shown = f"{key!r} {key} {info!r} {here.keys.own.of('user_1')!r} {here.source.load()!r}"
        assert SECRET not in shown
        assert key.sealed.box.hex() not in shown
        assert "efgh" in shown  # the hint, and no more
