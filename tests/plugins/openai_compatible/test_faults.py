"""Every fault of the played provider, streamed and not, becomes the right failure."""

import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plugins.conformance import run
from plugins.contract import Adapter, AdapterError, Chunk, FailureKind, Usage
from plugins.openai_compatible.plugin import PLUGIN, OpenAICompatibleSettings
from tests.plugins.conftest import API_KEY, make_call, make_toolbox
from tests.upstreams import provider as played_provider
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import SCENES, Scene

K = FailureKind
CERTIFICATES = Path(played_provider.__file__).with_name("certificates")

REFUSED = {
    "bad_request": K.BAD_REQUEST,
    "unprocessable": K.BAD_REQUEST,
    "too_long": K.CONTEXT_LENGTH,
    "too_large": K.BAD_REQUEST,
    "unauthorised": K.AUTH,
    "forbidden": K.AUTH,
    "no_credit": K.NO_CREDIT,
    "no_quota": K.NO_CREDIT,
    "not_found": K.NOT_FOUND,
    "request_timeout": K.TIMEOUT,
    "rate_limited": K.RATE_LIMITED,
    "rate_limited_absurd": K.RATE_LIMITED,
    "rate_limited_date": K.RATE_LIMITED,
    "server_error": K.UPSTREAM,
    "bad_gateway": K.UPSTREAM,
    "unavailable": K.OVERLOADED,
    "gateway_timeout": K.TIMEOUT,
    "overloaded": K.OVERLOADED,
    "redirect": K.UPSTREAM,
    "reset_at_once": K.UPSTREAM,
    "gzip": K.PROTOCOL,
    "garbage": K.PROTOCOL,
    "empty": K.PROTOCOL,
    "html": K.PROTOCOL,
    "error_in_200": K.UPSTREAM,
    "error_first": K.UPSTREAM,
    "slow_headers": K.TIMEOUT,
}
BROKEN_STREAMS = {
    "reset": K.UPSTREAM,
    "close": K.UPSTREAM,
    "half_line": K.PROTOCOL,
    "huge_line": K.PROTOCOL,
    "no_finish": K.PROTOCOL,
    "error_later": K.UPSTREAM,
    "hang": K.TIMEOUT,
    "drip": K.TIMEOUT,
}
BROKEN_WHOLES = {"hang": K.TIMEOUT, "reset": K.UPSTREAM, "close": K.PROTOCOL}


# Scenes in which nothing comes for a long time; all others get time, for machines that are busy.
SILENT = {"slow_headers", "hang", "drip"}


async def failure(adapter: Adapter, scene: str, stream: bool, delivered: list[str]) -> AdapterError:
    """The failure that a scene ends in; the text that came before it goes to ``delivered``."""
    wait_s = 0.5 if scene in SILENT else 15.0
    call = make_call(stream, prompt=f"play:{scene} please", first_event_s=wait_s, idle_s=wait_s)
    with pytest.raises(AdapterError) as caught:
        async for event in adapter.infer(call):
            if isinstance(event, Chunk):
                delivered += [part.delta.content or "" for part in event.choices]
    return caught.value


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("scene", "kind"), REFUSED.items())
async def test_fault_before_the_first_event(
    adapter: Adapter, provider: PlayedProvider, scene: str, kind: FailureKind, stream: bool
) -> None:
    delivered: list[str] = []
    error = await failure(adapter, scene, stream, delivered)
    assert error.kind is kind, error.detail
    assert delivered == []
    assert error.usage is None
    assert API_KEY not in error.message + error.detail
    assert "sk-secret" not in error.message + error.detail
    assert len(provider.books) == 1, "an adapter never retries, and never follows a redirect"


@pytest.mark.parametrize(("scene", "kind"), BROKEN_STREAMS.items())
async def test_fault_in_the_middle_of_a_stream(
    adapter: Adapter, scene: str, kind: FailureKind
) -> None:
    delivered: list[str] = []
    error = await failure(adapter, scene, True, delivered)
    assert error.kind is kind, error.detail
    assert "alpha" in "".join(delivered) or scene in ("huge_line", "drip"), "what came is delivered"
    assert error.usage is not None
    # Only this scene's stream gets as far as the chunk with usage.
    assert error.usage.estimated == (scene != "no_finish")


@pytest.mark.parametrize(("scene", "kind"), BROKEN_WHOLES.items())
async def test_fault_in_the_middle_of_a_whole_answer(
    adapter: Adapter, scene: str, kind: FailureKind
) -> None:
    # A whole body is shorter than a stream; four choices make it longer than the cut.
    call = make_call(prompt=f"play:{scene}", n=4)
    if scene == "hang":
        call = make_call(prompt=f"play:{scene}", first_event_s=0.4)
    with pytest.raises(AdapterError) as caught:
        async for _ in adapter.infer(call):
            pass
    assert caught.value.kind is kind, caught.value.detail


async def test_refusal_carries_what_the_gateway_needs(adapter: Adapter) -> None:
    nothing: list[str] = []
    limited = await failure(adapter, "rate_limited", False, nothing)
    assert (limited.retry_after_s, limited.status) == (7.0, 429)
    assert (await failure(adapter, "rate_limited_absurd", False, nothing)).retry_after_s == 60.0
    assert (await failure(adapter, "rate_limited_date", True, nothing)).retry_after_s == 30.0
    assert (await failure(adapter, "unavailable", True, nothing)).retry_after_s == 3.0
    bad = await failure(adapter, "bad_request", True, nothing)
    assert bad.message == "temperature is too hot"
    hidden = await failure(adapter, "unauthorised", False, nothing)
    assert hidden.message == "the provider refused the appliance's credentials"


