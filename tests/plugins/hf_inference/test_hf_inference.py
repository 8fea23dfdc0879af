"""HF Inference: every task's payload and answer, what it costs, and how it fails."""

import asyncio
import base64
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.conformance import CHECKS, Check, Subject
from plugins.conformance_tasks import TASK_CHECKS, TaskCheck, TaskSubject, perform
from plugins.contract import (
    Adapter,
    AdapterError,
    Completion,
    FailureKind,
    InferenceCall,
    Started,
    UsageReport,
)
from plugins.hf_inference.plugin import PLUGIN, HfInferenceSettings
from plugins.openai_compatible.wire import compute_seconds
from plugins.tasks import Embeddings, Images, Media, Request, Speech, Transcript
from tests.plugins.hf_inference.conftest import (
    chat,
    edit,
    embed,
    image,
    listening,
    order,
    speech,
    toolbox,
)
from tests.upstreams.hf_inference import FLAC, KEY, PNG, PlayedHfInference
from tests.upstreams.serving import Asked, Reply, Serving

K = FailureKind
TASKS: dict[str, Callable[..., Request]] = {
    "feature-extraction": embed,
    "text-to-image": image,
    "image-to-image": edit,
    "text-to-speech": speech,
    "automatic-speech-recognition": listening,
}
each_task = pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)


def ask(stream: bool = False, scene: str = "", **params: Any) -> InferenceCall:
    return order(chat(stream, scene, **params))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_chats_conform(check: Check, adapter: Adapter, played: PlayedHfInference) -> None:
    subject = Subject(
        adapter=adapter,
        call=ask,
        refused=ask(scene="loading"),
        models=toolbox("text-to-image").models,
        keys_seen=lambda: [str(asked.headers) for asked in played.serving.asked],
        is_providers=played.serving.is_ours,
    )
    await check(subject)


@each_task
@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
async def test_tasks_conform(
    check: TaskCheck, make: Callable[..., Request], adapter: Adapter, played: PlayedHfInference
) -> None:
    subject = TaskSubject(
        adapter=adapter,
        call=lambda: order(make()),
        refused=order(make("loading")),
        models=toolbox("text-to-image").models,
        keys_seen=lambda: [str(asked.headers) for asked in played.serving.asked],
        is_providers=played.serving.is_ours,
    )
    await check(subject)


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_and_what_it_costs(
    adapter: Adapter, played: PlayedHfInference, stream: bool
) -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    call = ask(stream, response_format=form, max_completion_tokens=7)
    events = [event async for event in adapter.infer(call)]
    report = events[-1]
    assert isinstance(report, UsageReport)
    assert report.usage.compute_ns == 138_000_000
    assert not report.usage.estimated
    sent = played.sent[0]
    assert sent["response_format"] == {"type": "json_object", "value": schema}
    assert sent["max_tokens"] == 7
    assert played.refused == []
    assert played.serving.asked[0].headers["x-hf-bill-to"] == "acme"
    if not stream:
        assert isinstance(events[1], Completion)
        assert events[1].choices[0].message.content == "You said one two"


async def test_schema_that_is_missing_is_named(adapter: Adapter) -> None:
    with pytest.raises(AdapterError) as caught:
        [event async for event in adapter.infer(ask(response_format={"type": "json_schema"}))]
    assert (caught.value.kind, caught.value.param) == (K.BAD_REQUEST, "response_format")


async def test_embeddings(adapter: Adapter, played: PlayedHfInference) -> None:
    outcome = await perform(adapter, order(embed(input_type="query", truncate=True)))
    assert outcome.output == Embeddings(vectors=[[3 / 8, 0.5, -1.0], [5 / 8, 0.5, -1.0]])
    assert played.sent == [{"inputs": ["one", "three"], "truncate": True, "prompt_name": "query"}]
    assert (outcome.usage.input_tokens, outcome.usage.estimated) == (2, True)
    assert outcome.usage.compute_ns == 138_000_000
    alone = await perform(adapter, order(embed("alone", input="play:alone")))
    assert isinstance(alone.output, Embeddings)
    assert len(alone.output.vectors) == 1


async def test_embeddings_of_a_server_that_counts(
    adapter: Adapter, played: PlayedHfInference
) -> None:
    played.in_ms = True
    usage = (await perform(adapter, order(embed()))).usage
    assert (usage.input_tokens, usage.estimated) == (7, False)
    assert usage.compute_ns == 138_000_000, "it tells milliseconds"


