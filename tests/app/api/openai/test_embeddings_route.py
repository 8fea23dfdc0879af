"""``/v1/embeddings`` with OpenAI's own client."""

import base64
import struct
from typing import Any

import httpx
import openai
import pytest

from tests.app.api.openai.shop import Shop
from tests.upstreams.tasks import PlayedTasks, vector_of

TEXTS = ["one two", "three"]


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_vectors_in_both_encodings(
    ann: openai.AsyncOpenAI, shop: Shop, encoding: Any
) -> None:
    more = {} if encoding is None else {"encoding_format": encoding}
    found = await ann.embeddings.create(model="acme/embed", input=TEXTS, **more)
    vectors = [each.embedding for each in found.data]
    if encoding == "base64":  # asked for by name, the client hands it on as it came
        vectors = [list(struct.unpack("<4f", base64.b64decode(str(each)))) for each in vectors]
    assert vectors == [vector_of(text) for text in TEXTS]
    assert [each.index for each in found.data] == [0, 1]
    assert (found.object, found.model) == ("list", "acme/embed")
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (3, 3)
    assert await shop.charged() == [("completed", 3000)]


@pytest.mark.parametrize("given", ["one", [1, 2, 3], [[1, 2], [3]]])
async def test_texts_and_tokens(ann: openai.AsyncOpenAI, given: Any) -> None:
    found = await ann.embeddings.create(model="acme/embed", input=given, dimensions=16)
    assert len(found.data) == (2 if given == [[1, 2], [3]] else 1)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (["one", 2], "input"),
        ([1, [2]], "input"),
        ([[]], "input[0]"),
        ([], "input"),
        ("", "input"),
        (["one", ""], "input[1]"),
        ([True], "input[0]"),
        ([1.5], "input[0]"),
        (None, "input"),
    ],
)
async def test_input_that_is_neither_texts_nor_tokens(
    ann: openai.AsyncOpenAI, played: PlayedTasks, given: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ann.embeddings.create(model="acme/embed", input=given)
    assert refused.value.param == param
    assert played.asked == []


async def test_who_answered_is_in_a_header(ann: openai.AsyncOpenAI) -> None:
    raw = await ann.embeddings.with_raw_response.create(model="acme/embed", input="one")
    assert raw.headers["x-inference-provider"] == "played"
    assert raw.headers["inference-id"]


async def test_a_model_of_another_task(ann: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await ann.embeddings.create(model="acme/paint", input="one")
    assert refused.value.status_code in (400, 404)


async def test_a_repeat_gets_the_same_answer(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks
) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first, second = [
        await ann.embeddings.with_raw_response.create(
            model="acme/embed", input="one", extra_headers=headers
        )
        for _ in range(2)
    ]
    assert second.headers["idempotency-replayed"] == "true"
    assert first.content == second.content
    assert len(played.asked) == 1
    with pytest.raises(openai.UnprocessableEntityError):
        await ann.embeddings.create(model="acme/embed", input="two", extra_headers=headers)
    assert await shop.charged() == [("completed", 1000)]


async def test_a_failing_provider_charges_nothing(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks
) -> None:
    played.spoil = lambda answer: {**answer, "data": []}
    with pytest.raises(openai.InternalServerError) as failed:
        await ann.embeddings.create(model="acme/embed", input="one")
    assert failed.value.status_code == 502
    assert await shop.charged() == [("failed", 0)]


async def test_explained(ann: openai.AsyncOpenAI) -> None:
    found = await ann.embeddings.create(
        model="acme/embed", input="one", extra_headers={"X-Turnpike-Explain": "1"}
    )
    told: Any = found.model_extra
    assert told["openrouter_metadata"]["attempts"][0]["provider"] == "played"


async def test_unknown_parameters_and_no_key(ann: openai.AsyncOpenAI, shop: Shop) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ann.embeddings.create(model="acme/embed", input="one", extra_body={"colour": 1})
    assert (refused.value.param, refused.value.code) == ("colour", "unknown_parameter")
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{shop.base_url}/v1/embeddings", json={})
    assert answer.status_code == 401
