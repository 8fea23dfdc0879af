"""The ring: who a bearer string stands for, and how soon a change is seen."""

import asyncio
import hashlib
import hmac
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from app.errors import InvalidKey
from app.identity import key_format
from app.identity import keys as keys_module
from app.identity.key_format import ALPHABET, KEY_LENGTH, new_key
from app.storage.database import Row
from tests.app.identity.rig import Rig


async def test_a_good_key_is_its_user(rig: Rig) -> None:
    key = await rig.member("alice", "pro")
    principal = await rig.ring.authenticate(key)
    user = await rig.users.by_name("alice")
    assert (principal.user_id, principal.user_name) == (user.id, "alice")
    assert principal.key_id == (await rig.keys.list())[0].id
    assert not principal.owner


async def test_only_an_owner_is_an_owner(rig: Rig) -> None:
    await rig.users.add("root", "pro", role="owner")
    _, key = await rig.keys.create("root", "laptop")
    assert (await rig.ring.authenticate(key)).owner


async def test_the_cache_serves_without_the_database_for_at_most_ten_minutes(rig: Rig) -> None:
    key = await rig.member()
    assert rig.ring.cached(key) is None
    principal = await rig.ring.authenticate(key)
    reads = rig.database.reads
    rig.clock.advance(599)
    assert rig.ring.cached(key) == principal
    assert rig.database.reads == reads
    rig.clock.advance(1)
    assert rig.ring.cached(key) is None


async def test_the_cache_knows_a_key_by_all_of_it(rig: Rig) -> None:
    key = await rig.member()
    await rig.ring.authenticate(key)
    for other in (key[:-1], key[1:], key + "0", key[:-1] + "~", key.swapcase(), "\udcff" * 50, ""):
        assert rig.ring.cached(other) is None


async def test_a_revoked_key_stops_at_once(rig: Rig) -> None:
    key = await rig.member()
    await rig.ring.authenticate(key)
    await rig.keys.revoke(key)
    assert rig.ring.cached(key) is None
    with pytest.raises(InvalidKey, match="revoked"):
        await rig.ring.authenticate(key)
    assert rig.ring.cached(key) is None


async def test_a_change_of_a_user_is_noticed_at_once_and_only_for_that_user(rig: Rig) -> None:
    alice, bob = await rig.member("alice"), await rig.member("bob")
    for key in (alice, bob):
        await rig.ring.authenticate(key)
    await rig.users.set_tier("alice", "pro")
    assert rig.ring.cached(alice) is None
    assert rig.ring.cached(bob) is not None


async def test_a_revocation_wins_over_a_read_that_began_before_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await rig.member()
    read = rig.database.read

    async def slow_read(sql: str, params: Any = ()) -> list[Row]:
        rows = await read(sql, params)
        monkeypatch.setattr(rig.database, "read", read)
        await rig.keys.revoke(key)
        return rows

    monkeypatch.setattr(rig.database, "read", slow_read)
    await rig.ring.authenticate(key)  # began before the revocation was committed
    assert rig.ring.cached(key) is None


