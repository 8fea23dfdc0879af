"""Every fault of the played Anthropic, streamed and not, becomes the right failure."""

import pytest

from plugins.anthropic.plugin import PLUGIN, AnthropicSettings
from plugins.contract import Adapter, AdapterError, Chunk, FailureKind
from tests.plugins.anthropic.conftest import ask, toolbox
from tests.upstreams.anthropic import KEY, PlayedAnthropic

K = FailureKind
REFUSED = {
    "bad_request": K.BAD_REQUEST,
    "too_long": K.CONTEXT_LENGTH,
    "over_context": K.CONTEXT_LENGTH,
    "no_credit": K.NO_CREDIT,
    "billing": K.NO_CREDIT,
    "forbidden": K.AUTH,
    "not_found": K.NOT_FOUND,
    "too_large": K.BAD_REQUEST,
    "rate_limited": K.RATE_LIMITED,
    "server_error": K.UPSTREAM,
    "timeout": K.TIMEOUT,
    "unavailable": K.OVERLOADED,
    "garbage": K.PROTOCOL,
    "html": K.PROTOCOL,
    "gzip": K.PROTOCOL,
    "redirect": K.UPSTREAM,
    "reset_at_once": K.UPSTREAM,
    "slow_headers": K.TIMEOUT,
}
IN_STREAMS = {
    "error_later": K.UPSTREAM,
    "overloaded_later": K.OVERLOADED,
    "rate_limited_later": K.RATE_LIMITED,
    "cut": K.UPSTREAM,
    "reset": K.UPSTREAM,
    "ends_early": K.PROTOCOL,
    "hang": K.TIMEOUT,
}
SILENT = {"slow_headers", "hang"}


async def failure(
    adapter: Adapter, scene: str, stream: bool, *, key: str = KEY
) -> tuple[AdapterError, str]:
    """The failure that a scene ends in, and the text that came before it."""
    wait_s = 0.5 if scene in SILENT else 15.0
    delivered = ""
    with pytest.raises(AdapterError) as caught:
        async for event in adapter.infer(
            ask(stream, prompt=f"play:{scene}", wait_s=wait_s, key=key)
        ):
            if isinstance(event, Chunk):
                delivered += "".join(part.delta.content or "" for part in event.choices)
    assert KEY not in caught.value.message + caught.value.detail
    return caught.value, delivered


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("scene", "kind"), REFUSED.items())
async def test_fault_before_the_first_event(
    adapter: Adapter, played: PlayedAnthropic, scene: str, kind: FailureKind, stream: bool
) -> None:
    error, delivered = await failure(adapter, scene, stream)
    assert error.kind is kind, error.detail
    assert delivered == ""
    assert error.usage is None
    assert len(played.serving.asked) == 1, "an adapter never retries, and follows no redirect"


@pytest.mark.parametrize(("scene", "kind"), IN_STREAMS.items())
async def test_fault_in_the_middle_of_a_stream(
    adapter: Adapter, played: PlayedAnthropic, scene: str, kind: FailureKind
) -> None:
    error, delivered = await failure(adapter, scene, True)
    assert error.kind is kind, error.detail
    assert delivered.startswith("You said"), "what came is delivered"
    assert error.usage is not None
    assert error.usage.estimated
    assert error.usage.input_tokens == played.books[0].input_tokens, "the prompt was counted"
    assert error.usage.output_tokens >= len(delivered) // 4


@pytest.mark.parametrize(
    ("scene", "stream", "kind"),
    [
        ("error_first", True, K.OVERLOADED),
        ("error_in_200", False, K.UPSTREAM),
        ("huge_line", True, K.PROTOCOL),
    ],
)
async def test_fault_in_place_of_an_answer(
    adapter: Adapter, scene: str, stream: bool, kind: FailureKind
) -> None:
    error, delivered = await failure(adapter, scene, stream)
    assert error.kind is kind, error.detail
    assert (delivered, error.usage) == ("", None)


async def test_refusals_say_what_the_gateway_needs(adapter: Adapter) -> None:
    limited, _ = await failure(adapter, "rate_limited", True)
    assert (limited.retry_after_s, limited.status) == (7.0, 429)
    overloaded, _ = await failure(adapter, "unavailable", False)
    assert (overloaded.retry_after_s, overloaded.status) == (7.0, 529)
    bad, _ = await failure(adapter, "bad_request", True)
    assert bad.message == "temperature: range: 0..1"
    assert bad.detail.startswith("req_0"), "the provider's own id of the request"
    poor, _ = await failure(adapter, "no_credit", False)
    assert "Plans & Billing" in poor.detail
    assert "Billing" not in poor.message + str(poor)


@pytest.mark.parametrize("stream", [False, True])
async def test_bad_key(adapter: Adapter, stream: bool) -> None:
    error, _ = await failure(adapter, "normal", stream, key="sk-ant-wrong-key")
    assert error.kind is K.AUTH
    assert error.message == "the provider refused the appliance's credentials"


@pytest.mark.parametrize("stream", [False, True])
async def test_provider_that_cannot_be_reached(stream: bool) -> None:
    built = PLUGIN.build(AnthropicSettings(base_url="http://127.0.0.1:1"), toolbox())
    await built.start()
    error, _ = await failure(built, "normal", stream)
    assert error.kind is K.CONNECT
    await built.close()
