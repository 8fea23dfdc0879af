"""Every fault of the played Gemini, streamed and not, becomes the right failure."""

import msgspec
import pytest

from plugins.contract import Adapter, AdapterError, Chunk, FailureKind
from plugins.gemini import refusals
from plugins.gemini.plugin import PLUGIN, GeminiSettings
from tests.plugins.gemini.conftest import ask, toolbox
from tests.upstreams.gemini import KEY, REFUSALS, PlayedGemini, error_of

K = FailureKind
REFUSED = {
    "bad_request": K.BAD_REQUEST,
    "too_long": K.CONTEXT_LENGTH,
    "bad_key": K.AUTH,
    "location": K.UPSTREAM,
    "billing": K.NO_CREDIT,
    "forbidden": K.AUTH,
    "not_found": K.NOT_FOUND,
    "rate_limited": K.RATE_LIMITED,
    "server_error": K.UPSTREAM,
    "unavailable": K.OVERLOADED,
    "timeout": K.TIMEOUT,
    "garbage": K.PROTOCOL,
    "html": K.PROTOCOL,
    "gzip": K.PROTOCOL,
    "nothing": K.PROTOCOL,
    "redirect": K.UPSTREAM,
    "reset_at_once": K.UPSTREAM,
    "slow_headers": K.TIMEOUT,
    "blocked": K.REFUSED,
    "malformed": K.UPSTREAM,
}
IN_STREAMS = {
    "error_later": K.UPSTREAM,
    "overloaded_later": K.OVERLOADED,
    "cut": K.UPSTREAM,
    "reset": K.UPSTREAM,
    "ends_early": K.PROTOCOL,
    "hang": K.TIMEOUT,
}
SILENT = {"slow_headers", "hang"}
COUNTED = {"blocked", "malformed"}


async def failure(
    adapter: Adapter, scene: str, stream: bool, *, key: str = KEY
) -> tuple[AdapterError, str]:
    """The failure that a scene ends in, and the text that came before it."""
    wait_s = 0.5 if scene in SILENT else 15.0
    delivered = ""
    call = ask(stream, prompt=f"play:{scene}", wait_s=wait_s, key=key)
    with pytest.raises(AdapterError) as caught:
        async for event in adapter.infer(call):
            if isinstance(event, Chunk):
                delivered += "".join(part.delta.content or "" for part in event.choices)
    assert KEY not in caught.value.message + caught.value.detail
    return caught.value, delivered


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("scene", "kind"), REFUSED.items())
async def test_fault_before_the_first_event(
    adapter: Adapter, played: PlayedGemini, scene: str, kind: FailureKind, stream: bool
) -> None:
    error, delivered = await failure(adapter, scene, stream)
    assert error.kind is kind, error.detail
    assert delivered == ""
    assert (error.usage is not None) is (scene in COUNTED)
    assert len(played.serving.asked) == 1, "an adapter never retries, and follows no redirect"


@pytest.mark.parametrize(("scene", "kind"), IN_STREAMS.items())
async def test_fault_in_the_middle_of_a_stream(
    adapter: Adapter, played: PlayedGemini, scene: str, kind: FailureKind
) -> None:
    error, delivered = await failure(adapter, scene, True)
    assert error.kind is kind, error.detail
    assert delivered.startswith("You said"), "what came is delivered"
    assert error.usage is not None
    assert error.usage.estimated
    assert error.usage.input_tokens == played.books[0].prompt, "the prompt was counted"
    assert error.usage.output_tokens >= len(delivered) // 4


@pytest.mark.parametrize(
    ("scene", "stream", "kind"),
    [("error_first", True, K.OVERLOADED), ("error_in_200", False, K.UPSTREAM)],
)
async def test_fault_in_place_of_an_answer(
    adapter: Adapter, scene: str, stream: bool, kind: FailureKind
) -> None:
    error, delivered = await failure(adapter, scene, stream)
    assert error.kind is kind, error.detail
    assert (delivered, error.usage) == ("", None)


async def test_refusals_say_what_the_gateway_needs(adapter: Adapter) -> None:
    limited, _ = await failure(adapter, "rate_limited", True)
    assert (limited.retry_after_s, limited.status) == (34.4, 429)
    bad, _ = await failure(adapter, "bad_request", True)
    assert bad.message == "Invalid value at 'contents[0]'"
    long, _ = await failure(adapter, "too_long", False)
    assert "1200293" in long.message
    for scene in ("bad_key", "billing", "location", "forbidden"):
        error, _ = await failure(adapter, scene, False)
        words = REFUSALS[scene][2]
        assert words[:20] in error.detail
        assert words[:20] not in error.message
    blocked, _ = await failure(adapter, "blocked", True)
    assert blocked.message.endswith("PROHIBITED_CONTENT")


@pytest.mark.parametrize("stream", [False, True])
async def test_bad_key(adapter: Adapter, stream: bool) -> None:
    error, _ = await failure(adapter, "normal", stream, key="AIzaSy-wrong")
    assert error.kind is K.AUTH
    assert error.message == "the provider refused the appliance's credentials"


@pytest.mark.parametrize("stream", [False, True])
async def test_provider_that_cannot_be_reached(stream: bool) -> None:
    built = PLUGIN.build(GeminiSettings(base_url="http://127.0.0.1:1"), toolbox())
    await built.start()
    error, _ = await failure(built, "normal", stream)
    assert error.kind is K.CONNECT
    await built.close()


def test_errors_in_a_list_and_odd_ones_are_read() -> None:
    body = msgspec.json.encode([error_of(REFUSALS["rate_limited"])])
    error = refusals.refusal(429, lambda _: None, body, None)
    assert (error.kind, error.retry_after_s) == (K.RATE_LIMITED, 34.4)
    later = {"status": "UNAVAILABLE", "message": "x", "details": [{"retryDelay": "1e9s"}]}
    assert refusals.in_answer(later, None).retry_after_s is None
    later["details"] = [{"retryDelay": "86400s"}]
    assert refusals.in_answer(later, None).retry_after_s == 60.0
    for odd in ("text", {"code": "x"}, {"code": -3, "status": "NEW"}, {"details": 7}, [1]):
        assert refusals.in_answer(odd, None).kind is K.UPSTREAM
    assert refusals.blocked("<b>").message.endswith("no reason given")
