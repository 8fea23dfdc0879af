"""What of a request is changed on its way to a provider that is known, and what never is."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from plugins.chat import ChatRequest, Message
from plugins.contract import InferenceCall
from plugins.openai_compatible.preset import Preset, SchemaForm, TextOnly, Thoughts, params
from plugins.openai_compatible.presets import GENERIC, PRESETS
from plugins.openai_compatible.refusals import wait_told
from plugins.openai_compatible.sending import encode_request, shape_of
from tests.plugins.conftest import make_call

SCHEMA = {"type": "object"}
ASKED = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}


def preset(**fields: Any) -> Preset:
    return Preset(name="p", title="P", **({"developer_role": True} | fields))


def sent(made: Preset, *messages: Message, stream: bool = False, **asked: Any) -> dict[str, Any]:
    call: InferenceCall = make_call(stream, **asked)
    if messages:
        request = replace(call.chat, messages=list(messages))
        call = replace(call, request=request)
    before = json.dumps(json.loads(encode_request(call)))
    found: dict[str, Any] = json.loads(encode_request(call, shape_of(made)))
    assert json.dumps(json.loads(encode_request(call))) == before, "the client's is untouched"
    return found


def test_nothing_is_done_for_a_server_of_which_nothing_is_known() -> None:
    assert shape_of(GENERIC) is None
    assert shape_of(preset()) is None
    assert all(shape_of(each) is not None for each in PRESETS if each.params is not None)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (SchemaForm.OPENAI, ASKED),
        (SchemaForm.FLAT, {"type": "json_schema", "schema": SCHEMA}),
        (SchemaForm.JSON_OBJECT, {"type": "json_object", "schema": SCHEMA}),
    ],
)
def test_forms_of_a_schema(form: SchemaForm, expected: dict[str, Any]) -> None:
    made = preset(schema_form=form)
    assert sent(made, response_format=ASKED)["response_format"] == expected
    for other in ({"type": "json_object"}, {"type": "json_schema"}):
        assert sent(made, response_format=other)["response_format"] == other


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_has_one_name(name: str) -> None:
    made = preset(limit_name=name)
    for given in ("max_tokens", "max_completion_tokens"):
        asked: dict[str, Any] = {given: 5}
        body = sent(made, **asked)
        assert {key: body[key] for key in body if key.startswith("max_")} == {name: 5}
    body = sent(made, max_tokens=9, max_completion_tokens=5)
    assert {key: body[key] for key in body if key.startswith("max_")} == {name: 5}
    assert not any(key.startswith("max_") for key in sent(made))


def test_other_names() -> None:
    body = sent(preset(renamed=(("seed", "random_seed"),)), seed=7)
    assert (body["random_seed"], "seed" in body, next(iter(body))) == (7, False, "model")
    assert "random_seed" not in sent(preset(renamed=(("seed", "random_seed"),)))


def test_what_asks_for_nothing_is_left_out_and_what_asks_is_not() -> None:
    made = preset(params=params())
    body = sent(made, n=1, logprobs=False, seed=None, logit_bias={}, frequency_penalty=0)
    assert not {"n", "logprobs", "seed", "logit_bias", "frequency_penalty"} & set(body)
    # Excluding the offer is the host's; an operator may know better what a model honours.
    assert sent(made, n=2, seed=3)["seed"] == 3


def test_usage_is_not_asked_for_where_that_is_refused() -> None:
    assert "stream_options" not in sent(preset(stream_options=False), stream=True)


def test_developer_is_system_where_it_is_not_known() -> None:
    message = Message(role="developer", content="x")
    assert sent(preset(developer_role=False), message)["messages"][0]["role"] == "system"
    made = preset(limit_name="max_tokens")
    assert sent(made, message)["messages"][0]["role"] == ("developer")


TEXT = {"type": "text", "text": "a"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("form", "role", "content", "expected"),
    [
        (TextOnly.ALL, "user", [TEXT, TEXT], "a\na"),
        (TextOnly.ALL, "user", [], ""),
        (TextOnly.ALL, "user", [TEXT, IMAGE], [TEXT, IMAGE]),
        (TextOnly.ALL, "user", "a", "a"),
        (TextOnly.ALL, "assistant", None, None),
        (TextOnly.ALL_BUT_USER, "user", [TEXT], [TEXT]),
        (TextOnly.ALL_BUT_USER, "tool", [TEXT], "a"),
        (TextOnly.NOBODY, "tool", [TEXT], [TEXT]),
    ],
)
def test_content_as_a_string(form: TextOnly, role: Any, content: Any, expected: Any) -> None:
    made = preset(text_only=form, limit_name="max_tokens")
    assert sent(made, Message(role=role, content=content))["messages"][0]["content"] == expected


@pytest.mark.parametrize(
    ("form", "given", "expected"),
    [
        (Thoughts.AS_GIVEN, {"reasoning": "r"}, {"reasoning": "r"}),
        (Thoughts.REASONING, {"reasoning_content": "r"}, {"reasoning": "r"}),
        (Thoughts.REASONING, {"reasoning": "r", "reasoning_content": "r"}, {"reasoning": "r"}),
        (Thoughts.REASONING_CONTENT, {"reasoning": "r"}, {"reasoning_content": "r"}),
        (Thoughts.REASONING_CONTENT, {"reasoning_details": [{}]}, {}),
        (Thoughts.DROPPED, {"reasoning": "r", "reasoning_details": [{}]}, {}),
        (Thoughts.DROPPED, {}, {}),
    ],
)
def test_earlier_reasoning(form: Thoughts, given: dict[str, Any], expected: dict[str, Any]) -> None:
    made = preset(thoughts=form, limit_name="max_tokens")
    message = sent(made, Message(role="assistant", content="x", **given))["messages"][0]
    assert {key: message[key] for key in message if key.startswith("reasoning")} == expected


def test_fields_that_a_message_may_have() -> None:
    made = preset(message_fields=frozenset({"role", "content"}))
    given = Message(role="user", content=None, name="ann", refusal=None, tool_calls=None)
    assert sent(made, given)["messages"][0] == {"role": "user", "content": None}


def test_a_parameter_that_is_none_is_noticed_at_once() -> None:
    with pytest.raises(ValueError, match="temprature"):
        params("temprature")


def test_presets_name_real_parameters_only() -> None:
    known = set(ChatRequest.__struct_fields__)
    for each in PRESETS:
        assert {ours for ours, _ in each.renamed} <= known
        assert {name for name, _ in each.values} <= known
        assert each.limit_name in (None, "max_tokens", "max_completion_tokens")
        assert all(name == name.lower() for name, _ in each.headers)


RESETS = (("left-r", "reset-r"), ("left-t", "reset-t"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"left-r": "0", "reset-r": "7"}, 7.0),
        ({"left-r": "0", "reset-r": "2m59.56s"}, 60.0),
        ({"left-r": "0", "reset-r": "7.66s"}, 7.66),
        ({"left-r": "0", "reset-r": "120ms"}, 0.12),
        ({"left-r": "0", "reset-r": "1h2m"}, 60.0),
        ({"left-r": "5", "reset-r": "7s", "left-t": "0", "reset-t": "2s"}, 2.0),
        ({"left-r": "0", "reset-r": "7s", "left-t": "0", "reset-t": "9s"}, 9.0),
        ({"left-r": "0", "reset-r": "1000000000"}, 0.0),
        ({"left-r": "0", "reset-r": "99999999999999999"}, 60.0),
        ({"left-r": "0", "reset-r": "-4"}, 0.0),
        ({"left-r": "0"}, None),
        ({"left-r": "5", "reset-r": "7s"}, None),
        ({"left-r": "0", "reset-r": "soon"}, None),
        ({"left-r": "0", "reset-r": "NaN"}, None),
        ({"left-r": "0", "reset-r": "1.2.3s"}, None),
        ({"left-r": "0", "reset-r": "9" * 50}, None),
        ({}, None),
    ],
)
def test_waits_in_the_headers_of_limits(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_told(headers.get, RESETS) == seconds
