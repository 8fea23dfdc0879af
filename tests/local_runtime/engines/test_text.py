"""Text from bytes: no half characters, no part of a stop string, however the bytes are cut."""

from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.text import TextAssembler

# Few letters, so that stop strings and their beginnings come up all the time.
LETTERS = st.sampled_from("aabbcé🌱\n")
TEXTS = st.text(LETTERS, max_size=40)
STOPS = st.lists(st.text(LETTERS, min_size=1, max_size=5), max_size=4)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """The first place where a stop string is complete ends the text; the longest one there."""
    for end in range(1, len(text) + 1):
        complete = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(complete)], True
    return text, False


@given(TEXTS, STOPS, st.lists(st.integers(0, 200), max_size=12))
def test_the_cuts_make_no_difference(text: str, stops: list[str], places: list[int]) -> None:
    assembler = TextAssembler(stops)
    shown = ""
    for part in cut(text.encode(), places):
        shown += assembler.push(part)
        # Nothing shown may have to be taken back later.
        assert expected(text, stops)[0].startswith(shown)
    shown += assembler.flush()
    assert (shown, assembler.stopped) == expected(text, stops)


@given(TEXTS)
def test_nothing_is_held_back_without_reason(text: str) -> None:
    assembler = TextAssembler(["xyz"])
    assert assembler.push(text.encode()) == text


def test_a_character_is_shown_when_it_is_complete() -> None:
    assembler = TextAssembler()
    first, second = "🌱".encode()[:2], "🌱".encode()[2:]
    assert assembler.push(first) == ""
    assert assembler.push(second) == "🌱"


def test_half_a_character_at_the_end_is_dropped() -> None:
    assembler = TextAssembler(["stop"])
    assert assembler.push("ab🌱".encode()[:-1]) + assembler.flush() == "ab"


def test_bytes_that_are_no_text() -> None:
    assert TextAssembler().push(b"a\xffb") == "a�b"


def test_a_beginning_of_a_stop_string_comes_out_at_the_end() -> None:
    assembler = TextAssembler(["STOP"])
    assert assembler.push(b"one ST") == "one "
    assert assembler.flush() == "ST"


def test_after_a_stop_string_nothing_is_shown() -> None:
    assembler = TextAssembler(["STOP"])
    assert assembler.push(b"one STOP two") == "one "
    assert assembler.push(b"three") + assembler.flush() == ""
    assert assembler.stopped
