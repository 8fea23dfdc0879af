"""What callers say reaches the provider in a form that it takes."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.contract import Adapter, AdapterError, FailureKind
from plugins.gemini import contents, request
from plugins.gemini.models import abilities_of
from plugins.tasks import Media
from tests.plugins.gemini.answers import answer
from tests.plugins.gemini.conftest import NEWER, NOOP, OLDER, PLAIN, PNG, WAV, WEATHER, ask
from tests.upstreams.gemini import PlayedGemini
from tests.upstreams.gemini_rules import complaint, signature_of
from tests.upstreams.serving import Asked, Reply, Serving

Json = dict[str, Any]
TEXT = st.text(max_size=30)
IDS = st.text(min_size=1, max_size=20)
ARGS = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT)


def picture(data: bytes = PNG) -> Json:
    url = "data:image/png;base64," + b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url}}


PARTS = st.lists(TEXT.map(lambda text: {"type": "text", "text": text}) | st.just(picture()))


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """A conversation as OpenAI's API takes one: every call is answered, in any order."""
    messages: list[Json] = [{"role": "user", "content": "begin"}]
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["system", "user", "assistant", "tools"]))
        if kind == "tools":
            messages.append({"role": "user", "content": "go on"})
            messages += draw(exchanges(number))
        elif kind == "user":
            messages.append({"role": kind, "content": draw(TEXT | PARTS)})
        else:
            messages.append({"role": kind, "content": draw(TEXT)})
    return messages


@st.composite
def exchanges(draw: st.DrawFn, number: int) -> list[Json]:
    names = draw(st.lists(st.sampled_from(["weather", "noop"]), min_size=1, max_size=3))
    ids = [f"{number}-{n}-{draw(IDS)}" for n in range(len(names))]
    calls: list[Json] = []
    for given_id, name in zip(ids, names, strict=True):
        args = draw(ARGS)
        function = {"name": name, "arguments": json.dumps(args)}
        calls.append({"id": given_id, "type": "function", "function": function})
        if draw(st.booleans()):
            signature = signature_of({"name": name, "args": args})
            calls[-1]["extra_content"] = {"google": {"thought_signature": signature}}
    results = [
        {"role": "tool", "tool_call_id": given_id, "content": draw(TEXT | PARTS)}
        for given_id in draw(st.permutations(ids))
    ]
    return [{"role": "assistant", "content": draw(st.none() | TEXT), "tool_calls": calls}, *results]


async def _fetch(_url: str) -> Media:
    return Media(data=PNG, media_type="image/png")


def written(messages: list[Json], model: str, **params: Any) -> Json:
    """The body of a request, without an event loop: what is awaited here never waits."""
    call = ask(messages=messages, model=model, **params)
    can = abilities_of(model)
    reading = contents.read(call.chat.messages, can, _fetch)
    try:
        reading.send(None)
    except StopIteration as ended:
        found: Json = json.loads(request.encode(call, ended.value, can))
        return found
    raise AssertionError("reading waited")


@given(messages=conversations(), model=st.sampled_from([OLDER, NEWER, PLAIN]))
def test_every_conversation_is_taken_and_whole(messages: list[Json], model: str) -> None:
    body = written(messages, model, tools=[WEATHER, NOOP])
    assert complaint(body, model) is None
    sent = json.dumps([body.get("systemInstruction"), body["contents"]])
    for message in messages:
        if isinstance(message["content"], str) and message["role"] != "tool":
            assert json.dumps(message["content"])[1:-1] in sent
    parts = [part for content in body["contents"] for part in content["parts"]]
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    assert [part["functionCall"] for part in parts if "functionCall" in part] == [
        {
            "id": call["id"],
            "name": call["function"]["name"],
            "args": json.loads(call["function"]["arguments"]),
        }
        for call in calls
    ]
    answered = [m["tool_call_id"] for m in messages if m["role"] == "tool"]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    assert [result["id"] for result in results] == answered
    pictures = sum(part == picture() for m in messages for part in m["content"] or ())
    inside = sum(len(result.get("parts", ())) for result in results)
    assert sum("inlineData" in part for part in parts) + inside == pictures


