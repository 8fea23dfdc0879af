"""Pictures at OpenAI-compatible providers, each in its own way."""

import base64
from typing import Any

import pytest

from plugins.contract import AdapterError, FailureKind
from plugins.openai_compatible.tasks.dialects import (
    FIREWORKS,
    HYPERBOLIC,
    NEBIUS,
    NSCALE,
    PLAIN,
    TOGETHER,
    supported_params,
)
from plugins.tasks import IMAGE_TO_IMAGE, TEXT_TO_IMAGE, ImageRequest, Images, Media
from tests.plugins.openai_compatible_tasks.conftest import Carry, Fetched
from tests.upstreams.tasks import PlayedTasks, form_of, png

PICTURE = Media(data=png(1), media_type="image/png", name='a"b.png')


def request(**fields: Any) -> ImageRequest:
    return ImageRequest(**{"model": "acme/paint", "prompt": "a tree", **fields})


DIFFUSION = {
    "size": "1024x768",
    "num_inference_steps": 20,
    "guidance_scale": 3.5,
    "seed": 7,
    "negative_prompt": "dogs",
}


@pytest.mark.parametrize(
    ("dialect", "fields", "target", "sent"),
    [
        (
            PLAIN,
            {"n": 2, "size": "1024x1024", "quality": "high", "response_format": "b64_json"},
            "/v1/images/generations",
            {
                "model": "m",
                "prompt": "a tree",
                "n": 2,
                "size": "1024x1024",
                "quality": "high",
                "response_format": "b64_json",
            },
        ),
        (PLAIN, {}, "/v1/images/generations", {"model": "m", "prompt": "a tree"}),
        (
            TOGETHER,
            DIFFUSION,
            "/v1/images/generations",
            {
                "model": "m",
                "prompt": "a tree",
                "width": 1024,
                "height": 768,
                "steps": 20,
                "guidance_scale": 3.5,
                "seed": 7,
                "negative_prompt": "dogs",
                "response_format": "base64",
            },
        ),
        (
            NEBIUS,
            {"size": "auto", "output_format": "jpeg", "response_format": "url"},
            "/v1/images/generations",
            {
                "model": "m",
                "prompt": "a tree",
                "response_extension": "jpg",
                "response_format": "url",
            },
        ),
        (
            HYPERBOLIC,
            {"num_inference_steps": 20, "guidance_scale": 5.0},
            "/v1/image/generation",
            {
                "model_name": "m",
                "prompt": "a tree",
                "steps": 20,
                "cfg_scale": 5.0,
                "width": 512,
                "height": 512,
            },
        ),
        (
            NSCALE,
            {"size": "512x512"},
            "/v1/images/generations",
            {"model": "m", "prompt": "a tree", "size": "512x512", "response_format": "b64_json"},
        ),
        (
            FIREWORKS,
            {"seed": 1, "response_format": "b64_json"},
            "/v1/workflows/m/text_to_image",
            {"prompt": "a tree", "seed": 1},
        ),
    ],
)
async def test_each_provider_is_asked_in_its_own_way(
    carry: Carry,
    played: PlayedTasks,
    dialect: Any,
    fields: dict[str, Any],
    target: str,
    sent: dict[str, Any],
) -> None:
    if dialect is HYPERBOLIC:
        played.pictures = "hyperbolic"
    output, usage = await carry(request(**fields), dialect=dialect)
    assert isinstance(output, Images)
    (asked,) = played.asked
    assert asked.target == target
    assert asked.json() == sent
    assert [each.media_type for each in output.images] == ["image/png"] * sent.get("n", 1)
    assert (usage.images, usage.estimated) == (sent.get("n", 1), True)


async def test_tokens_are_told_apart_from_pictures(carry: Carry, played: PlayedTasks) -> None:
    played.pictures = "gpt-image"
    output, usage = await carry(request())
    assert isinstance(output, Images)
    assert output.revised_prompts == []
    assert (usage.input_tokens, usage.output_tokens, usage.images) == (50, 272, 1)
    assert not usage.estimated


async def test_revised_prompts_are_kept(carry: Carry) -> None:
    output, _ = await carry(request(n=2))
    assert isinstance(output, Images)
    assert output.revised_prompts == ["better", "better"]


async def test_a_url_is_handed_on_or_read_where_bytes_are_wanted(
    carry: Carry, played: PlayedTasks, fetch: Fetched
) -> None:
    played.pictures = "url"
    output, _ = await carry(request())
    assert isinstance(output, Images)
    assert output.images[0].data is None
    url = output.images[0].url
    assert url == f"{played.base_url}/files/picture.png"
    assert fetch.urls == []
    output, _ = await carry(request(response_format="b64_json"))
    assert isinstance(output, Images)
    assert output.images[0].data == png(9)
    assert fetch.urls == [url]


