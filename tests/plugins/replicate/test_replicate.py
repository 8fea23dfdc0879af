"""Replicate: what is sent, task by task, and every form of output."""

from collections.abc import AsyncIterator

import pytest

from plugins.contract import FailureKind
from plugins.replicate.plugin import PLUGIN
from plugins.tasks import Images, Media, Speech, Transcript, Video
from tests.plugins.queued.playing import (
    PNG,
    Bench,
    bench,
    edit,
    image,
    listening,
    model,
    speech,
    video,
)
from tests.upstreams.replicate import PlayedReplicate

TASKS = (
    "text-to-image",
    "image-to-image",
    "text-to-video",
    "text-to-speech",
    "automatic-speech-recognition",
)


@pytest.fixture
async def at() -> AsyncIterator[Bench]:
    async with bench(PLUGIN, PlayedReplicate(), model("acme/model", *TASKS)) as made:
        yield made


async def test_a_model_and_a_version_have_their_own_routes(at: Bench) -> None:
    await at.run(image(), deadline_s=61.5)
    asked = at.played.serving.asked[0]
    assert asked.path == "/v1/models/acme/model/predictions"
    assert asked.headers["prefer"] == "wait=5"
    assert asked.headers["cancel-after"] == "62s"
    assert asked.json() == {"input": {"prompt": "a cat"}}
    await at.run(image("at-once"), upstream_id="acme/model:abc123", deadline_s=3)
    asked = at.played.serving.asked[-1]
    assert (asked.path, asked.json()["version"]) == ("/v1/predictions", "abc123")
    assert asked.headers["prefer"] == "wait=1"


async def test_a_result_within_the_wait_needs_no_question(at: Bench) -> None:
    outcome = await at.run(image("at-once"))
    assert isinstance(outcome.output, Images)
    assert [each.method for each in at.played.serving.asked] == ["POST"]
    assert outcome.usage.compute_ns == 1_250_000_000


async def test_parameters_have_the_provider_s_names(at: Bench) -> None:
    request = edit(
        "at-once",
        n=3,
        size="512x768",
        seed=7,
        negative_prompt="dogs",
        guidance_scale=3.5,
        num_inference_steps=20,
        strength=0.5,
        output_format="jpeg",
        output_compression=80,
        mask=Media(data=PNG),
    )
    outcome = await at.run(request)
    sent = at.sent()["input"]
    picture = sent["image"]
    assert picture.startswith("data:image/png;base64,")
    assert sent == {
        "prompt": "play:at-once",
        "negative_prompt": "dogs",
        "guidance_scale": 3.5,
        "num_inference_steps": 20,
        "seed": 7,
        "strength": 0.5,
        "width": 512,
        "height": 768,
        "num_outputs": 3,
        "output_format": "jpg",
        "output_quality": 80,
        "image": picture,
        "images": [picture],
        "input_image": picture,
        "input_images": [picture],
        "mask": picture,
    }
    assert isinstance(outcome.output, Images)
    assert len(outcome.output.images) == outcome.usage.images == 3


async def test_no_more_pictures_are_taken_than_were_asked_for(at: Bench) -> None:
    outcome = await at.run(image("many"))
    assert isinstance(outcome.output, Images)
    assert (len(outcome.output.images), outcome.usage.images) == (1, 1)


async def test_a_video_has_its_length(at: Bench) -> None:
    outcome = await at.run(video(seconds="5", num_frames=81))
    assert at.sent()["input"] == {"prompt": "play:", "num_frames": 81, "duration": 5}
    assert isinstance(outcome.output, Video)
    assert outcome.output.video.media_type == "video/mp4"
    assert outcome.usage.video_ms == 4500
    unmeasured = await at.run(video("nonsense", seconds="5"))
    assert unmeasured.usage.video_ms == 5000


