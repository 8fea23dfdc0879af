"""Laws of sealing: what went in comes out, and nothing that was changed or moved opens."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.identity.sealing import (
    KID_LENGTH,
    NONCE_BYTES,
    Context,
    MasterKey,
    MasterKeys,
    SealBroken,
    Sealed,
    new_master_key,
    parse_master_key,
)

OLD, NEW, STRANGE = MasterKey(b"o" * 32), MasterKey(b"n" * 32), MasterKey(b"s" * 32)
SECRETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200)
PARTS = st.text(max_size=20) | st.integers(-(2**53), 2**53) | st.none()
CONTEXTS = st.lists(PARTS, max_size=6).map(tuple)
HERE: Context = ("table", "row", "owner", "provider")


@given(SECRETS, CONTEXTS)
def test_what_was_sealed_opens_where_it_belongs(secret: str, context: Context) -> None:
    keys = MasterKeys(NEW, OLD)
    sealed = keys.seal(secret, context)
    assert sealed.kid == NEW.kid
    assert keys.open(sealed, context) == secret
    assert MasterKeys(OLD, NEW).open(sealed, context) == secret
    assert secret.encode() not in sealed.box + sealed.wrapped_key or len(secret) < 3


@given(CONTEXTS, CONTEXTS)
def test_it_opens_nowhere_else(here: Context, elsewhere: Context) -> None:
    keys = MasterKeys(NEW)
    sealed = keys.seal("sk-secret", here)
    assert keys.vouch(sealed, here)
    assert keys.vouch(sealed, elsewhere) == (here == elsewhere)
    if here == elsewhere:
        assert keys.open(sealed, elsewhere) == "sk-secret"
    else:
        with pytest.raises(SealBroken):
            keys.open(sealed, elsewhere)
        with pytest.raises(SealBroken):
            keys.rewrap(sealed, elsewhere)


def test_parts_of_a_context_do_not_run_together() -> None:
    keys = MasterKeys(NEW)
    for other in (("table", "rowowner", "", "provider"), ("table", "row", "ownerprovider", "")):
        with pytest.raises(SealBroken):
            keys.open(keys.seal("sk", HERE), other)
    with pytest.raises(SealBroken):
        keys.open(keys.seal("sk", ("table", 1)), ("table", "1"))


@given(st.sampled_from(["wrapped_key", "box"]), st.integers(0, 10_000), st.integers(0, 7))
def test_no_flipped_bit_opens(field: str, at: int, bit: int) -> None:
    keys = MasterKeys(NEW, OLD)
    sealed = keys.seal("sk-secret", HERE)
    spoilt = bytearray(getattr(sealed, field))
    spoilt[at % len(spoilt)] ^= 1 << bit
    parts = {"kid": sealed.kid, "wrapped_key": sealed.wrapped_key, "box": sealed.box}
    with pytest.raises(SealBroken):
        keys.open(Sealed(**{**parts, field: bytes(spoilt)}), HERE)  # type: ignore[arg-type]


@given(st.binary(max_size=100), st.binary(max_size=100), st.sampled_from([OLD, NEW, STRANGE]))
def test_garbage_does_not_open(wrapped_key: bytes, box: bytes, master: MasterKey) -> None:
    with pytest.raises(SealBroken):
        MasterKeys(NEW, OLD).open(Sealed(kid=master.kid, wrapped_key=wrapped_key, box=box), HERE)


def test_parts_of_two_seals_do_not_mix() -> None:
    keys = MasterKeys(NEW, OLD)
    one, two = keys.seal("sk-one", HERE), keys.seal("sk-two", HERE)
    for mixed in (
        Sealed(kid=one.kid, wrapped_key=one.wrapped_key, box=two.box),
        Sealed(kid=OLD.kid, wrapped_key=one.wrapped_key, box=one.box),
        Sealed(kid=one.kid, wrapped_key=one.box, box=one.wrapped_key),
    ):
        with pytest.raises(SealBroken):
            keys.open(mixed, HERE)


@given(SECRETS, CONTEXTS)
def test_a_rewrapped_secret_needs_the_new_key_only(secret: str, context: Context) -> None:
    before = MasterKeys(OLD).seal(secret, context)
    after = MasterKeys(NEW, OLD).rewrap(before, context)
    assert (after.kid, after.box) == (NEW.kid, before.box)
    assert MasterKeys(NEW).open(after, context) == secret
    for keys in (MasterKeys(OLD), MasterKeys(STRANGE)):
        with pytest.raises(SealBroken):
            keys.open(after, context)


def test_nonces_and_data_keys_are_fresh_each_time() -> None:
    keys = MasterKeys(NEW)
    seals = [keys.seal("sk-secret", HERE) for _ in range(500)]
    for field in ("wrapped_key", "box"):
        assert len({getattr(sealed, field)[:NONCE_BYTES] for sealed in seals}) == 500
    assert len({sealed.box[NONCE_BYTES:] for sealed in seals}) == 500


def test_a_check_value_tells_its_key_from_every_other() -> None:
    value = OLD.check_value()
    assert OLD.is_of(value)
    assert not NEW.is_of(value)
    for at in range(len(value)):
        assert not OLD.is_of(value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
    assert not OLD.is_of(b"")


def test_the_id_of_a_key_is_short_and_tells_nothing_of_it() -> None:
    assert len(OLD.kid) == KID_LENGTH
    assert len({OLD.kid, NEW.kid, STRANGE.kid}) == 3
    assert repr(OLD) == f"MasterKey({OLD.kid})"
    assert MasterKeys(NEW, OLD, NEW).kids == [NEW.kid, OLD.kid]


def test_no_error_holds_a_secret() -> None:
    keys = MasterKeys(NEW)
    sealed = keys.seal("sk-very-secret", HERE)
    for opener, context in ((keys, ("x",)), (MasterKeys(OLD), HERE)):
        with pytest.raises(SealBroken) as caught:
            opener.open(sealed, context)
        assert "sk-very" not in repr(caught.value) + str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.binary(min_size=32, max_size=32))
def test_a_master_key_is_read_in_either_alphabet(key: bytes) -> None:
    expected = MasterKey(key).kid
    for text in (base64.b64encode(key), base64.urlsafe_b64encode(key)):
        assert parse_master_key(text.decode()).kid == expected
        assert parse_master_key(text.decode().rstrip("=")).kid == expected


def test_new_master_keys_differ_and_parse() -> None:
    texts = {new_master_key() for _ in range(50)}
    assert len(texts) == 50
    assert len({parse_master_key(text).kid for text in texts}) == 50


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: base64.b64encode(b).decode()))
def test_what_is_no_master_key_is_refused_without_repeating_it(text: str) -> None:
    try:
        parse_master_key(text)
    except ValueError as error:
        assert "expected 32 bytes as base64" in str(error)
        assert len(text) < 8 or text not in str(error)
    else:
        padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
        assert len(base64.b64decode(padded, validate=True)) == 32
