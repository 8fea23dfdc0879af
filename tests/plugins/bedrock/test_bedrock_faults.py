"""Every fault of the played Bedrock, streamed and not, becomes the right failure."""

import pytest

from plugins.bedrock.plugin import PLUGIN, BedrockSettings
from plugins.contract import Adapter, AdapterError, Chunk, FailureKind
from tests.plugins.bedrock.conftest import TEMPORARY, ask, toolbox
from tests.upstreams.bedrock import LATER, REFUSALS, PlayedBedrock

K = FailureKind
REFUSED = {
    "bad_request": K.BAD_REQUEST,
    "too_long": K.CONTEXT_LENGTH,
    "claude_too_long": K.CONTEXT_LENGTH,
    "bad_model": K.NOT_FOUND,
    "on_demand": K.NOT_FOUND,
    "forbidden": K.AUTH,
    "no_access": K.NOT_FOUND,
    "bad_signature": K.AUTH,
    "expired": K.AUTH,
    "not_found": K.NOT_FOUND,
    "timeout": K.TIMEOUT,
    "model_error": K.UPSTREAM,
    "rate_limited": K.RATE_LIMITED,
    "not_ready": K.OVERLOADED,
    "quota": K.RATE_LIMITED,
    "server_error": K.UPSTREAM,
    "unavailable": K.OVERLOADED,
}
BROKEN = {
    "garbage": K.PROTOCOL,
    "html": K.PROTOCOL,
    "garbage_frames": K.PROTOCOL,
    "gzip": K.PROTOCOL,
    "redirect": K.UPSTREAM,
    "reset_at_once": K.UPSTREAM,
    "slow_headers": K.TIMEOUT,
    "malformed": K.UPSTREAM,
}
IN_STREAMS = {
    "throttled_later": K.RATE_LIMITED,
    "model_error_later": K.UPSTREAM,
    "unavailable_later": K.OVERLOADED,
    "server_error_later": K.UPSTREAM,
    "too_long_later": K.CONTEXT_LENGTH,
    "error_frame": K.UPSTREAM,
    "bad_checksum": K.PROTOCOL,
    "huge_frame": K.PROTOCOL,
    "cut": K.UPSTREAM,
    "reset": K.UPSTREAM,
    "ends_early": K.PROTOCOL,
    "hang": K.TIMEOUT,
}
SILENT = {"slow_headers", "hang"}


def test_every_scripted_fault_is_met() -> None:
    assert set(REFUSED) == set(REFUSALS)
    assert set(LATER) <= set(IN_STREAMS)


async def failure(adapter: Adapter, scene: str, stream: bool) -> tuple[AdapterError, str]:
    """The failure that a scene ends in, and the text that came before it."""
    wait_s = 0.5 if scene in SILENT else 15.0
    delivered = ""
    with pytest.raises(AdapterError) as caught:
        async for event in adapter.infer(
            ask(stream, prompt=f"play:{scene}", wait_s=wait_s, key=TEMPORARY)
        ):
            if isinstance(event, Chunk):
                delivered += "".join(part.delta.content or "" for part in event.choices)
    said = caught.value.message + caught.value.detail
    assert not any(part in said for part in TEMPORARY.split(":"))
    return caught.value, delivered


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("scene", "kind"), [*REFUSED.items(), *BROKEN.items()])
async def test_fault_in_place_of_an_answer(
    adapter: Adapter, played: PlayedBedrock, scene: str, kind: FailureKind, stream: bool
) -> None:
    error, delivered = await failure(adapter, scene, stream)
    assert error.kind is kind, error.detail
    if scene != "malformed":
        assert (delivered, error.usage) == ("", None)
    assert len(played.serving.asked) == 1, "an adapter never retries, and follows no redirect"


@pytest.mark.parametrize(("scene", "kind"), IN_STREAMS.items())
async def test_fault_in_the_middle_of_a_stream(
    adapter: Adapter, scene: str, kind: FailureKind
) -> None:
    error, delivered = await failure(adapter, scene, True)
    assert error.kind is kind, error.detail
    assert delivered.startswith("You s"), "what came is delivered"
    assert error.usage is not None
    assert error.usage.estimated
    assert error.usage.output_tokens >= len(delivered) // 4


async def test_refusals_say_what_the_gateway_needs(adapter: Adapter) -> None:
    limited, _ = await failure(adapter, "rate_limited", True)
    assert (limited.retry_after_s, limited.status) == (7.0, 429)
    bad, _ = await failure(adapter, "bad_request", False)
    assert bad.message == "temperature must be 0 to 1"
    assert bad.detail.startswith("00000002-0000 ValidationException"), "Amazon's id of the request"
    forbidden, _ = await failure(adapter, "forbidden", True)
    assert "arn:aws:iam" not in forbidden.message + str(forbidden)
    malformed, _ = await failure(adapter, "malformed", False)
    assert malformed.usage is not None, "an answer that cannot be used has its cost"


@pytest.mark.parametrize("stream", [False, True])
async def test_provider_that_cannot_be_reached(stream: bool) -> None:
    settings = BedrockSettings(base_url="http://127.0.0.1:1", region="eu-central-2")
    built = PLUGIN.build(settings, toolbox())
    await built.start()
    error, _ = await failure(built, "normal", stream)
    assert error.kind is K.CONNECT
    await built.close()
