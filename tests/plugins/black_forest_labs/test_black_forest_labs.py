"""Black Forest Labs: what is sent, its bills, its regions."""

from collections.abc import AsyncIterator

import pytest

from plugins.black_forest_labs.plugin import PLUGIN
from plugins.black_forest_labs.wire import HOSTS
from plugins.contract import AdapterError, FailureKind
from plugins.http.client import Client, HttpRequest
from plugins.tasks import Images, Media
from tests.plugins.queued.playing import PNG, Bench, bench, image, model
from tests.upstreams.black_forest_labs import PlayedBlackForestLabs

TASKS = ("text-to-image", "image-to-image")


@pytest.fixture
async def at() -> AsyncIterator[Bench]:
    async with bench(PLUGIN, PlayedBlackForestLabs(), model("flux-2-pro", *TASKS)) as made:
        yield made


@pytest.mark.parametrize("scene", ["", "no-place"])
async def test_a_picture_and_its_bill(at: Bench, scene: str) -> None:
    outcome = await at.run(image(scene))
    asked = [each.target for each in at.played.serving.asked]
    assert asked[0] == "/v1/flux-2-pro"
    assert set(asked[1:]) == {"/v1/get_result?id=work-0"}
    assert isinstance(outcome.output, Images)
    assert outcome.output.images[0].media_type == "image/jpeg"
    assert outcome.usage.cost_nano_usd == 45_000_000


async def test_parameters_have_the_provider_s_names(at: Bench) -> None:
    request = image(
        image=[Media(data=PNG), Media(data=b"second")],
        size="512x768",
        seed=7,
        guidance_scale=3.5,
        num_inference_steps=20,
        output_format="png",
        n=1,
    )
    await at.run(request)
    assert at.sent() == {
        "prompt": "a cat",
        "seed": 7,
        "output_format": "png",
        "steps": 20,
        "guidance": 3.5,
        "width": 512,
        "height": 768,
        "input_image": "iVBORw0KGgogcGljdHVyZQ==",
        "input_image_2": "c2Vjb25k",
    }


REFUSED_HERE = {
    "n": image(n=2),
    "output_format": image(output_format="webp"),
    "image": image(image=[Media(data=PNG)] * 9),
}


@pytest.mark.parametrize("param", REFUSED_HERE)
async def test_values_that_cannot_be_honoured_are_refused_by_name(at: Bench, param: str) -> None:
    error = await at.fail(REFUSED_HERE[param])
    assert (error.kind, error.param) == (FailureKind.BAD_REQUEST, param)
    assert at.played.serving.asked == []


async def test_a_picture_on_the_web_is_read_first(at: Bench) -> None:
    url = f"{at.files.serving.origin}/mine.png"
    await at.run(image(image=[Media(url=url)]))
    assert at.sent()["input_image"].startswith("iVBORw0KGgpieXRlcyBvZi")
    at.files.refuses = True
    error = await at.fail(image(image=[Media(url=url)]))
    assert error.kind is FailureKind.BAD_REQUEST


ENDED = {
    "nsfw": (FailureKind.REFUSED, "Derivative Works Filter"),
    "moderated": (FailureKind.REFUSED, "moderation refused the content"),
    "failed": (FailureKind.UPSTREAM, "could not do the work"),
    "cancelled": (FailureKind.UPSTREAM, "gave the work up"),
    "invalid": (FailureKind.BAD_REQUEST, "width: multiple of 16"),
    "no-output": (FailureKind.PROTOCOL, "cannot be read"),
    "bad-place": (FailureKind.PROTOCOL, "cannot be read"),
}


@pytest.mark.parametrize("scene", ENDED)
async def test_refusals(at: Bench, scene: str) -> None:
    error = await at.fail(image(scene))
    kind, words = ENDED[scene]
    assert error.kind is kind
    assert words in error.message
    assert error.param == ("size" if scene == "invalid" else None)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1/get_result?id=a",
        "https://bfl.ai.evil.example/x",
        "http://api.eu.bfl.ai/plain",
        "https://evilbfl.ai/x",
        "https://user:pw@api.eu.bfl.ai/x",
    ],
)
async def test_only_the_provider_s_own_hosts_are_asked(url: str) -> None:
    client = Client("https://api.bfl.ai", user_agent="Turnpike/test", hosts=HOSTS)
    await client.start()
    with pytest.raises(AdapterError, match="another host"):
        await client.fetch(HttpRequest(target=url, method="GET"), by=0.0, silence_s=1.0)
    await client.close()
