"""The master key over own provider keys: a wrong one stops the start, changing it loses nothing."""

from pathlib import Path
from typing import Any

import pytest

from app.config_routing import Secrets
from app.errors import ConfigError
from app.identity import provider_key_rows
from app.identity.master_keys import FILE_NAME
from app.identity.sealing import new_master_key, parse_master_key
from tests.app.identity.own_room import SECRET, Room, room, spoil
from tests.app.identity.rig import HandClock


async def test_a_wrong_master_key_stops_the_start(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        kid = here.keys.own.of("user_1")["mock"].sealed.kid
    right = (tmp_path / FILE_NAME).read_text()
    wrong = new_master_key()
    (tmp_path / FILE_NAME).write_text(wrong)
    with pytest.raises(ConfigError, match="wrong master key") as caught:
        async with room(tmp_path):
            pass
    assert kid in caught.value.message
    assert str(tmp_path / FILE_NAME) in caught.value.message
    assert wrong not in caught.value.message

    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(ConfigError, match="master key is missing"):
        async with room(tmp_path):
            pass
    assert not (tmp_path / FILE_NAME).exists()  # no new one in the place of the lost one

    (tmp_path / FILE_NAME).write_text(right)
    async with room(tmp_path) as here:
        assert here.opened("user_1") == SECRET


async def test_a_wrong_configured_master_key_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = new_master_key(), new_master_key()
    configured = Secrets(master_key="env:TP_MASTER")
    monkeypatch.setenv("TP_MASTER", right)
    async with room(tmp_path, secrets=configured) as here:
        await here.put("user_1")
    assert not (tmp_path / FILE_NAME).exists()
    monkeypatch.setenv("TP_MASTER", wrong)
    with pytest.raises(ConfigError, match=r"^secrets\.master_key: the wrong master key"):
        async with room(tmp_path, secrets=configured):
            pass
    monkeypatch.setenv("TP_OLD", right)
    both = Secrets(master_key="env:TP_MASTER", old_master_keys=["env:TP_OLD"])
    async with room(tmp_path, secrets=both) as here:
        assert here.opened("user_1") == SECRET
        done = await here.keys.rotate()
        assert (done.rewrapped, done.unreadable) == (1, 0)
        assert done.kid == parse_master_key(wrong).kid
    async with room(tmp_path, secrets=configured) as here:  # the old one is no longer needed
        assert here.opened("user_1") == SECRET


async def test_a_damaged_check_value_stops_the_start(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
    spoil(tmp_path / "turnpike.db", "UPDATE master_keys SET check_value = zeroblob(36)")
    with pytest.raises(ConfigError, match=r"damaged\. Restore a backup"):
        async with room(tmp_path):
            pass


async def test_without_any_key_a_start_needs_no_certain_master_key(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        await here.keys.remove("user_1", "mock")
    (tmp_path / FILE_NAME).unlink()  # a backup, restored elsewhere
    async with room(tmp_path) as here:
        await here.put("user_1")
        assert here.opened("user_1") == SECRET


async def test_rotation_wraps_all_and_reading_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_key_rows, "ROWS_PER_WRITE", 3)
    async with room(tmp_path) as here:
        for number in range(10):
            await here.put(f"user_{number}", secret=f"{SECRET}-{number}")
        in_flight = here.keys.own.of("user_0")["mock"]
        first = in_flight.sealed.kid
        done = await here.keys.rotate()
        assert (done.rewrapped, done.unreadable) == (10, 0)
        assert done.kid != first
        for number in range(10):
            assert here.opened(f"user_{number}") == f"{SECRET}-{number}"
            assert here.keys.own.of(f"user_{number}")["mock"].sealed.kid == done.kid
        assert here.keys.own.open(in_flight) == f"{SECRET}-0"
        rows = await here.database.read("SELECT kid FROM master_keys")
        assert rows == [(done.kid,)]
    # The new key alone opens them all: the old line only matters for older backups.
    path = tmp_path / FILE_NAME
    path.write_text(path.read_text().split()[0])
    async with room(tmp_path) as here:
        assert here.opened("user_9") == f"{SECRET}-9"


async def test_a_rotation_that_was_cut_short_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_key_rows, "ROWS_PER_WRITE", 2)
    async with room(tmp_path) as here:
        for number in range(5):
            await here.put(f"user_{number}", secret=f"{SECRET}-{number}")
        writes = 0
        write = here.database.write

        async def dying(*args: Any, **kwargs: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == 2:
                raise OSError("the power went")
            return await write(*args, **kwargs)

        here.database.write = dying  # type: ignore[method-assign]
        with pytest.raises(OSError, match="power"):
            await here.keys.rotate()
        for number in range(5):
            assert here.opened(f"user_{number}") == f"{SECRET}-{number}"
        here.database.write = write  # type: ignore[method-assign]
    async with room(tmp_path) as here:
        for number in range(5):
            assert here.opened(f"user_{number}") == f"{SECRET}-{number}"
        done = await here.keys.rotate()
        assert (done.rewrapped, done.unreadable) == (5, 0)
    async with room(tmp_path) as here:
        assert here.opened("user_4") == f"{SECRET}-4"


async def test_what_no_key_opens_is_counted_and_can_be_forgotten(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
        await here.put("user_2")
    spoil(tmp_path / "turnpike.db", "UPDATE provider_keys SET hint = 'x' WHERE owner_id = 'user_1'")
    async with room(tmp_path) as here:
        done = await here.keys.rotate()
        assert (done.rewrapped, done.unreadable) == (1, 1)
        assert await here.keys.forget_unreadable() == 1
        assert dict(here.keys.own.of("user_1")) == {}
        assert here.opened("user_2") == SECRET
        assert await here.keys.forget_unreadable() == 0


async def test_a_lost_master_key_is_not_the_end(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.put("user_1")
    (tmp_path / FILE_NAME).unlink()
    there = Room(tmp_path, HandClock(), Secrets())
    await there.database.open()  # as the command line: no start, so no master key is asked for
    with pytest.raises(ConfigError, match="secrets forget"):
        await there.put("user_2")
    assert await there.keys.forget_unreadable() == 1
    await there.database.close()
    async with room(tmp_path) as here:
        assert await here.keys.list("user_1") == []
        await here.put("user_1")
        assert here.opened("user_1") == SECRET
