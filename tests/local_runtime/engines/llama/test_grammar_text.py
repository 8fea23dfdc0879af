"""Grammars that come with a request: what may be given to native code, and what it makes of it."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.grammar_text import checked
from local_runtime.engines.llama.sampling import Sampler, SamplingSpec
from tests.local_runtime.calls import reason_of, text_of
from tests.local_runtime.engines.llama.driving import failure, one

GOOD = [
    'root ::= "yes" | "no"',
    '# a comment\nroot ::= item ("," item)* # more\nitem ::= [a-z]{1,3}\n',
    'root ::= (\n  "a"\n  | b\n)\nb ::= [^"\\\\\\x7F\\x00-\\x1F]+ .? "\\U0001F331"',
    "root ::= <[42]> !<[43]>",
    'root ::= "a" root | "b" tail\ntail ::= ("c" root)?',
    'root ::= [0-9]+ ("." [0-9]+)? (" " word){0,9}\nword ::= [a-z]+',
]
BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "no rule named root"),
    "no root": ('main ::= "a"', "no rule named root"),
    "undefined": ('root ::= "a"\n  b', "'::='"),
    "unknown rule": ('root ::= "a" thing', "'thing' is used and not defined"),
    "defined twice": ('root ::= "a"\nroot ::= "b"', "twice"),
    "open literal": ('root ::= "a', "a closed literal"),
    "open class": ("root ::= [a-z", "a closed character class"),
    "open group": ('root ::= ("a"', "is missing"),
    "wrong escape": (r'root ::= "\q"', "a closed literal"),
    "beyond unicode": (r'root ::= "\UFFFFFFFF"', "a closed literal"),
    # llama.cpp takes this to mean any number of times.
    "too many repetitions": ('root ::= "a"{0,5000}', "more than 2000"),
    "backwards": ('root ::= "a"{5,2}', "below its start"),
    "too deep": ("root ::= " + "(" * 100_000, "nested"),
    "too large": ('root ::= ("a"{1000}){1000}', "too large"),
    "many large": ("root ::= " + '"a"{2000} ' * 100, "too large"),
    "embedded": ('root ::= "a" root "b" | "a" root "c" |', "contains itself"),
    "embedded far": ('root ::= "a" (x | "b")* \nx ::= y\ny ::= "(" root', "contains itself"),
    "embedded twice": ('root ::= "a" root root |', "contains itself"),
    "nothing repeated": ('root ::= a{0,9}\na ::= b b\nb ::= "x"?', "may be empty"),
    "nothing for ever": ('root ::= ("x" | "y"*)+', "may be empty"),
    "NUL": ('root ::= "a\0"', "NUL"),
}


@pytest.mark.parametrize("grammar", GOOD)
def test_good_grammars_are_taken(loaded: LlamaEngine, grammar: str) -> None:
    sampler = Sampler(loaded._model, SamplingSpec(), [], index=0, window=8)
    sampler.constrain(checked(grammar))
    sampler.close()


@pytest.mark.parametrize("name", BAD)
def test_bad_ones_are_refused_with_their_line(name: str) -> None:
    grammar, reason = BAD[name]
    with pytest.raises(RequestRefused, match=f"grammar, line .*{reason}") as caught:
        checked(grammar)
    assert caught.value.param == "grammar"


@given(st.text(alphabet='root::=\n "[]()|*+?{},19ab\\-^.#<>!', max_size=60))
def test_nothing_but_a_refusal_comes_of_it(text: str) -> None:
    try:
        checked("root ::= " + text)
    except RequestRefused as refused:
        assert refused.param == "grammar"


def test_left_recursion_is_refused_by_llama_cpp(engine: LlamaEngine) -> None:
    failed = failure(one(engine, grammar='root ::= root | "b"'))
    assert failed.param == "grammar"


@pytest.mark.parametrize(
    ("grammar", "texts"),
    [
        ('root ::= "yes" | "no"', {"yes", "no"}),
        ("root ::= [ab] [^\\U00000000-\\U0000007F] ", None),
        ('root ::= "<tag>" ("x" | "é" | "🌱") "</tag>"', {f"<tag>{c}</tag>" for c in "xé🌱"}),
    ],
)
def test_answers_keep_to_it(engine: LlamaEngine, grammar: str, texts: set[str] | None) -> None:
    for seed in range(3):
        events = one(engine, "Go on.", grammar=grammar, max_tokens=30, temperature=1.5, seed=seed)
        assert reason_of(events) == "stop"
        text = text_of(events)
        if texts is not None:
            assert text in texts
        else:
            assert len(text) == 2 and text[0] in "ab" and not text[1].isascii()


def test_control_tokens_do_not_count_as_their_names(engine: LlamaEngine) -> None:
    """llama.cpp's grammar takes <|im_start|> for twelve letters, of which nobody sees any."""
    model = engine._model
    control = model.tokenize("<|im_start|>", add_special=False, parse_special=True)
    assert len(control) == 1 and model.piece(control[0]) == b""
    schema: dict[str, Any] = {"type": "string", "minLength": 6, "maxLength": 14}
    asked = {"type": "json_schema", "json_schema": {"schema": schema}}
    for seed in range(3):
        events = one(
            engine,
            response_format=asked,
            logit_bias={str(control[0]): 100},
            max_tokens=60,
            temperature=1,
            seed=seed,
        )
        assert reason_of(events) == "stop"
        assert 6 <= len(text_of(events)) - 2 <= 14


def test_a_banned_end_does_not_break_a_complete_answer(engine: LlamaEngine) -> None:
    ends = dict.fromkeys(map(str, engine._model.end_tokens), -100)
    events = one(engine, grammar='root ::= "yes"', logit_bias=ends, max_tokens=10)
    assert (text_of(events), reason_of(events)) == ("yes", "stop")


def test_a_text_with_too_many_readings_ends(loaded: LlamaEngine) -> None:
    """As from a schema whose alternatives overlap and contain each other: their number doubles
    with each letter, and the step that takes too long is the last."""
    model = loaded._model
    sampler = Sampler(model, SamplingSpec(temperature=0), [], index=0, window=8)
    sampler.constrain('root ::= "a" root "b" | "a" root "c" | ""')
    (letter,) = model.tokenize("a", add_special=False, parse_special=False)
    logits = np.zeros(model.vocab_size, dtype=np.float32)
    logits[letter] = 9
    begun_s = time.thread_time()
    for _ in range(40):
        if sampler.choose(logits) is None:
            break
        assert sampler.follow([letter])
    else:
        raise AssertionError("it went on")
    assert time.thread_time() - begun_s < 20
    sampler.close()
