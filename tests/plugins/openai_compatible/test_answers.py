"""Answers as providers really give them, and the provider's books as the judge of usage."""

import asyncio

import pytest

from plugins.conformance import run
from plugins.contract import Adapter, Chunk, Completion, Started, Usage
from plugins.openai_compatible.plugin import PLUGIN
from tests.plugins.conftest import API_KEY, make_call, make_toolbox
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

TEXT = "alpha bravo charlie delta echo foxtrot golf hotel"
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@both
@pytest.mark.parametrize(
    "scene",
    [
        *("normal", "long", "cached", "reasoning", "crlf"),
        *("comments", "sliced", "usage_first", "usage_every", "no_done"),
    ],
)
async def test_usage_equals_the_provider_s_books(
    adapter: Adapter, provider: PlayedProvider, scene: str, stream: bool
) -> None:
    outcome = await run(adapter, make_call(stream, prompt=f"play:{scene} two three"))
    booked = provider.books[-1]
    assert booked.finished
    usage = outcome.usage
    assert not usage.estimated
    assert usage.input_tokens + usage.cache_read_tokens == booked.prompt_tokens == 3
    assert usage.output_tokens + usage.reasoning_tokens == booked.completion_tokens
    assert outcome.text.startswith(TEXT)
    assert outcome.finish_reason == "stop"
    assert usage.cache_read_tokens == (2 if scene == "cached" else 0)
    assert usage.reasoning_tokens == (4 if scene == "reasoning" else 0)


@both
@pytest.mark.parametrize(
    "scene",
    ["usage_never", "usage_null", "usage_negative", "usage_absurd", "usage_text"],
)
async def test_usage_that_is_missing_or_nonsense_is_estimated(
    adapter: Adapter, scene: str, stream: bool
) -> None:
    prompt = f"play:{scene}"
    outcome = await run(adapter, make_call(stream, prompt=prompt))
    assert outcome.usage == Usage(
        input_tokens=(len(prompt) + 3) // 4, output_tokens=(len(TEXT) + 3) // 4, estimated=True
    )


async def test_started_names_the_upstream_s_id(adapter: Adapter, provider: PlayedProvider) -> None:
    for stream in (False, True):
        outcome = await run(adapter, make_call(stream))
        assert outcome.events[0] == Started(provider.books[-1].id)


async def test_limit_of_tokens_is_forwarded(adapter: Adapter, provider: PlayedProvider) -> None:
    outcome = await run(adapter, make_call(True, max_tokens=2))
    assert (outcome.text, outcome.finish_reason) == ("alpha bravo", "length")
    assert provider.books[-1].request["max_tokens"] == 2


@both
async def test_tool_calls_keep_their_indexes(adapter: Adapter, stream: bool) -> None:
    outcome = await run(adapter, make_call(stream, prompt="play:tools"))
    assert outcome.finish_reason == "tool_calls"
    arguments = {0: "", 1: ""}
    for event in outcome.events:
        if isinstance(event, Chunk):
            for part in event.choices:
                for call in part.delta.tool_calls or ():
                    arguments[call["index"]] += call["function"]["arguments"]
        elif isinstance(event, Completion):
            message = event.choices[0].message
            assert message.content is None
            for n, call in enumerate(message.tool_calls or ()):
                arguments[n] = call["function"]["arguments"]
    assert arguments == {0: '{"x": 0}', 1: '{"x": 1}'}


@both
async def test_every_choice_arrives(adapter: Adapter, stream: bool) -> None:
    outcome = await run(adapter, make_call(stream, n=3))
    texts: dict[int, str] = {}
    for event in outcome.events:
        if isinstance(event, Chunk):
            for part in event.choices:
                texts[part.index] = texts.get(part.index, "") + (part.delta.content or "")
        elif isinstance(event, Completion):
            texts = {choice.index: choice.message.content or "" for choice in event.choices}
    assert texts == dict.fromkeys(range(3), TEXT)


