"""Where costs come later: the provider's id of a call is told once its headers have arrived."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import pytest
from msgspec.structs import replace

from plugins.conformance import CHECKS, Check, Subject, run
from plugins.contract import Adapter, AdapterError, Event, Started
from plugins.openai_compatible.plugin import PLUGIN
from tests.plugins.conftest import make_call, make_toolbox
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture
async def named(provider: PlayedProvider) -> AsyncIterator[Adapter]:
    """The adapter of a provider that is asked for costs, by the header ``X-Request-Id``."""
    settings = PLUGIN.settings(base_url=provider.base_url)
    toolbox = replace(make_toolbox(), request_id_header="X-Request-Id")
    built = PLUGIN.build(settings, toolbox)
    await built.start()
    yield built
    await built.close()


def events_of(adapter: Adapter, stream: bool) -> AsyncGenerator[Event, None]:
    return cast("AsyncGenerator[Event, None]", adapter.infer(make_call(stream)))


@both
async def test_started_has_the_header_s_id(
    named: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    provider.request_id_header = "x-request-id"
    outcome = await run(named, make_call(stream))
    assert outcome.events[0] == Started(provider.books[-1].id)
    assert sum(isinstance(event, Started) for event in outcome.events) == 1
    assert outcome.usage.output_tokens == provider.books[-1].completion_tokens


@both
async def test_started_comes_before_anything_of_the_answer(
    named: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    """The played provider sends its headers, and then nothing, or half of its answer."""
    provider.script(Scene(hang_after=0, headers=(("X-Request-Id", "req 7"),)))
    events = events_of(named, stream)
    async with asyncio.timeout(5):
        assert await anext(events) == Started("req 7")
    await events.aclose()
    await provider.wait_until(lambda: provider.books[-1].gone, 5.0)
    await provider.wait_until(lambda: provider.connections_open == 0, 5.0)


@both
@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("X-Request-Id", ""),),
        (("X-Request-Id", "x" * 201),),
        (("X-Request-Id", "caf\xe9"),),
        (("X-Request-Id", "a\tb"),),
        (("Inference-Id", "another header"),),
    ],
    ids=["missing", "empty", "long", "not_ascii", "tab", "other"],
)
async def test_without_a_usable_header_there_is_no_id(
    named: Adapter, provider: PlayedProvider, headers: tuple[tuple[str, str], ...], stream: bool
) -> None:
    """Not that of the body either: the billing API would not know it."""
    provider.script(Scene(headers=headers))
    outcome = await run(named, make_call(stream))
    assert outcome.events[0] == Started("")
    assert outcome.text.startswith("alpha")


@both
async def test_the_longest_id_is_taken(
    named: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    provider.script(Scene(headers=(("X-Request-Id", "x" * 200),)))
    assert (await run(named, make_call(stream))).events[0] == Started("x" * 200)


@both
@pytest.mark.parametrize("scene", ["server_error", "rate_limited", "redirect", "bad_request"])
async def test_a_refusal_has_not_started(
    named: Adapter, provider: PlayedProvider, scene: str, stream: bool
) -> None:
    provider.request_id_header = "x-request-id"
    provider.script(scene)
    with pytest.raises(AdapterError):
        await anext(events_of(named, stream))


@both
@pytest.mark.parametrize(
    "scene",
    [
        *("garbage", "html", "gzip", "error_in_200"),
        *(Scene(name="reset", reset_after=60), Scene(name="close", close_after=60)),
    ],
    ids=["garbage", "html", "gzip", "error_in_200", "reset", "close"],
)
async def test_faults_behind_the_headers_are_adapter_errors(
    named: Adapter, provider: PlayedProvider, scene: Scene | str, stream: bool
) -> None:
    provider.request_id_header = "x-request-id"
    provider.script(scene)
    with pytest.raises(AdapterError):
        await run(named, make_call(stream))
    await run(named, make_call(stream))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conforms(check: Check, named: Adapter, provider: PlayedProvider) -> None:
    provider.request_id_header = "x-request-id"
    await check(
        Subject(
            adapter=named,
            call=make_call,
            refused=make_call(prompt="play:unavailable"),
            is_providers=lambda task: getattr(task.get_coro(), "__qualname__", "").startswith(
                "PlayedProvider."
            ),
        )
    )