async def test_a_revocation_whose_caller_left_is_seen_too(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await rig.member()
    await rig.ring.authenticate(key)
    write, reached, go_on = rig.database.write, asyncio.Event(), asyncio.Event()

    async def slow_write(unit: Callable[[Any], Any]) -> Any:
        reached.set()
        await go_on.wait()
        return await write(unit)

    monkeypatch.setattr(rig.database, "write", slow_write)
    caller = asyncio.create_task(rig.keys.revoke(key))
    await reached.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert rig.ring.cached(key) is not None
    seen = asyncio.Event()
    rig.keys.watch(lambda key_id: seen.set())
    go_on.set()
    async with asyncio.timeout(5):
        await seen.wait()
    assert rig.ring.cached(key) is None
    with pytest.raises(InvalidKey, match="revoked"):
        await rig.ring.authenticate(key)


async def test_invalidate_all(rig: Rig) -> None:
    keys = [await rig.member("alice"), await rig.member("bob")]
    for key in keys:
        await rig.ring.authenticate(key)
    rig.ring.invalidate()
    assert [rig.ring.cached(key) for key in keys] == [None, None]


async def test_the_cache_is_bounded_and_drops_the_oldest(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "CACHE_ENTRIES_MAX", 5)
    keys = [await rig.member(f"user{number}") for number in range(8)]
    for key in keys:
        await rig.ring.authenticate(key)
    remembered = [rig.ring.cached(key) is not None for key in keys]
    assert remembered == [False] * 3 + [True] * 5


async def test_last_use_is_noted_at_most_once_a_minute(rig: Rig) -> None:
    key = await rig.member()

    async def last_used() -> int | None:
        await rig.ring.authenticate(key)
        await rig.ring.close()
        return (await rig.keys.list())[0].last_used_at_ms

    first = rig.clock.now_ms()
    assert await last_used() == first
    rig.clock.advance(59)
    assert await last_used() == first
    rig.clock.advance(1)
    assert await last_used() == first + 60_000


async def test_a_note_of_last_use_that_fails_fails_no_call(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = await rig.member()

    async def broken(key_id: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(rig.keys, "touch", broken)
    assert (await rig.ring.authenticate(key)).user_name == "alice"
    await rig.ring.close()
    assert "could not be noted" in caplog.text
    assert key not in caplog.text


async def test_an_unknown_key_costs_a_comparison_too(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def spy(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    with pytest.raises(InvalidKey, match="not known"):
        await rig.ring.authenticate(new_key()[0])
    assert len(compared) == 1


async def test_a_key_whose_digest_is_all_zero_cannot_stand_in_for_an_unknown_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_format, "digest", lambda secret: bytes(32))
    with pytest.raises(InvalidKey):
        await rig.ring.authenticate(new_key()[0])


async def test_messages_say_what_to_do_and_never_hold_the_key(rig: Rig) -> None:
    known = await rig.member()
    revoked = (await rig.keys.create("alice", "old"))[1]
    await rig.keys.revoke(revoked)
    cases = {
        "": "Authorization: Bearer",
        "sk-proj-0123456789": "Copy it again",
        known[:-1] + ("a" if known[-1] != "a" else "b"): "check characters",
        new_key()[0]: "turnpike keys create",
        revoked: "revoked",
    }
    for bearer, words in cases.items():
        with pytest.raises(InvalidKey) as caught:
            await rig.ring.authenticate(bearer)
        assert words in caught.value.message
        assert not bearer or bearer not in repr(caught.value) + caught.value.message
        assert caught.value.status == 401


def _with_check(body: str) -> str:
    """A well-formed key around any prefix and secret, computed apart from the code under test."""
    number, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, remainder = divmod(number, 62)
        check = ALPHABET[remainder] + check
    return body + check


def _hostile(generator: random.Random, real: str) -> str:
    sql = ["' OR '1'='1", "'; DROP TABLE api_keys; --", '" OR ""="', "%", "_" * 10, "\\", "\x00"]
    pieces = [*sql, real, real[:20], real.upper(), "tp_", "é", "🔑", "\udcff", "\r\n", "Bearer "]
    match generator.randrange(5):
        case 0:
            return "".join(generator.choice(pieces) for _ in range(generator.randrange(6)))
        case 1:
            return "".join(chr(generator.randrange(0x110000)) for _ in range(KEY_LENGTH))
        case 2:
            at, wrong = generator.randrange(KEY_LENGTH), generator.choice(pieces)
            return real[:at] + wrong + real[at + len(wrong) :]
        case 3:
            letters = "".join(generator.choice(ALPHABET) for _ in range(40))
            return _with_check(f"tp_{letters[:10]}_{letters[10:]}")
        case _:
            return "x" * generator.choice([1, 1000, 100_000])


async def test_3000_hostile_bearer_strings_are_refused(rig: Rig) -> None:
    real = await rig.member()
    generator = random.Random(20)
    refused_unread = 0
    for _ in range(3000):
        bearer = _hostile(generator, real)
        if bearer == real:
            continue
        reads = rig.database.reads
        assert rig.ring.cached(bearer) is None
        with pytest.raises(InvalidKey):
            await rig.ring.authenticate(bearer)
        refused_unread += rig.database.reads == reads
    assert refused_unread > 2000  # all but the well-formed ones, about a fifth
    assert (await rig.ring.authenticate(real)).user_name == "alice"
    assert len(await rig.keys.list()) == 1


async def test_a_known_prefix_with_another_secret_is_refused(rig: Rig) -> None:
    real = await rig.member()
    for _ in range(20):
        forged = _with_check(real[:14] + new_key()[1].secret)
        with pytest.raises(InvalidKey, match="not known"):
            await rig.ring.authenticate(forged)


async def test_refusals_are_not_remembered(rig: Rig) -> None:
    await rig.users.add("alice", "free")
    info, key = await rig.keys.create("alice", "laptop")
    stored = hashlib.sha256(key[14:44].encode()).digest()
    change = "UPDATE api_keys SET secret_hash = ? WHERE id = ?"
    await rig.database.write(lambda tx: tx.execute(change, (bytes(32), info.id)))
    with pytest.raises(InvalidKey):
        await rig.ring.authenticate(key)
    await rig.database.write(lambda tx: tx.execute(change, (stored, info.id)))
    assert (await rig.ring.authenticate(key)).key_id == info.id