@given(
    temperature=st.floats(0, 2),
    seed=st.integers(-(2**63), 2**63 - 1),
    top_k=st.integers(-1, 100),
    stop=st.lists(st.text(min_size=1, max_size=9), max_size=5),
    tokens=st.integers(1, 10**6),
    n=st.integers(1, 8),
    top=st.integers(0, 20),
)
def test_parameters_are_sent_on(
    temperature: float, seed: int, top_k: int, stop: list[str], tokens: int, n: int, top: int
) -> None:
    params: Json = {"temperature": temperature, "seed": seed, "top_k": top_k, "stop": stop}
    params |= {"max_completion_tokens": tokens, "n": n, "logprobs": True, "top_logprobs": top}
    body = written([{"role": "user", "content": "x"}], OLDER, **params, presence_penalty=1.5)
    assert complaint(body, OLDER) is None
    config = body["generationConfig"]
    assert (config["temperature"], config["maxOutputTokens"]) == (temperature, tokens)
    assert config.get("topK", top_k) == top_k
    assert config.get("stopSequences", []) == stop
    assert config.get("candidateCount", 1) == n
    assert config.get("logprobs", 0) == top
    assert config["presencePenalty"] == 1.5
    if 0 <= seed < 2**31:
        assert config["seed"] == seed


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "noop"}},
            {"mode": "ANY", "allowedFunctionNames": ["noop"]},
        ),
    ],
)
async def test_tool_choice(
    adapter: Adapter, played: PlayedGemini, choice: Any, expected: Json | None
) -> None:
    found, _, _ = await answer(adapter, ask(tools=[WEATHER, NOOP], tool_choice=choice))
    sent = played.bodies[0].get("toolConfig", {}).get("functionCallingConfig")
    assert sent == expected
    assert bool(found["calls"]) is bool(expected and expected["mode"] == "ANY")
    declared = played.bodies[0]["tools"][0]["functionDeclarations"]
    assert declared[0]["parametersJsonSchema"] == WEATHER["function"]["parameters"]
    assert declared[1] == {"name": "noop"}


def test_strict_tools_are_held_to_their_schemas() -> None:
    tool = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    body = written([{"role": "user", "content": "x"}], OLDER, tools=[tool])
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}


LOW = {"includeThoughts": True, "thinkingLevel": "LOW"}
HIGH = {"includeThoughts": True, "thinkingLevel": "HIGH"}


@pytest.mark.parametrize(
    ("model", "wish", "expected"),
    [
        (OLDER, {}, None),
        (OLDER, {"reasoning_effort": "none"}, {"includeThoughts": False, "thinkingBudget": 0}),
        (OLDER, {"reasoning_effort": "high"}, {"includeThoughts": True, "thinkingBudget": 24576}),
        (OLDER, {"reasoning": {"enabled": True}}, {"includeThoughts": True}),
        (OLDER, {"reasoning": {"max_tokens": 99}}, {"includeThoughts": True, "thinkingBudget": 99}),
        (OLDER, {"reasoning": {"exclude": True}}, {"includeThoughts": False}),
        (NEWER, {"reasoning_effort": "minimal"}, LOW),
        (NEWER, {"reasoning": {"effort": "xhigh"}}, HIGH),
        ("gemini-3-pro-preview", {"reasoning_effort": "medium"}, HIGH),
        (
            "gemini-3-flash",
            {"reasoning_effort": "minimal"},
            {"includeThoughts": True, "thinkingLevel": "MINIMAL"},
        ),
        ("gemini-flash-latest", {"reasoning_effort": "low"}, LOW),
        (PLAIN, {"reasoning_effort": "none"}, None),
    ],
)
def test_reasoning(model: str, wish: Json, expected: Json | None) -> None:
    body = written([{"role": "user", "content": "x"}], model, **wish)
    assert body.get("generationConfig", {}).get("thinkingConfig") == expected
    known = model if not model.endswith("-latest") else NEWER
    assert complaint(body, known) is None


@pytest.mark.parametrize(
    ("param", "model", "params"),
    [
        ("n", OLDER, {"n": 9}),
        ("stop", OLDER, {"stop": list("abcdef")}),
        ("response_format", OLDER, {"response_format": {"type": "grammar"}}),
        ("response_format", OLDER, {"response_format": {"type": "json_schema"}}),
        ("tool_choice", OLDER, {"tool_choice": "required"}),
        ("tool_choice", OLDER, {"tools": [NOOP], "tool_choice": "sometimes"}),
        ("tool_choice", OLDER, {"tools": [NOOP], "tool_choice": {"type": "custom"}}),
        ("tools", OLDER, {"tools": [{"type": "web_search"}]}),
        ("tools", OLDER, {"tools": [{"type": "function", "function": {"name": ""}}]}),
        ("reasoning_effort", NEWER, {"reasoning_effort": "none"}),
        ("reasoning_effort", "gemini-2.5-pro", {"reasoning_effort": "none"}),
        ("reasoning_effort", OLDER, {"reasoning_effort": "extreme"}),
        ("reasoning_effort", PLAIN, {"reasoning_effort": "low"}),
        ("reasoning", OLDER, {"reasoning": {"depth": 3}}),
        ("reasoning", OLDER, {"reasoning": {"max_tokens": 1.5}}),
        ("reasoning", PLAIN, {"reasoning": {"enabled": True}}),
    ],
)
def test_values_that_cannot_be_honoured_are_named(param: str, model: str, params: Json) -> None:
    with pytest.raises(AdapterError) as caught:
        written([{"role": "user", "content": "x"}], model, **params)
    assert caught.value.kind is FailureKind.BAD_REQUEST
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


