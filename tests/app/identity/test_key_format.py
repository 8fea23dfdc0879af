"""The written form of keys: long enough, unambiguous, and typo-proof."""

import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from app.identity import key_format
from app.identity.key_format import ALPHABET, KEY_LENGTH, new_key, parse_key, public_part

KEYS = [new_key()[0] for _ in range(50)]


def test_a_key_reads_back_as_its_parts() -> None:
    for _ in range(200):
        text, parts = new_key()
        assert len(text) == KEY_LENGTH
        assert re.fullmatch(r"tp_[0-9A-Za-z]{10}_[0-9A-Za-z]{36}", text)
        assert parse_key(text) == parts


def test_the_secret_has_at_least_160_bits_and_the_prefix_8_characters() -> None:
    assert key_format.SECRET_LENGTH * math.log2(len(ALPHABET)) >= 160
    assert key_format.PREFIX_LENGTH >= 8
    assert len(set(ALPHABET)) == 62


def test_keys_do_not_repeat_and_use_the_whole_alphabet() -> None:
    made = [new_key()[1] for _ in range(2000)]
    assert len({parts.prefix for parts in made}) == len(made)
    assert len({parts.secret for parts in made}) == len(made)
    assert {character for parts in made for character in parts.secret} == set(ALPHABET)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(KEYS), st.integers(0, KEY_LENGTH - 1), st.characters())
def test_one_wrong_character_is_noticed(key: str, at: int, character: str) -> None:
    typo = key[:at] + character + key[at + 1 :]
    assert (parse_key(typo) is None) == (typo != key)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KEYS), st.integers(0, KEY_LENGTH - 2))
def test_two_swapped_neighbours_are_noticed(key: str, at: int) -> None:
    swapped = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
    assert (parse_key(swapped) is None) == (swapped != key)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KEYS), st.integers(0, KEY_LENGTH), st.text(min_size=1, max_size=3))
def test_added_or_lost_characters_are_noticed(key: str, at: int, more: str) -> None:
    assert parse_key(key[:at] + more + key[at:]) is None
    assert parse_key(key[:at]) is None or at == KEY_LENGTH


def test_the_public_part_never_holds_any_of_the_secret() -> None:
    text, parts = new_key()
    assert public_part(text) == parts.prefix
    assert public_part(f"tp_{parts.prefix}") == parts.prefix
    assert public_part(parts.prefix) == parts.prefix
    assert public_part("key_0123") == "key_0123"