async def test_one_choice_cut_off_among_finished_ones_is_a_failure(
    adapter: Adapter, provider: PlayedProvider
) -> None:
    done = b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}'
    cut = b'{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":""}]}'
    body = b"data: " + done + b"\n\ndata: " + cut + b"\n\n"
    provider.script(Scene(body=body, content_type="text/event-stream"))
    with pytest.raises(Exception, match="cannot be read"):
        await run(adapter, make_call(True))


async def test_events_of_one_read_are_one_chunk_in_order(
    adapter: Adapter, provider: PlayedProvider
) -> None:
    one = b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n'
    last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    body = b"".join(one % n for n in range(5)) + last
    provider.script(Scene(body=body, content_type="text/event-stream"))
    outcome = await run(adapter, make_call(True))
    chunks = [event for event in outcome.events if isinstance(event, Chunk)]
    assert len(chunks) == 1
    assert [part.delta.content or None for part in chunks[0].choices] == [*"01234", None]


async def test_stream_is_passed_on_as_it_comes(adapter: Adapter, provider: PlayedProvider) -> None:
    loop = asyncio.get_running_loop()
    provider.script(Scene(words=4, gap_s=0.1))
    at = [loop.time() async for event in adapter.infer(make_call(True))]
    assert at[-1] - at[0] > 0.35, "the first event does not wait for a buffer to fill"


@both
async def test_whole_reply_without_optional_fields(
    adapter: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    if stream:
        body = b'data:{"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
        provider.script(Scene(body=body, content_type="text/event-stream; charset=utf-8"))
    else:
        body = b'{"choices":[{"message":{"content":"hi"},"finish_reason":null}]}'
        provider.script(Scene(body=body))
    outcome = await run(adapter, make_call(stream))
    assert (outcome.text, outcome.finish_reason) == ("hi", "stop")


async def test_head_of_the_request(adapter: Adapter, provider: PlayedProvider) -> None:
    await run(adapter, make_call(True))
    headers = provider.books[-1].headers
    assert headers["authorization"] == f"Bearer {API_KEY}"
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "Turnpike/test"
    assert "cookie" not in headers


async def test_cookies_are_not_kept(adapter: Adapter, provider: PlayedProvider) -> None:
    provider.script(Scene(headers=(("Set-Cookie", "who=you"),)))
    await run(adapter, make_call())
    await run(adapter, make_call())
    assert "cookie" not in provider.books[-1].headers


async def test_no_key_no_authorization(provider: PlayedProvider) -> None:
    adapter = PLUGIN.build(PLUGIN.settings(base_url=provider.base_url + "/"), make_toolbox())
    await adapter.start()
    await run(adapter, make_call(api_key=None))
    assert "authorization" not in provider.books[-1].headers
    await adapter.close()


async def test_connections_are_used_again(adapter: Adapter, provider: PlayedProvider) -> None:
    for n in range(20):
        await run(adapter, make_call(bool(n % 2)))
    assert provider.connections_total <= 2


def test_offers_are_the_configured_models() -> None:
    adapter = PLUGIN.build(PLUGIN.settings(base_url="http://h/v1"), make_toolbox("acme"))
    tiny, free = adapter.offers()
    assert (tiny.model, tiny.upstream_id, tiny.provider) == ("acme/tiny", "m", "acme")
    assert (tiny.price.input, tiny.context_length) == (200_000_000, 8192)
    assert tiny.supported_params is None
    assert free.price.free


@pytest.mark.parametrize(
    "url",
    [None, "", "example.com/v1", "ftp://example.com", "http://", "https://u:p@example.com/v1"],
)
def test_url_that_cannot_be_used_is_refused_by_name(url: str | None) -> None:
    with pytest.raises(ValueError, match=r"^base_url: "):
        PLUGIN.build(PLUGIN.settings(base_url=url), make_toolbox())