def user(*parts: Json) -> list[Json]:
    return [{"role": "user", "content": list(parts)}]


def called(arguments: Any) -> list[Json]:
    function = {"name": "noop", "arguments": arguments}
    calls = [{"id": "a", "type": "function", "function": function}]
    return [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": calls}]


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        (user({"type": "image_url", "image_url": {"url": "gs://bucket/x.png"}}), "content[0]"),
        (
            user({"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}),
            "content[0]",
        ),
        (user({"type": "image_url", "image_url": {"url": "data:text/plain,x"}}), "content[0]"),
        (user({"type": "image_url", "image_url": {"url": "http://192.0.2.1/x.png"}}), "content[0]"),
        (user({"type": "input_audio", "input_audio": {"data": "!"}}), "content[0]"),
        (user({"type": "input_audio", "input_audio": {"data": "AAAA"}}), "content[0]"),
        (user({"type": "file", "file": {"file_id": "file-1"}}), "content[0]"),
        (user({"type": "hologram"}), "content[0]"),
        (user({"type": "text"}), "content[0]"),
        ([{"role": "system", "content": "only this"}], "messages"),
        ([{"role": "system", "content": [picture()]}], "messages[0]"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0]"),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        ([{"role": "tool", "tool_call_id": "nobody", "content": "x"}], "messages[0].tool_call_id"),
        (called("{"), "messages[1].tool_calls[0].function.arguments"),
        (called("[]"), "messages[1].tool_calls[0].function.arguments"),
        ([{"role": "assistant", "tool_calls": [{"id": "a"}]}], "messages[0].tool_calls[0]"),
    ],
)
async def test_messages_that_cannot_be_sent_are_pointed_at(
    adapter: Adapter, played: PlayedGemini, messages: list[Json], where: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        await answer(adapter, ask(messages=messages))
    assert caught.value.kind is FailureKind.BAD_REQUEST
    assert caught.value.param == "messages"
    assert where in caught.value.message
    assert played.serving.asked == []


async def test_media_is_sent_inside_the_request(adapter: Adapter, played: PlayedGemini) -> None:
    async def host(_asked: Asked, reply: Reply) -> None:
        await reply.answer(200, PNG, kind="image/png")

    pdf = b"%PDF-1.7 x"
    async with Serving(host) as files:
        messages = user(
            {"type": "image_url", "image_url": {"url": f"{files.origin}/cat.png"}},
            {"type": "input_audio", "input_audio": {"data": b64encode(WAV).decode()}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
            {"type": "file", "file": {"file_data": f"data:;base64,{b64encode(pdf).decode()}"}},
            {"type": "text", "text": "what are these?"},
        )
        await answer(adapter, ask(messages=messages))
    parts = played.bodies[0]["contents"][0]["parts"]
    found = [(part["inlineData"]["mimeType"], part["inlineData"]["data"]) for part in parts[:4]]
    assert found == [
        ("image/png", b64encode(PNG).decode()),
        ("audio/wav", b64encode(WAV).decode()),
        ("audio/mp3", "AAAA"),
        ("application/pdf", b64encode(pdf).decode()),
    ]
    assert played.refused == []


@pytest.mark.parametrize(
    ("name", "thinks", "signs"),
    [
        ("gemini-2.0-flash", "no", False),
        ("gemini-1.5-pro", "no", False),
        ("models/gemini-2.5-pro", "budget", False),
        ("gemini-3-flash-preview", "level", True),
        ("gemini-12", "level", True),
        ("gemini-flash-latest", "level", True),
        ("learnlm-2.0", "no", False),
        (PLAIN, "no", False),
    ],
)
def test_abilities_follow_from_the_name(name: str, thinks: str, signs: bool) -> None:
    can = abilities_of(name)
    assert (can.thinks, can.signs) == (thinks, signs)
    assert can.instructions is (name != PLAIN)
    assert ("reasoning" in request.params_of(can)) is (thinks != "no")


def test_paths_hold_names_and_nothing_else() -> None:
    assert request.path_of("gemini-2.5-flash") == "/models/gemini-2.5-flash"
    assert request.path_of("tunedModels/mine-1") == "/tunedModels/mine-1"
    assert request.path_of("x?y#z:w") == "/models/x%3Fy%23z%3Aw"