async def test_a_url_that_cannot_be_read_is_the_providers_fault(
    carry: Carry, played: PlayedTasks, fetch: Fetched
) -> None:
    played.pictures = "url"
    fetch.refuses = True
    with pytest.raises(AdapterError) as failed:
        await carry(request(response_format="b64_json"))
    assert failed.value.kind is FailureKind.UPSTREAM


async def test_edits_are_a_form_of_files(carry: Carry, played: PlayedTasks) -> None:
    mask = Media(data=png(2), media_type="image/png", name="mask.png")
    output, _ = await carry(request(image=[PICTURE], mask=mask, n=2, quality="high"))
    assert isinstance(output, Images)
    assert len(output.images) == 2
    (asked,) = played.asked
    assert asked.path == "/v1/images/edits"
    form = form_of(asked)
    assert form["image"] == [("a%22b.png", "image/png", png(1))]
    assert form["mask"] == [("mask.png", "image/png", png(2))]
    assert [form[name][0][2] for name in ("model", "prompt", "n", "quality")] == [
        b"m",
        b"a tree",
        b"2",
        b"high",
    ]


async def test_several_pictures_and_one_by_its_url(
    carry: Carry, played: PlayedTasks, fetch: Fetched
) -> None:
    await carry(request(image=[PICTURE, Media(url="https://pics.example/x.png")]))
    form = form_of(played.asked[0])
    assert [each[2] for each in form["image[]"]] == [png(1), png(9)]
    assert fetch.urls == ["https://pics.example/x.png"]


@pytest.mark.parametrize(
    ("model", "field"),
    [("black-forest-labs/FLUX.1-kontext-pro", "image_url"), ("acme/other", "reference_images")],
)
async def test_together_takes_pictures_in_its_json(
    carry: Carry, played: PlayedTasks, model: str, field: str
) -> None:
    await carry(request(image=[PICTURE]), dialect=TOGETHER, of={"upstream_id": model})
    sent = played.asked[0].json()[field]
    url = f"data:image/png;base64,{base64.b64encode(png(1)).decode()}"
    assert sent == (url if field == "image_url" else [url])


@pytest.mark.parametrize(("dialect", "mask"), [(NEBIUS, False), (TOGETHER, True)])
async def test_what_a_provider_cannot_take_is_named(
    carry: Carry, played: PlayedTasks, dialect: Any, mask: bool
) -> None:
    fields = {"mask": PICTURE} if mask else {}
    with pytest.raises(AdapterError) as failed:
        await carry(request(image=[PICTURE], **fields), dialect=dialect)
    assert failed.value.kind is FailureKind.BAD_REQUEST
    assert failed.value.param == ("mask" if mask else "image")
    assert played.asked == []


def data(*pictures: Any) -> Any:
    return lambda answer: {**answer, "data": list(pictures)}


@pytest.mark.parametrize(
    "spoil",
    [
        data(),
        data({}),
        data({"b64_json": ""}),
        data({"b64_json": "???"}),
        data({"b64_json": base64.b64encode(b"<html>sorry</html>").decode()}),
        data({"url": "javascript:alert(1)"}),
        data({"url": "https://x.example/" + "a" * 9000}),
        data({"url": "data:image/png;base64,AAAA"}),
        data({"b64_json": 17}),
        lambda answer: {"images": []},
        lambda answer: None,
    ],
)
async def test_a_reply_without_a_picture_is_a_failure(
    carry: Carry, played: PlayedTasks, spoil: Any
) -> None:
    played.spoil = spoil
    with pytest.raises(AdapterError) as failed:
        await carry(request())
    assert failed.value.kind is FailureKind.PROTOCOL


async def test_more_pictures_than_asked_for_are_not_counted(
    carry: Carry, played: PlayedTasks
) -> None:
    played.spoil = lambda answer: {**answer, "data": answer["data"] * 5}
    output, usage = await carry(request(n=2))
    assert isinstance(output, Images)
    assert len(output.images) == usage.images == 2


async def test_a_data_url_is_a_picture(carry: Carry, played: PlayedTasks) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png(3)).decode()}"
    played.spoil = data({"url": url})
    output, _ = await carry(request(response_format="b64_json"))
    assert isinstance(output, Images)
    assert output.images[0].data == png(3)


def test_offers_name_the_parameters_that_are_honoured() -> None:
    honoured = supported_params(TOGETHER, (TEXT_TO_IMAGE, IMAGE_TO_IMAGE))
    assert honoured is not None
    assert {"num_inference_steps", "image", "n"} <= honoured
    assert "mask" not in honoured
    assert supported_params(PLAIN, (TEXT_TO_IMAGE,)) is None
