"""Conversations with tools, through templates of every family, and of those that know no tools."""

import json
from typing import Any

import pytest

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama import chat_template
from local_runtime.engines.llama.chat_template import ChatTemplate
from local_runtime.engines.llama.conversation import Traits, conversation_of
from local_runtime.engines.llama.reply_reader import Kind, ReplyReader
from local_runtime.engines.llama.template_traits import speech_of
from local_runtime.engines.llama.thinking import variables_of
from local_runtime.engines.llama.tools import tool_use_of
from local_runtime.store.gguf import read_header
from tests.local_runtime.calls import chat, smollm_path
from tests.local_runtime.engines.llama import tool_templates as templates
from tests.local_runtime.engines.llama.test_tools import tool

WEATHER = tool(
    "get_weather",
    description="How the weather is.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)


def call(city: str, id_: str) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
    return {"id": id_, "type": "function", "function": function}


ASKED: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How is it in Oslo and in Bergen?"},
    {"role": "assistant", "content": None, "tool_calls": [call("Oslo", "a"), call("Bergen", "b")]},
    {"role": "tool", "tool_call_id": "b", "content": "rain"},
    {"role": "tool", "tool_call_id": "a", "content": "snow"},
    {"role": "assistant", "content": "Snow and rain."},
    {"role": "user", "content": "Thanks."},
]


def compiled(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


def render(source: str, **params: Any) -> str:
    template = compiled(source)
    request = chat(**{"messages": ASKED, "tools": [WEATHER], **params})
    speech = speech_of(template)
    messages, tools = conversation_of(request, tool_use_of(request), speech.traits)
    variables = variables_of(request, template.reads, reasons=bool(speech.reasoning))
    return template.render(messages, tools=tools, variables=variables)


@pytest.mark.parametrize("family", templates.FAMILIES)
def test_a_template_shows_which_family_it_is_of(family: str) -> None:
    speech = speech_of(compiled(templates.FAMILIES[family]))
    assert speech.syntax.name == family
    traits = speech.traits
    assert (traits.system, traits.tools, traits.calls, traits.results) == (True, True, True, True)
    assert traits.many_calls == (family != "llama3")
    assert traits.short_ids == family.startswith("mistral")
    assert traits.object_arguments == (family != "deepseek")


@pytest.mark.parametrize("family", templates.FAMILIES)
def test_a_whole_conversation(family: str) -> None:
    """Everything that was said is in the prompt, and calls read back as what they were."""
    prompt = render(templates.FAMILIES[family])
    for said in ("Be brief.", "How is it in", "snow", "rain", "Snow and rain.", "Thanks."):
        assert said in prompt
    assert "How the weather is." in prompt
    assert prompt.count("Oslo") == prompt.count("Bergen") == 2
    speech = speech_of(compiled(templates.FAMILIES[family]))
    reader = ReplyReader(syntax=speech.syntax, functions={"get_weather": {}})
    text = prompt[prompt.rindex("in Bergen?") :]
    if speech.syntax.name == "llama3":  # bare calls are calls only where an answer begins
        text = text[text.index('{"name"') :]
    calls = [
        json.loads(part.arguments)
        for segment in [*reader.push(text), *reader.finish()]
        if segment.kind is Kind.CALL
        for part in segment.calls
    ]
    assert calls[0] == {"city": "Oslo"}
    assert calls[1:] == [{"city": "Bergen"}] or family in {"llama3", "mistral", "mistral-args"}


def test_where_one_call_is_all_a_message_may_hold() -> None:
    prompt = render(templates.LLAMA3)
    order = [prompt.index(word) for word in ('"Oslo"', "snow", '"Bergen"', "rain")]
    assert order == sorted(order)  # each result behind its own call


def test_results_find_their_calls_by_short_ids() -> None:
    prompt = render(templates.MISTRAL)
    ids = [part.split('"')[0] for part in prompt.split('"id": "')[1:]]
    assert len(set(ids)) == 2
    assert f'"rain", "call_id": "{ids[1]}"' in prompt
    assert f'"snow", "call_id": "{ids[0]}"' in prompt


@pytest.mark.parametrize("source", [None, templates.BARE, templates.DEEPSEEK_R1])
def test_templates_without_tools(source: str | None) -> None:
    source = source or read_header(smollm_path()).chat_template
    assert source is not None
    prompt = render(source)
    assert '{"name": "get_weather", "description": "How the weather is."' in prompt
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n' in prompt
    assert '<tool_response name="get_weather">\nsnow\n</tool_response>' in prompt
    assert prompt.index("You can call") < prompt.index("Be brief.") < prompt.index("Thanks.")
    assert "You can call" not in render(source, tool_choice="none")


def test_the_older_names() -> None:
    messages = [
        {"role": "user", "content": "How is it?"},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
        },
        {"role": "function", "name": "get_weather", "content": "snow"},
    ]
    old = render(templates.MISTRAL, messages=messages, tools=None, functions=[WEATHER["function"]])
    new = render(
        templates.MISTRAL,
        messages=[
            messages[0],
            {"role": "assistant", "tool_calls": [call("Oslo", "call_1")]},
            {"role": "tool", "tool_call_id": "call_1", "content": "snow"},
        ],
    )
    assert old == new


