"""``/v1/images/generations`` and ``/v1/images/edits`` with OpenAI's own client."""

import base64
from typing import Any

import httpx
import openai
import pytest

from tests.app.api.openai.shop import NANO_PER_PICTURE, Shop
from tests.upstreams.tasks import PlayedTasks, form_of, png

DATA_URL = f"data:image/png;base64,{base64.b64encode(png(3)).decode()}"


async def test_pictures_are_made(ann: openai.AsyncOpenAI, shop: Shop) -> None:
    found = await ann.images.generate(model="acme/paint", prompt="a tree", n=2, size="1024x1024")
    assert found.data is not None
    assert [base64.b64decode(each.b64_json or "") for each in found.data] == [png(0), png(1)]
    assert [each.revised_prompt for each in found.data] == ["better", "better"]
    assert (found.output_format, found.usage) == ("png", None)
    assert await shop.charged() == [("completed", 2 * NANO_PER_PICTURE)]


async def test_tokens_are_shown_where_they_are_known(
    ann: openai.AsyncOpenAI, played: PlayedTasks
) -> None:
    played.pictures = "gpt-image"
    found = await ann.images.generate(model="acme/paint", prompt="a tree")
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (50, 272)
    assert found.usage.total_tokens == 322


@pytest.mark.parametrize(("form", "made"), [("url", "b64_json"), ("b64_json", "url")])
async def test_a_picture_comes_as_it_was_asked_for(
    ann: openai.AsyncOpenAI, played: PlayedTasks, form: Any, made: str
) -> None:
    played.pictures = made
    found = await ann.images.generate(model="acme/paint", prompt="a tree", response_format=form)
    assert found.data is not None
    if form == "url":
        assert (found.data[0].url or "").startswith("data:image/png;base64,")
    else:
        assert base64.b64decode(found.data[0].b64_json or "") == png(9)


async def test_a_url_is_handed_on(ann: openai.AsyncOpenAI, played: PlayedTasks) -> None:
    played.pictures = "url"
    found = await ann.images.generate(model="acme/paint", prompt="a tree", response_format="url")
    assert found.data is not None
    assert found.data[0].url == f"{played.base_url}/files/picture.png"


async def test_an_edit_of_one_picture(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks
) -> None:
    found = await ann.images.edit(
        model="acme/paint", prompt="more", image=("a.png", png(1), "image/png"), mask=png(2), n=2
    )
    assert found.data is not None
    assert len(found.data) == 2
    form = form_of(played.asked[0])
    assert form["image"] == [("a.png", "image/png", png(1))]
    assert form["mask"][0][2] == png(2)
    assert form["n"][0][2] == b"2"
    assert await shop.charged() == [("completed", 2 * NANO_PER_PICTURE)]


async def test_an_edit_of_several(ann: openai.AsyncOpenAI, played: PlayedTasks) -> None:
    await ann.images.edit(
        model="acme/paint",
        prompt="more",
        image=[png(1), png(2)],
        extra_body={"provider": {"only": ["played"], "allow_fallbacks": False}, "seed": 5},
    )
    form = form_of(played.asked[0])
    assert [each[2] for each in form["image[]"]] == [png(1), png(2)]
    assert form["seed"][0][2] == b"5"
    assert "provider" not in form


async def test_an_edit_as_json(ann: openai.AsyncOpenAI, played: PlayedTasks) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            f"{ann.base_url}images/edits",
            headers={"Authorization": f"Bearer {ann.api_key}"},
            json={
                "model": "acme/paint",
                "prompt": "more",
                "images": [{"image_url": DATA_URL}, {"image_url": "https://pics.example/b.png"}],
            },
        )
    assert answer.status_code == 200
    form = form_of(played.asked[0])
    assert [each[2] for each in form["image[]"]] == [png(3), png(9)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"images": []}, "image"),
        ({"images": [{"file_id": "f"}]}, "images[0].file_id"),
        ({"images": [{"image_url": "file:///etc/passwd"}]}, "images[0]"),
        ({"images": [{"image_url": "data:image/png;base64,?"}]}, "images[0]"),
        ({"images": [{}]}, "images[0]"),
        ({"images": "x"}, "images"),
        ({"images": [{"image_url": DATA_URL}] * 17}, "image"),
        ({"image": [{"url": "http://127.0.0.1/"}]}, "image"),
        ({"images": [{"image_url": DATA_URL}], "n": 99}, "n"),
        ({"images": [{"image_url": DATA_URL}], "mask": {"url": "x"}}, "mask"),
    ],
)
async def test_json_edits_that_cannot_be(
    ann: openai.AsyncOpenAI, played: PlayedTasks, body: dict[str, Any], param: str
) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            f"{ann.base_url}images/edits",
            headers={"Authorization": f"Bearer {ann.api_key}"},
            json={"model": "acme/paint", "prompt": "more", **body},
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert played.asked == []


@pytest.mark.parametrize(
    "extra", [{"image": [{"url": "http://127.0.0.1:1/"}]}, {"mask": {"url": "http://x/"}}]
)
async def test_pictures_cannot_be_slipped_into_a_generation(
    ann: openai.AsyncOpenAI, played: PlayedTasks, extra: Any
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ann.images.generate(model="acme/paint", prompt="a tree", extra_body=extra)
    assert refused.value.code == "unknown_parameter"
    assert played.asked == []


async def test_an_edit_again_under_its_key(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks
) -> None:
    answers = [
        await ann.images.with_raw_response.edit(
            model="acme/paint",
            prompt="more",
            image=png(1),
            extra_headers={"Idempotency-Key": "k"},  # each time in a form with a new boundary
        )
        for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    assert len(played.asked) == 1
    assert await shop.charged() == [("completed", NANO_PER_PICTURE)]


async def test_what_the_provider_says_of_the_request_reaches_the_caller(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks
) -> None:
    played.status = 400
    with pytest.raises(openai.BadRequestError, match="played"):
        await ann.images.generate(model="acme/paint", prompt="a tree")
    assert await shop.charged() == [("failed", 0)]