async def test_text_to_image(adapter: Adapter, played: PlayedHfInference) -> None:
    call = order(image(size="640x480", seed=3, negative_prompt="dogs", guidance_scale=2.5))
    outcome = await perform(adapter, call)
    assert outcome.output == Images(images=[Media(data=PNG, media_type="image/png")])
    assert played.sent[0] == {
        "inputs": "a cat",
        "parameters": {
            "width": 640,
            "height": 480,
            "seed": 3,
            "negative_prompt": "dogs",
            "guidance_scale": 2.5,
        },
    }
    assert (outcome.usage.images, outcome.usage.compute_ns) == (1, 138_000_000)
    await perform(adapter, order(image()))
    assert played.sent[1] == {"inputs": "a cat"}


async def test_image_to_image(adapter: Adapter, played: PlayedHfInference) -> None:
    async def host(_asked: Asked, reply: Reply) -> None:
        await reply.answer(200, PNG, kind="image/png")

    async with Serving(host) as files:
        picture = Media(url=f"{files.origin}/cat.png")
        await perform(adapter, order(edit(image=[picture], size="64x32", num_inference_steps=4)))
    assert played.sent[0] == {
        "inputs": base64.b64encode(PNG).decode(),
        "parameters": {
            "prompt": "a cat",
            "num_inference_steps": 4,
            "target_size": {"width": 64, "height": 32},
        },
    }


async def test_speech(adapter: Adapter, played: PlayedHfInference) -> None:
    outcome = await perform(adapter, order(speech(response_format="flac")))
    assert outcome.output == Speech(audio=Media(data=FLAC, media_type="audio/flac"))
    assert played.sent == [{"inputs": "hello"}]
    assert outcome.usage.characters == 5


async def test_transcripts(adapter: Adapter, played: PlayedHfInference) -> None:
    outcome = await perform(adapter, order(listening()))
    assert outcome.output == Transcript(text="Hello there, world.")
    assert played.sent[0] == listening().file.data, "the sound alone, as bytes"
    assert played.serving.asked[0].headers["content-type"] == "audio/wav"
    timed = await perform(adapter, order(listening(response_format="verbose_json")))
    assert isinstance(timed.output, Transcript)
    assert timed.output.duration_s == 2.5
    assert [part["end"] for part in timed.output.segments or ()] == [1.25, 2.5]
    assert timed.usage.audio_ms == 2500
    call = order(listening(timestamp_granularities=["word"], temperature=0.2))
    words = await perform(adapter, call)
    assert isinstance(words.output, Transcript)
    assert [word["word"] for word in words.output.words or ()] == ["Hello", "world"]
    assert played.sent[2]["parameters"] == {
        "return_timestamps": "word",
        "generation_parameters": {"temperature": 0.2},
    }


async def test_large_sounds_are_encoded_too(adapter: Adapter, played: PlayedHfInference) -> None:
    file = Media(data=b"ID3" + b"\0" * 300_000)
    await perform(adapter, order(listening(file=file, response_format="srt")))
    assert base64.b64decode(played.sent[0]["inputs"]) == file.data
    await perform(adapter, order(listening(file=file)))
    assert played.serving.asked[1].headers["content-type"] == "audio/mpeg"


