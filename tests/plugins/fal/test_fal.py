"""fal: its queue, its synchronous host, and what its models answer."""

from collections.abc import AsyncIterator

import pytest

from plugins.contract import FailureKind
from plugins.fal.plugin import PLUGIN
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
from tests.upstreams.fal import PlayedFal

TASKS = (
    "text-to-image",
    "image-to-image",
    "text-to-video",
    "text-to-speech",
    "automatic-speech-recognition",
)


@pytest.fixture
async def at() -> AsyncIterator[Bench]:
    async with bench(PLUGIN, PlayedFal(), model("fal-ai/model/dev", *TASKS)) as made:
        yield made


@pytest.fixture
async def directly() -> AsyncIterator[Bench]:
    played = PlayedFal()
    played.direct = True
    entry = model("fal-ai/model/dev", *TASKS)
    async with bench(PLUGIN, played, entry, direct=True) as made:
        yield made


async def test_the_queue_is_asked_where_it_says(at: Bench) -> None:
    outcome = await at.run(image(), deadline_s=61.5)
    asked = [(each.method, each.path) for each in at.played.serving.asked]
    place = "/fal-ai/model/requests/work-0"
    assert asked[0] == ("POST", "/fal-ai/model/dev")
    assert asked[1:-1] == [("GET", f"{place}/status")] * 2
    assert asked[-1] == ("GET", place)
    assert at.played.serving.asked[0].headers["x-fal-request-timeout"] == "62"
    assert outcome.usage.compute_ns == 2_500_000_000


async def test_abandoned_work_is_cancelled_with_put(at: Bench) -> None:
    await at.fail(image("slow"), deadline_s=0.2)
    last = at.played.serving.asked[-1]
    assert (last.method, last.path) == ("PUT", "/fal-ai/model/requests/work-0/cancel")


async def test_directly_the_reply_is_the_result(directly: Bench) -> None:
    outcome = await directly.run(image())
    assert isinstance(outcome.output, Images)
    assert outcome.upstream_id == "work-0"
    assert outcome.usage.compute_ns == 750_000_000
    assert len(directly.played.serving.asked) == 1


async def test_directly_errors_come_at_once(directly: Bench) -> None:
    assert (await directly.fail(image("nsfw"))).kind is FailureKind.REFUSED
    assert (await directly.fail(image("black"))).kind is FailureKind.REFUSED
    assert (await directly.fail(image("failed"))).kind is FailureKind.UPSTREAM


async def test_parameters_have_the_provider_s_names(at: Bench) -> None:
    request = edit(
        n=2,
        size="512x768",
        seed=7,
        guidance_scale=3.5,
        num_inference_steps=20,
        strength=0.5,
        output_format="png",
        mask=Media(data=PNG),
    )
    outcome = await at.run(request)
    picture = at.sent()["image_url"]
    assert picture.startswith("data:image/png;base64,")
    assert at.sent() == {
        "prompt": "a cat",
        "guidance_scale": 3.5,
        "num_inference_steps": 20,
        "seed": 7,
        "output_format": "png",
        "image_url": picture,
        "image_urls": [picture],
        "strength": 0.5,
        "mask_url": picture,
        "image_size": {"width": 512, "height": 768},
        "num_images": 2,
    }
    assert isinstance(outcome.output, Images)
    assert [each.media_type for each in outcome.output.images] == ["image/jpeg"] * 2
    assert outcome.usage.images == 2


async def test_pictures_that_were_blackened_are_left_out_and_paid_for(at: Bench) -> None:
    outcome = await at.run(image("one-black", n=3))
    assert isinstance(outcome.output, Images)
    assert (len(outcome.output.images), outcome.usage.images) == (2, 3)
    error = await at.fail(image("black", n=2))
    assert error.kind is FailureKind.REFUSED
    assert error.usage is not None
    assert error.usage.images == 2


async def test_a_video_has_its_length(at: Bench) -> None:
    outcome = await at.run(video(seconds="5"))
    assert at.sent() == {"prompt": "play:", "duration": "5"}
    assert isinstance(outcome.output, Video)
    assert outcome.usage.video_ms == 5000
    assert (await at.run(video("measured", seconds="5"))).usage.video_ms == 5200


async def test_speech_comes_as_bytes_and_counts_characters(at: Bench) -> None:
    outcome = await at.run(speech(voice="af_bella"))
    assert at.sent() == {"text": "play:", "voice": "af_bella"}
    assert isinstance(outcome.output, Speech)
    assert outcome.output.audio.data is not None
    assert outcome.usage.characters == 5


async def test_a_transcript_with_segments_or_words(at: Bench) -> None:
    outcome = await at.run(listening(language="en"))
    assert isinstance(outcome.output, Transcript)
    assert (outcome.output.text, outcome.output.language) == ("Hello world", "en")
    assert outcome.output.segments is not None
    assert outcome.output.segments[1] == {"id": 1, "start": 1.5, "end": 1.5, "text": " world"}
    assert outcome.usage.audio_ms == 1500
    words = await at.run(listening(timestamp_granularities=["word"]))
    assert at.sent()["chunk_level"] == "word"
    assert isinstance(words.output, Transcript)
    assert words.output.segments is None
    assert words.output.words is not None
    assert words.output.words[0] == {"start": 0.0, "end": 1.5, "word": "Hello"}


async def test_words_and_segments_at_once_are_refused_by_name(at: Bench) -> None:
    error = await at.fail(listening(timestamp_granularities=["word", "segment"]))
    assert (error.kind, error.param) == (FailureKind.BAD_REQUEST, "timestamp_granularities")
    assert at.played.serving.asked == []


ENDED = {
    "invalid": FailureKind.BAD_REQUEST,
    "nsfw": FailureKind.REFUSED,
    "failed": FailureKind.UPSTREAM,
    "timed-out": FailureKind.TIMEOUT,
    "locked": FailureKind.NO_CREDIT,
    "no-output": FailureKind.PROTOCOL,
}


@pytest.mark.parametrize("scene", ENDED)
async def test_refusals(at: Bench, scene: str) -> None:
    error = await at.fail(image(scene))
    assert error.kind is ENDED[scene]
    if scene == "invalid":
        assert error.message.startswith("image_size.width: Input should be less than")
        assert error.param == "size"


async def test_how_work_ended_is_asked_once(at: Bench) -> None:
    await at.fail(image("failed"))
    place = "/fal-ai/model/requests/work-0"
    assert [each.path for each in at.played.serving.asked].count(place) == 1


async def test_trouble_on_the_way_to_the_result_is_outlived(at: Bench) -> None:
    outcome = await at.run(image("broken-result"))
    assert outcome.usage.images == 1
