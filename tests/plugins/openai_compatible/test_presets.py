"""Every preset against its played provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from plugins.chat import ChatRequest, Message
from plugins.conformance import CHECKS, Outcome, Subject, run
from plugins.contract import (
    AdapterError,
    Chunk,
    Completion,
    FailureKind,
    InferenceCall,
    Plugin,
    Usage,
    UsageReport,
)
from plugins.openai_compatible.adapter import OpenAICompatibleAdapter
from plugins.openai_compatible.plugin import PLUGIN, PRESET_PLUGINS
from plugins.openai_compatible.presets import PRESETS
from tests.plugins.conftest import API_KEY, make_call, make_toolbox
from tests.upstreams.preset_servers import CALLS, KEY, PLAYED, TEXT, THOUGHTS, serve
from tests.upstreams.quirks import Heard, Said, add_up, heard_whole
from tests.upstreams.serving import Asked, Reply, Serving

PLUGINS = {plugin.name: plugin for plugin in PRESET_PLUGINS}
PRESET_OF = {preset.name: preset for preset in PRESETS}
each_preset = pytest.mark.parametrize("name", sorted(PLUGINS))
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}


def settings_of(plugin: Plugin, server: Serving) -> Any:
    """The preset's own settings, but for the host."""
    path = PLAYED[plugin.name].path.removesuffix("/chat/completions")
    return plugin.settings(base_url=server.origin + path)


@asynccontextmanager
async def open_preset(
    name: str, listing: Any = None
) -> AsyncIterator[tuple[OpenAICompatibleAdapter, Serving]]:
    async with serve(name, listing) as server:
        plugin = PLUGINS[name]
        adapter = plugin.build(settings_of(plugin, server), make_toolbox(name))
        assert isinstance(adapter, OpenAICompatibleAdapter)
        await adapter.start()
        try:
            yield adapter, server
        finally:
            await adapter.close()


def heard_in(outcome: Outcome) -> Heard:
    """Choice 0, streamed or not."""
    for event in outcome.events:
        if isinstance(event, Completion):
            return heard_whole(event.choices[0].message, event.choices[0].finish_reason)
    chunks = [event for event in outcome.events if isinstance(event, Chunk)]
    return add_up(part for chunk in chunks for part in chunk.choices)[0]


def test_the_list_of_presets() -> None:
    assert len(PRESETS) == len(PLUGINS) == 31
    assert set(PLAYED) == set(PLUGINS)
    assert PLUGIN.name not in PLUGINS
    assert KEY == API_KEY
    for preset in PRESETS:
        assert preset.title
        assert preset.name.replace("_", "").isalnum()
        assert preset.name == preset.name.lower()
        played = PLAYED[preset.name].path.removesuffix("/chat/completions")
        if preset.base_url is not None:
            assert preset.base_url.endswith(played)
            own = preset.base_url.startswith("http://127.0.0.1:")
            assert own or preset.base_url.startswith("https://")


@each_preset
async def test_preset_conforms(name: str) -> None:
    async with open_preset(name) as (adapter, server):
        subject = Subject(
            adapter=adapter,
            call=make_call,
            refused=make_call(prompt="fail"),
            is_providers=server.is_ours,
        )
        for check in CHECKS:
            await check(subject)


