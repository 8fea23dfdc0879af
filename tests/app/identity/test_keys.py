"""Keys at rest: made, listed, revoked; and nothing on disk that could be used as one."""

import re

import pytest

from app.errors import InvalidKey, InvalidRequest, NotFound
from app.identity.key_format import parse_key
from tests.app.identity.rig import Rig


async def test_a_key_belongs_to_its_user_and_is_listed_without_its_secret(rig: Rig) -> None:
    user = await rig.users.add("alice", "free")
    info, text = await rig.keys.create("alice", "laptop")
    assert (info.user_id, info.user_name, info.name) == (user.id, "alice", "laptop")
    assert text.startswith(f"tp_{info.prefix}_")
    assert await rig.keys.list() == [info]
    assert info.revoked_at_ms is None
    assert info.last_used_at_ms is None


async def test_no_part_of_the_secret_is_on_disk_or_in_what_is_listed(rig: Rig) -> None:
    text = await rig.member()
    await rig.ring.authenticate(text)
    await rig.ring.close()
    parts = parse_key(text)
    assert parts is not None
    stored = b"".join(
        path.read_bytes() for path in rig.database.path.parent.iterdir() if path.is_file()
    )
    assert parts.prefix.encode() in stored
    for start in range(len(parts.secret) - 8):
        assert parts.secret[start : start + 8].encode() not in stored
    assert parts.secret not in repr(await rig.keys.list())


async def test_a_key_needs_a_user_and_a_printable_name(rig: Rig) -> None:
    with pytest.raises(NotFound, match="'nobody'"):
        await rig.keys.create("nobody", "laptop")
    await rig.users.add("alice", "free")
    for name in ("", "  ", "a\nb", "\x1b[31m", "x" * 65):
        with pytest.raises(InvalidRequest, match="printable"):
            await rig.keys.create("alice", name)
    assert await rig.keys.list() == []


@pytest.mark.parametrize("by", ["id", "prefix", "shown", "whole"])
async def test_a_key_is_revoked_by_whatever_names_it(rig: Rig, by: str) -> None:
    await rig.users.add("alice", "free")
    info, text = await rig.keys.create("alice", "laptop")
    other, _ = await rig.keys.create("alice", "phone")
    handle = {"id": info.id, "prefix": info.prefix, "shown": f"tp_{info.prefix}", "whole": text}[by]
    revoked = await rig.keys.revoke(handle)
    assert revoked.id == info.id
    assert revoked.revoked_at_ms == rig.clock.now_ms()
    assert await rig.keys.list() == [revoked, other]


async def test_revoking_twice_keeps_the_first_moment(rig: Rig) -> None:
    await rig.users.add("alice", "free")
    info, _ = await rig.keys.create("alice", "laptop")
    first = await rig.keys.revoke(info.id)
    rig.clock.advance(100)
    assert await rig.keys.revoke(info.id) == first


async def test_revoking_an_unknown_key_does_not_repeat_it(rig: Rig) -> None:
    with pytest.raises(NotFound) as caught:
        await rig.keys.revoke("tp_AAAAAAAAAA_SECRETSECRET")
    assert "AAAA" not in caught.value.message
    assert "SECRET" not in caught.value.message


async def test_two_users_keys_stay_apart(rig: Rig) -> None:
    alice, bob = await rig.member("alice"), await rig.member("bob")
    assert (await rig.ring.authenticate(alice)).user_name == "alice"
    assert (await rig.ring.authenticate(bob)).user_name == "bob"
    mixed = alice[:14] + bob[14:]
    assert re.fullmatch(r"tp_\w{10}_\w{36}", mixed)
    with pytest.raises(InvalidKey):
        await rig.ring.authenticate(mixed)