async def test_slow_headers_are_waited_for_as_long_as_the_call_says(adapter: Adapter) -> None:
    began = time.monotonic()
    await failure(adapter, "slow_headers", True, [])
    assert 0.45 < time.monotonic() - began < 10.0


async def test_deadline_bounds_a_stream_that_keeps_coming(adapter: Adapter) -> None:
    call = make_call(True, prompt="play:slow_body", deadline_s=0.5)
    began = time.monotonic()
    with pytest.raises(AdapterError) as caught:
        async for _ in adapter.infer(call):
            pass
    assert caught.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - began < 3.0


async def test_comments_alone_are_no_event(adapter: Adapter, provider: PlayedProvider) -> None:
    body = b": PROCESSING\n\n" * 3
    provider.script(Scene(body=body, content_type="text/event-stream"))
    error = await failure(adapter, "normal", True, [])
    assert error.kind is FailureKind.PROTOCOL


async def test_infinite_stream_ends_at_the_byte_limit(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 2 * 1024 * 1024
    monkeypatch.setattr("plugins.http.client.ANSWER_BYTES_MAX", limit)
    delivered: list[str] = []
    error = await failure(adapter, "forever", True, delivered)
    assert error.kind is FailureKind.PROTOCOL
    assert len("".join(delivered)) > 10_000
    assert error.usage is not None
    assert error.usage.output_tokens > 2_500


async def test_endless_whole_answer_ends_at_the_byte_limit(
    adapter: Adapter, provider: PlayedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.http.client.ANSWER_BYTES_MAX", 1024 * 1024)
    provider.script(Scene(line_bytes=8 * 1024 * 1024))
    assert (await failure(adapter, "normal", False, [])).kind is FailureKind.PROTOCOL


async def test_last_usage_seen_goes_with_a_failure(
    adapter: Adapter, provider: PlayedProvider
) -> None:
    provider.script(Scene(usage="every", error_after=4))
    error = await failure(adapter, "normal", True, [])
    assert error.usage == Usage(input_tokens=2, output_tokens=3)


@pytest.mark.parametrize("prefix", ["http://127.0.0.1:1/v1", "http://nowhere.invalid/v1"])
@pytest.mark.parametrize("stream", [False, True])
async def test_provider_that_cannot_be_reached(prefix: str, stream: bool) -> None:
    adapter = PLUGIN.build(PLUGIN.settings(base_url=prefix), make_toolbox())
    await adapter.start()
    assert (await failure(adapter, "normal", stream, [])).kind is FailureKind.CONNECT
    await adapter.close()


@pytest.fixture
async def tls_provider() -> AsyncIterator[PlayedProvider]:
    """A provider with a certificate for 127.0.0.1 of an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    async with PlayedProvider(tls=context) as played:
        yield played


async def test_unknown_authority_is_a_connect_failure(tls_provider: PlayedProvider) -> None:
    adapter = PLUGIN.build(PLUGIN.settings(base_url=tls_provider.base_url), make_toolbox())
    await adapter.start()
    error = await failure(adapter, "normal", False, [])
    assert error.kind is K.CONNECT
    assert "certificate" in error.detail
    assert tls_provider.books == [], "the key is not sent to a stranger"
    await adapter.close()


async def test_authority_from_ca_file_is_trusted(tls_provider: PlayedProvider) -> None:
    ca_file = str(CERTIFICATES / "authority.pem")
    settings = OpenAICompatibleSettings(base_url=tls_provider.base_url, ca_file=ca_file)
    adapter = PLUGIN.build(settings, make_toolbox())
    await adapter.start()
    assert (await run(adapter, make_call())).finish_reason == "stop"
    await adapter.close()
    wrong_host = tls_provider.base_url.replace("127.0.0.1", "localhost")
    settings = OpenAICompatibleSettings(base_url=wrong_host, ca_file=ca_file)
    adapter = PLUGIN.build(settings, make_toolbox())
    await adapter.start()
    assert (await failure(adapter, "normal", False, [])).kind is K.CONNECT
    assert len(tls_provider.books) == 1
    await adapter.close()


async def test_ca_file_that_cannot_be_read_stops_the_start() -> None:
    settings = OpenAICompatibleSettings(base_url="https://h/v1", ca_file="/nowhere/ca.pem")
    with pytest.raises(OSError, match=r"ca\.pem"):
        await PLUGIN.build(settings, make_toolbox()).start()


def test_every_scene_of_the_catalog_is_met_by_a_test() -> None:
    answered = {
        *("normal", "long", "cached", "reasoning", "tools", "crlf", "comments", "sliced"),
        *("usage_first", "usage_every", "usage_never", "usage_null", "usage_negative"),
        *("usage_absurd", "usage_text", "no_done", "slow_body", "forever"),
    }
    assert set(SCENES) == answered | set(REFUSED) | set(BROKEN_STREAMS) | set(BROKEN_WHOLES)


async def test_a_provider_that_talks_on_behind_its_end_is_left(
    adapter: Adapter, provider: PlayedProvider
) -> None:
    provider.always = Scene(forever=True)
    outcome = await run(adapter, make_call(True))
    assert outcome.text == "alpha bravo charlie delta echo foxtrot golf hotel"
    assert outcome.finish_reason == "stop"
    assert outcome.usage.estimated