def full_call(name: str, stream: bool) -> InferenceCall:
    """A conversation with all that clients send along, asking only for what the preset honours."""
    known = PRESET_OF[name].params
    optional: dict[str, Any] = {
        "seed": 7,
        "tools": TOOLS,
        "parallel_tool_calls": True,
        "response_format": SCHEMA,
        "repetition_penalty": 1.1,
        "user": "someone",
    }
    named = {"response_format": "structured_outputs"}
    asked = {
        param: value
        for param, value in optional.items()
        if known is None or named.get(param, param) in known
    }
    # As clients send them though they ask for nothing.
    idle: dict[str, Any] = {
        "n": 1,
        "logprobs": False,
        "frequency_penalty": 0,
        "presence_penalty": None,
        "logit_bias": None,
        "stop": None,
    }
    if known is None:
        idle = {}
        del asked["repetition_penalty"]
    part = {"type": "text", "text": "one"}
    call = {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    messages = [
        Message(role="developer", content="be kind"),
        Message(role="user", content=[part, part], name="ann"),
        Message(
            role="assistant",
            content=[part],
            tool_calls=[call],
            refusal=None,
            reasoning_content="so",
            function_call=None,
        ),
        Message(role="tool", tool_call_id="a", content=[part]),
        Message(role="user", content="think"),
    ]
    request = ChatRequest(
        model="acme/tiny", messages=messages, max_completion_tokens=50, **idle, **asked
    )
    return replace(make_call(stream), request=request)


@both
@each_preset
async def test_what_clients_send_is_taken_and_tools_are_called(name: str, stream: bool) -> None:
    async with open_preset(name) as (adapter, server):
        outcome = await run(adapter, full_call(name, stream))
        sent = server.asked[-1].json()
    assert heard_in(outcome).means(Said(thoughts=THOUGHTS, calls=CALLS, reason="tool_calls"))
    assert next(iter(sent)) == "model"
    limits = {key: sent[key] for key in ("max_tokens", "max_completion_tokens") if key in sent}
    assert list(limits.values()) == [50]
    spent = outcome.usage
    assert not spent.estimated
    assert (spent.input_tokens, spent.cache_read_tokens) == (3, 1)
    assert spent.output_tokens + spent.reasoning_tokens == 7
    if name != "mistral":  # it does not tell them apart
        assert spent.reasoning_tokens == 2
    billed = {"deepinfra", "openrouter", "turnpike"}
    expected = 150 if name in billed else 151 if name == "xai" else None
    assert spent.cost_nano_usd == expected


STRICT = ["cohere", "groq", "mistral", "openai", "publicai", "sambanova", "scaleway", "xai", "zai"]


@pytest.mark.parametrize("name", STRICT)
async def test_without_its_preset_the_provider_refuses(name: str) -> None:
    """The played provider minds, and the server of which nothing is known gets all as it is."""
    async with serve(name) as server:
        adapter = PLUGIN.build(settings_of(PLUGINS[name], server), make_toolbox())
        await adapter.start()
        with pytest.raises(AdapterError) as caught:
            await run(adapter, full_call(name, stream=False))
        assert caught.value.status == 400
        await adapter.close()


@both
@each_preset
async def test_text_and_reasons(name: str, stream: bool) -> None:
    async with open_preset(name) as (adapter, _):
        for prompt, reason, thoughts in (("hi", "stop", ()), ("long think", "length", THOUGHTS)):
            outcome = await run(adapter, make_call(stream, prompt=prompt))
            assert heard_in(outcome).means(Said(text=TEXT, thoughts=thoughts, reason=reason))


@each_preset
async def test_refusals_in_the_provider_s_form(name: str) -> None:
    async with open_preset(name) as (adapter, _):
        with pytest.raises(AdapterError) as caught:
            await run(adapter, make_call(prompt="fail"))
        assert caught.value.kind is FailureKind.BAD_REQUEST
        assert "the request is no good" in caught.value.message
        with pytest.raises(AdapterError) as caught:
            await run(adapter, make_call(api_key="sk-other"))
        assert caught.value.kind is FailureKind.AUTH
        assert "sk-other" not in caught.value.detail
        if PLAYED[name].needs_key:
            assert PLUGINS[name].needs_key
            with pytest.raises(AdapterError):
                await run(adapter, make_call(api_key=None))
        else:
            await run(adapter, make_call(api_key=None))


@each_preset
def test_offers_say_what_is_honoured(name: str) -> None:
    plugin = PLUGINS[name]
    adapter = plugin.build(plugin.settings(base_url="http://h/v1"), make_toolbox(name))
    offer = adapter.offers()[0]
    preset = PRESET_OF[name]
    assert offer.supported_params == preset.params
    assert offer.abort_stops_billing is preset.abort_stops_billing
    if offer.supported_params is not None:
        assert not offer.supported_params & PLAYED[name].refuses - {
            "max_tokens",
            "max_completion_tokens",
        }


@pytest.mark.parametrize(
    ("name", "param", "value"),
    [
        ("featherless", "tool_choice", "required"),
        ("deepinfra", "tool_choice", {"type": "function", "function": {"name": "find"}}),
        ("cohere", "reasoning_effort", "medium"),
    ],
)
async def test_values_that_are_not_taken_fail_by_name(name: str, param: str, value: Any) -> None:
    async with open_preset(name) as (adapter, server):
        with pytest.raises(AdapterError, match=param) as caught:
            await run(adapter, make_call(tools=TOOLS, **{param: value}))
        assert caught.value.kind is FailureKind.BAD_REQUEST
        assert caught.value.param == param
        assert not server.asked


@both
async def test_azure_s_older_api(stream: bool) -> None:
    async with serve("openai") as server:
        plugin = PLUGINS["azure_openai"]
        settings = plugin.settings(
            base_url=f"{server.origin}/openai/v1",
            api_version="2024-10-21",  # type: ignore[call-arg]
        )
        adapter = plugin.build(settings, make_toolbox())
        await adapter.start()
        with pytest.raises(AdapterError):
            await run(adapter, replace(make_call(stream), upstream_id="my/deployment"))
        await adapter.close()
    asked = server.asked[-1]
    assert asked.target == (
        "/openai/deployments/my%2Fdeployment/chat/completions?api-version=2024-10-21"
    )
    assert asked.headers["api-key"] == KEY
    assert "authorization" not in asked.headers


async def test_leaving_a_stream_that_stops_the_bill() -> None:
    """What was delivered is reported, and the provider's connection is closed."""

    left = asyncio.Event()

    async def play(_: Asked, reply: Reply) -> None:
        await reply.begin()
        try:
            for _number in range(1000):
                await reply.event({"choices": [{"index": 0, "delta": {"content": "abcd"}}]})
                await asyncio.sleep(0.005)
        finally:
            left.set()

    async with Serving(play) as server:
        plugin = PLUGINS["openai"]
        adapter = plugin.build(plugin.settings(base_url=server.origin), make_toolbox())
        await adapter.start()
        stop = asyncio.Event()
        usage, text = Usage(), ""
        async for event in adapter.infer(replace(make_call(True), stop=stop)):
            if isinstance(event, Chunk):
                text += "".join(part.delta.content or "" for part in event.choices)
                stop.set()
            elif isinstance(event, UsageReport):
                usage = event.usage
        assert usage.estimated
        assert usage.output_tokens == len(text) // 4
        assert 0 < usage.output_tokens < 100
        async with asyncio.timeout(5):
            await left.wait()
        await adapter.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer x"},
        {"api-key": "x"},
        {"Host": "x"},
        {"X Y": "x"},
        {"X-Y": "a\r\nb: c"},
        {"X-Y": "é"},
        {"": "x"},
    ],
)
def test_headers_that_may_not_be_set(headers: dict[str, str]) -> None:
    settings = PLUGIN.settings(base_url="http://h/v1", headers=headers)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^headers: "):
        PLUGIN.build(settings, make_toolbox())


async def test_headers_of_the_configuration_are_sent() -> None:
    async with serve("openrouter") as server:
        plugin = PLUGINS["openrouter"]
        settings = plugin.settings(
            base_url=f"{server.origin}/api/v1",
            headers={"X-Title": "ours"},  # type: ignore[call-arg]
        )
        adapter = plugin.build(settings, make_toolbox())
        await adapter.start()
        await run(adapter, make_call())
        await adapter.close()
    assert server.asked[-1].headers["x-title"] == "ours"