async def test_speech_comes_as_bytes_and_counts_characters(at: Bench) -> None:
    outcome = await at.run(speech(voice="af_bella", speed=1.5))
    assert at.sent()["input"] == {"text": "play:", "voice": "af_bella", "speed": 1.5}
    assert isinstance(outcome.output, Speech)
    assert outcome.output.audio.media_type == "audio/wav"
    assert outcome.usage.characters == 5


async def test_a_transcript_of_whisper(at: Bench) -> None:
    outcome = await at.run(listening(language="en", temperature=0.0, prompt="names"))
    sent = at.sent()["input"]
    assert sent.pop("audio").startswith("data:audio/wav;base64,")
    assert sent == {"language": "en", "temperature": 0.0, "initial_prompt": "names"}
    assert isinstance(outcome.output, Transcript)
    assert outcome.output.text == "Hello world"
    assert outcome.output.language == "english"
    assert outcome.output.duration_s == 2.25
    assert outcome.output.segments == [
        {"id": 0, "start": 0.0, "end": 1.5, "text": " Hello"},
        {"id": 1, "start": 1.5, "end": 2.25, "text": " world"},
    ]
    assert outcome.usage.audio_ms == 2250


@pytest.mark.parametrize(
    ("scene", "text"),
    [("text", "spoken words"), ("pieces", "spoken words"), ("chunks", "a b")],
)
async def test_other_forms_of_transcripts(at: Bench, scene: str, text: str) -> None:
    outcome = await at.run(listening(scene))
    assert isinstance(outcome.output, Transcript)
    assert outcome.output.text == text
    assert outcome.usage.audio_ms == (3000 if scene == "chunks" else 0)


async def test_a_transcript_in_a_file_is_read(at: Bench) -> None:
    outcome = await at.run(listening("text-file"))
    assert isinstance(outcome.output, Transcript)
    assert (outcome.output.text, outcome.output.language) == ("bytes of /said.txt", "en")


REFUSED = {
    "invalid": (FailureKind.BAD_REQUEST, "num_outputs: Must be less than"),
    "no-version": (FailureKind.NOT_FOUND, "does not know the model"),
    "throttled": (FailureKind.RATE_LIMITED, "limits the rate"),
    "cancelled": (FailureKind.UPSTREAM, "gave the work up"),
    "aborted": (FailureKind.UPSTREAM, "gave the work up"),
    "no-output": (FailureKind.UPSTREAM, "could not do the work"),
    "other-work": (FailureKind.PROTOCOL, "cannot be read"),
}


@pytest.mark.parametrize("scene", REFUSED)
async def test_refusals(at: Bench, scene: str) -> None:
    error = await at.fail(image(scene))
    kind, words = REFUSED[scene]
    assert error.kind is kind
    assert words in error.message
    assert error.retry_after_s == (30.0 if scene == "throttled" else None)


async def test_failed_work_has_used_what_it_used(at: Bench) -> None:
    error = await at.fail(image("failed"))
    assert error.usage is not None
    assert error.usage.compute_ns == 500_000_000
    assert "CUDA out of memory" in error.detail


async def test_the_id_that_bills_are_asked_by_may_be_a_header() -> None:
    entry = model("acme/model", "text-to-image")
    async with bench(PLUGIN, PlayedReplicate(), entry, request_id_header="Content-Length") as at:
        outcome = await at.run(image())
    assert outcome.upstream_id is not None
    assert outcome.upstream_id.isdigit()


async def test_work_that_ends_as_its_compute_does_is_still_asked_after() -> None:
    entry = model("acme/model", "text-to-image")
    async with bench(PLUGIN, PlayedReplicate(), entry, poll_first_s=0.2, poll_longest_s=30.0) as at:
        outcome = await at.run(image(), compute_ns_max=20_000_000, deadline_s=15)
    assert outcome.usage.compute_ns == 1_250_000_000


async def test_large_uploads_are_sent_whole(at: Bench) -> None:
    data = PNG + b"x" * 1_000_000
    await at.run(image("at-once", image=[Media(data=data)]))
    assert len(at.sent()["input"]["image"]) > 1_333_000
