"""Fifty schemas: every text of their grammars is valid, whoever writes it."""

import json
from typing import Any

import pytest

from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.grammar import grammar_of
from tests.local_runtime.calls import reason_of, text_of
from tests.local_runtime.engines.llama.driving import one
from tests.local_runtime.engines.llama.fifty import RECURSIVE, SCHEMAS
from tests.local_runtime.engines.llama.judging import valid
from tests.local_runtime.engines.llama.writing import Runaway, Writer

TEXTS = 60


def asked(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}


def test_there_are_fifty() -> None:
    assert len(SCHEMAS) == 50


@pytest.mark.parametrize("name", SCHEMAS | RECURSIVE)
def test_every_text_of_the_grammar_is_valid(name: str) -> None:
    schema = (SCHEMAS | RECURSIVE)[name]
    writer = Writer(grammar_of(asked(schema)) or "")
    written = 0
    for seed in range(TEXTS):
        try:
            text = writer.text(seed)
        except Runaway:
            continue
        written += 1
        assert valid(json.loads(text), schema), text
    assert written > TEXTS // 2


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_model_keeps_to_it(engine: LlamaEngine, name: str) -> None:
    events = one(
        engine,
        "Give me an example as JSON.",
        response_format=asked(SCHEMAS[name]),
        max_tokens=400,
        temperature=1,
        top_k=0,
        top_p=1,
        min_p=0,
        seed=7,
    )
    text = text_of(events)
    assert reason_of(events) == "stop", text
    assert valid(json.loads(text), SCHEMAS[name]), text


@pytest.mark.parametrize("name", RECURSIVE)
def test_what_may_go_on_is_valid_once_it_ends(engine: LlamaEngine, name: str) -> None:
    for seed in range(3):
        events = one(
            engine,
            "A small example as JSON.",
            response_format=asked(RECURSIVE[name]),
            max_tokens=120,
            seed=seed,
        )
        if reason_of(events) == "stop":
            assert valid(json.loads(text_of(events)), RECURSIVE[name])
        else:
            assert reason_of(events) == "length"


def test_an_answer_that_is_cut_says_so(engine: LlamaEngine) -> None:
    schema = {"type": "array", "items": {"type": "string", "minLength": 20}, "minItems": 5}
    events = one(engine, "A list.", response_format=asked(schema), max_tokens=12)
    assert reason_of(events) == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(text_of(events))