async def test_warnings_are_for_the_log(adapter: Adapter, caplog: pytest.LogCaptureFixture) -> None:
    file = Media(data=b"RIFF\0\0\0\0WAVE warn", media_type="audio/wav")
    with caplog.at_level(logging.DEBUG, "tests.plugins.hf"):
        await perform(adapter, order(listening(file=file)))
    assert "the sound is long" in caplog.text


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (image(n=2), "n"),
        (edit(image=[Media(data=PNG)] * 2), "image"),
        (edit(mask=Media(data=PNG)), "mask"),
        (speech(response_format="mp3"), "response_format"),
        (embed(input=[1, 2]), "input"),
        (listening(timestamp_granularities=["word", "segment"]), "timestamp_granularities"),
    ],
)
async def test_values_that_cannot_be_honoured_are_named(
    adapter: Adapter, played: PlayedHfInference, request_: Request, param: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        await perform(adapter, order(request_))
    assert (caught.value.kind, caught.value.param) == (K.BAD_REQUEST, param)
    assert played.serving.asked == []


REFUSED = {
    "loading": K.LOADING,
    "loading_long": K.LOADING,
    "loading_odd": K.LOADING,
    "busy": K.OVERLOADED,
    "listed": K.BAD_REQUEST,
    "warned": K.BAD_REQUEST,
    "too_long": K.CONTEXT_LENGTH,
    "unknown": K.NOT_FOUND,
    "no_credit": K.NO_CREDIT,
    "forbidden": K.AUTH,
    "not_found": K.NOT_FOUND,
    "rate_limited": K.RATE_LIMITED,
    "server_error": K.UPSTREAM,
    "timeout": K.TIMEOUT,
}
WAITS = {"loading": 20.5, "loading_long": 60.0}


async def failure(adapter: Adapter, call: InferenceCall) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        [event async for event in adapter.infer(call)]
    assert KEY not in caught.value.message + caught.value.detail
    return caught.value


@pytest.mark.parametrize(("scene", "kind"), REFUSED.items())
async def test_refusals(
    adapter: Adapter, played: PlayedHfInference, scene: str, kind: FailureKind
) -> None:
    calls = [order(make(scene)) for make in TASKS.values()]
    calls += [ask(stream, scene) for stream in (False, True)]
    for call in calls:
        error = await failure(adapter, call)
        assert error.kind is kind, error.detail
        assert error.retry_after_s == WAITS.get(scene)
        if scene == "listed":
            assert error.message.endswith("`parameters`; Extra inputs: `x`")
    assert len(played.serving.asked) == len(calls), "an adapter never retries"


@each_task
@pytest.mark.parametrize(
    ("scene", "kind"),
    [
        ("error_in_200", K.UPSTREAM),
        ("garbage", K.PROTOCOL),
        ("html", K.PROTOCOL),
        ("cut", K.UPSTREAM),
        ("reset", K.UPSTREAM),
        ("hang", K.TIMEOUT),
    ],
)
async def test_faults(
    adapter: Adapter, make: Callable[..., Request], scene: str, kind: FailureKind
) -> None:
    wait_s = 0.5 if scene == "hang" else 15.0
    error = await failure(adapter, order(make(scene), first_event_s=wait_s))
    assert error.kind is kind, error.detail


@pytest.mark.parametrize("scene", ["per_token", "one_less", "crooked"])
async def test_vectors_that_are_not_what_was_asked_for(adapter: Adapter, scene: str) -> None:
    assert (await failure(adapter, order(embed(scene)))).kind is K.PROTOCOL


async def test_bad_key_and_no_server(adapter: Adapter) -> None:
    assert (await failure(adapter, order(image(), api_key="hf_wrongKey"))).kind is K.AUTH
    settings = HfInferenceSettings(base_url="http://127.0.0.1:1")
    built = PLUGIN.build(settings, toolbox("text-to-image"))
    await built.start()
    assert (await failure(built, order(image()))).kind is K.CONNECT
    await built.close()


async def test_time_that_is_not_told_is_seen(adapter: Adapter, played: PlayedHfInference) -> None:
    played.unpriced = True
    usage = (await perform(adapter, order(image()))).usage
    assert usage.estimated
    assert 0 < usage.compute_ns < 15_000_000_000
    usage = (await perform(adapter, order(image(), compute_ns_max=None))).usage
    assert (usage.compute_ns, usage.estimated) == (0, False)


async def test_no_call_goes_on_past_the_compute_that_is_paid_for(adapter: Adapter) -> None:
    async with asyncio.timeout(10):
        error = await failure(adapter, order(image("hang"), compute_ns_max=200_000_000))
    assert error.kind is K.TIMEOUT


async def test_the_id_to_ask_the_cost_by(played: PlayedHfInference) -> None:
    settings = HfInferenceSettings(base_url=played.base_url)
    tools = toolbox("text-to-image", request_id_header="X-Request-Id")
    built = PLUGIN.build(settings, tools)
    await built.start()
    events = [event async for event in built.infer(order(image()))]
    assert events[0] == Started("req-1")
    await built.close()


def test_offers_and_settings() -> None:
    settings = HfInferenceSettings()
    offer = PLUGIN.build(settings, toolbox("text-to-image")).offers()[0]
    assert offer.supported_params is not None
    assert {"size", "seed", "negative_prompt"} <= offer.supported_params
    assert not {"n", "quality", "style"} & offer.supported_params
    chats = PLUGIN.build(settings, toolbox("conversational")).offers()[0]
    assert chats.supported_params is not None
    assert {"tools", "structured_outputs", "seed"} <= chats.supported_params
    for tasks in (("text-to-video",), ("conversational", "text-to-image"), ()):
        with pytest.raises(ValueError, match="models"):
            PLUGIN.build(settings, toolbox(*tasks))
    with pytest.raises(ValueError, match="bill_to"):
        PLUGIN.build(HfInferenceSettings(bill_to="a\nb"), toolbox("text-to-image"))


@given(ms=st.integers(0, 10**8), apart=st.integers(-1, 1))
def test_both_units_of_time_are_told_apart(ms: int, apart: int) -> None:
    seconds = Decimal(ms) / 1000
    told = compute_seconds(str(ms), str(max(0, ms + apart)))
    assert told is not None
    assert Decimal(told) == seconds
    assert compute_seconds(f"{seconds:f}", None) == f"{seconds:f}"
    if ms > 1001:
        told = compute_seconds(f"{seconds:f}", str(ms))
        assert told is not None
        assert Decimal(told) == seconds


@pytest.mark.parametrize("odd", [None, "", "-1", "nan", "inf", "1e9999999", "1" * 80, "٣", "x"])
def test_odd_times_are_none(odd: str | None) -> None:
    assert compute_seconds(odd, odd) is None