@pytest.mark.parametrize("arguments", ["", "{}", "no JSON", "[1]", '{"a": {"b": [1e400]}}', "{"])
@pytest.mark.parametrize("family", ["hermes", "llama3", "mistral", "deepseek"])
def test_whatever_arguments_a_model_wrote_can_be_sent_back(family: str, arguments: str) -> None:
    said = call("x", "a")
    said["function"]["arguments"] = arguments
    messages = [ASKED[1], {"role": "assistant", "tool_calls": [said]}, ASKED[-1]]
    assert "Thanks." in render(templates.FAMILIES[family], messages=messages)


def test_how_hard_to_think() -> None:
    def end(**params: Any) -> str:
        return render(templates.QWEN3, **params)[-19:]

    quiet = "<think>\n\n</think>\n\n"
    assert end(reasoning_effort="none") == quiet
    assert end(reasoning={"enabled": False}) == quiet
    assert end(chat_template_kwargs={"enable_thinking": False}) == quiet
    assert end(reasoning_effort="high") == end() != quiet
    assert end(reasoning_effort="none", chat_template_kwargs={"enable_thinking": True}) == end()
    assert "Reasoning: high" in render(templates.HARMONY, reasoning={"effort": "high"})
    assert "Reasoning: low" in render(templates.HARMONY, reasoning_effort="low")


@pytest.mark.parametrize(
    ("source", "params", "param"),
    [
        (templates.HERMES, {"reasoning_effort": "low"}, "reasoning_effort"),
        (templates.HERMES, {"reasoning": {"enabled": True, "effort": "low"}}, "reasoning"),
        (templates.DEEPSEEK_R1, {"reasoning_effort": "none"}, "reasoning_effort"),
        (templates.QWEN3, {"reasoning_effort": "a lot"}, "reasoning_effort"),
        (templates.QWEN3, {"reasoning": {"max_tokens": 5}}, "reasoning"),
        (templates.QWEN3, {"reasoning": {"enabled": "no"}}, "reasoning"),
    ],
)
def test_what_a_template_cannot_be_told(source: str, params: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        render(source, **params)
    assert caught.value.param == param
    assert render(templates.HERMES, reasoning_effort="none") == render(templates.HERMES)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ tools[0].function.__class__.__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format(tools) }}",
        "{% set _ = tools[0].function.update({'name': 'x'}) %}",
        "{% set _ = messages[2].tool_calls.append(1) %}",
        "{{ messages[2].tool_calls[0].function.arguments.clear() }}",
        "{{ (tools | tojson) * 9999999 }}",
        "{{ tools | map(attribute='__class__.__init__.__globals__') | list }}",
        "{% for tool in tools * 400000 %}{{ tool | tojson(indent=9999) }}{% endfor %}",
    ],
)
def test_templates_do_no_harm_with_tools(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "RENDER_SECONDS_MAX", 0.2)
    monkeypatch.setattr(chat_template, "OUTPUT_CHARACTERS_MAX", 1024 * 1024)
    request = chat(messages=ASKED, tools=[WEATHER])
    messages, tools = conversation_of(
        request,
        tool_use_of(request),
        Traits(tools=True, calls=True, many_calls=True, results=True),
    )
    before = json.dumps([messages, tools])
    try:
        assert "class" not in compiled(attack).render(messages, tools=tools)
    except RequestRefused as refused:
        assert refused.param == "messages"
    assert json.dumps([messages, tools]) == before
    speech_of(compiled(attack))
