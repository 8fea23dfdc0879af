"""WaveSpeed: what is sent, and what its codes and statuses mean."""

from collections.abc import AsyncIterator

import pytest

from plugins.contract import FailureKind
from plugins.tasks import Images, Media, Video
from plugins.wavespeed.plugin import PLUGIN
from tests.plugins.queued.playing import PNG, Bench, bench, edit, image, model, video
from tests.upstreams.wavespeed import PlayedWaveSpeed

TASKS = ("text-to-image", "image-to-image", "text-to-video")


@pytest.fixture
async def at() -> AsyncIterator[Bench]:
    async with bench(PLUGIN, PlayedWaveSpeed(), model("wavespeed-ai/flux-dev", *TASKS)) as made:
        yield made


@pytest.mark.parametrize("scene", ["", "no-urls"])
async def test_routes(at: Bench, scene: str) -> None:
    outcome = await at.run(image(scene))
    asked = [(each.method, each.path) for each in at.played.serving.asked]
    assert asked[0] == ("POST", "/api/v3/wavespeed-ai/flux-dev")
    assert set(asked[1:]) == {("GET", "/api/v3/predictions/work-0/result")}
    assert outcome.usage.compute_ns == 2_500_000_000


async def test_abandoned_work_is_deleted(at: Bench) -> None:
    await at.fail(image("slow"), deadline_s=0.2)
    last = at.played.serving.asked[-1]
    assert (last.method, last.path) == ("DELETE", "/api/v3/predictions/work-0")


async def test_parameters_have_the_provider_s_names(at: Bench) -> None:
    outcome = await at.run(edit(n=2, size="512x768", strength=0.5, mask=Media(data=PNG)))
    picture = at.sent()["image"]
    assert picture.startswith("data:image/png;base64,")
    assert at.sent() == {
        "prompt": "a cat",
        "size": "512*768",
        "image": picture,
        "mask_image": picture,
        "strength": 0.5,
        "num_images": 2,
    }
    assert isinstance(outcome.output, Images)
    assert len(outcome.output.images) == outcome.usage.images == 2
    assert outcome.output.images[0].media_type == "image/png"


async def test_a_video_has_the_length_that_was_asked_for(at: Bench) -> None:
    outcome = await at.run(video(seconds="5", size="832x480", seed=1))
    assert at.sent() == {"prompt": "play:", "seed": 1, "size": "832*480", "duration": 5}
    assert isinstance(outcome.output, Video)
    assert outcome.usage.video_ms == 5000


async def test_several_pictures_are_refused_by_name(at: Bench) -> None:
    request = image(image=[Media(data=PNG), Media(data=PNG)])
    error = await at.fail(request)
    assert (error.kind, error.param) == (FailureKind.BAD_REQUEST, "image")


ENDED = {
    "error-in-answer": (FailureKind.UPSTREAM, "reported an error"),
    "nsfw": (FailureKind.REFUSED, "The content contains sensitive information."),
    "flagged": (FailureKind.REFUSED, "flagged as sensitive"),
    "invalid": (FailureKind.BAD_REQUEST, "size: must be at most 1536"),
    "failed": (FailureKind.UPSTREAM, "could not do the work"),
    "cancelled": (FailureKind.UPSTREAM, "gave the work up"),
    "black": (FailureKind.REFUSED, "found unsafe"),
    "no-output": (FailureKind.UPSTREAM, "could not do the work"),
}


@pytest.mark.parametrize("scene", ENDED)
async def test_refusals(at: Bench, scene: str) -> None:
    error = await at.fail(image(scene))
    kind, words = ENDED[scene]
    assert error.kind is kind
    assert words in error.message
