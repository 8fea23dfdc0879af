"""Embeddings at an OpenAI-compatible provider: what is sent, what is read, what is refused."""

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.contract import AdapterError, FailureKind
from plugins.openai_compatible.tasks.dialects import MISTRAL, OPENAI, TOGETHER
from plugins.openai_compatible.tasks.replies import read_embeddings
from plugins.tasks import EmbeddingRequest, Embeddings
from tests.plugins.openai_compatible_tasks.conftest import KEY, Carry
from tests.upstreams.tasks import PlayedTasks, vector_of

TEXTS = ["one two", "three", "four five six"]


def request(**fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest(**{"model": "acme/embed", "input": list(TEXTS), **fields})


@pytest.mark.parametrize("dialect", [OPENAI, TOGETHER], ids=["base64", "float"])
async def test_vectors_come_in_the_order_of_their_texts(
    carry: Carry, played: PlayedTasks, dialect: Any
) -> None:
    output, usage = await carry(request(), dialect=dialect)
    assert isinstance(output, Embeddings)
    assert output.vectors == [vector_of(text) for text in TEXTS]
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (6, 0, False)
    (asked,) = played.asked
    assert asked.target == "/v1/embeddings"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.json()["model"] == "m"
    assert ("encoding_format" in asked.json()) is (dialect is OPENAI)


@pytest.mark.parametrize(("given_input", "count"), [("one", 1), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
async def test_texts_and_tokens(carry: Carry, given_input: Any, count: int) -> None:
    output, _ = await carry(request(input=given_input))
    assert isinstance(output, Embeddings)
    assert len(output.vectors) == count


async def test_parameters_have_the_providers_names_and_routing_is_not_sent(
    carry: Carry, played: PlayedTasks
) -> None:
    await carry(
        request(dimensions=256, encoding_format="base64", models=["b"], user="u"), dialect=MISTRAL
    )
    assert played.asked[0].json() == {
        "model": "m",
        "input": TEXTS,
        "output_dimension": 256,
        "user": "u",
    }


async def test_without_usage_tokens_are_estimated(carry: Carry, played: PlayedTasks) -> None:
    played.spoil = lambda answer: {**answer, "usage": {"prompt_tokens": -3}}
    _, usage = await carry(request(input="x" * 40))
    assert (usage.input_tokens, usage.estimated) == (10, True)
    _, usage = await carry(request(input=[[1, 2], [3]]))
    assert (usage.input_tokens, usage.estimated) == (3, True)


async def test_a_provider_that_says_its_bill(carry: Carry, played: PlayedTasks) -> None:
    played.spoil = lambda answer: {**answer, "usage": {"prompt_tokens": 6, "cost": 1.5e-7}}
    _, usage = await carry(request())
    assert (usage.input_tokens, usage.cost_nano_usd) == (6, 150)


def spoilt(**changes: Any) -> Any:
    """A change of the first vector."""

    def spoil(answer: Any) -> Any:
        answer["data"][0] |= changes
        return answer

    return spoil


def b64(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: {**answer, "data": []},
        lambda answer: {**answer, "data": None},
        lambda answer: {**answer, "data": answer["data"][1:]},
        lambda answer: {**answer, "data": answer["data"] * 2},
        lambda answer: [],
        lambda answer: "fine",
        spoilt(index=1),
        spoilt(index=7),
        spoilt(index=-1),
        spoilt(embedding=[]),
        spoilt(embedding=[0.5]),
        spoilt(embedding=["0.5", "0.5", "0.5", "0.5"]),
        spoilt(embedding=[1e300, 0, 0, 0]),
        spoilt(embedding=[float("nan"), 0, 0, 0]),
        spoilt(embedding=[float("-inf"), 0, 0, 0]),
        spoilt(embedding=b64(float("nan"), 0, 0, 0)),
        spoilt(embedding=b64(float("inf"), 0, 0, 0)),
        spoilt(embedding="????"),
        spoilt(embedding=base64.b64encode(b"12345").decode()),
        spoilt(embedding=""),
    ],
)
async def test_a_reply_that_is_not_one_vector_per_text_is_a_failure(
    carry: Carry, played: PlayedTasks, spoil: Any
) -> None:
    played.spoil = spoil
    with pytest.raises(AdapterError) as failed:
        await carry(request())
    assert failed.value.kind is FailureKind.PROTOCOL
    assert failed.value.message == "the provider's answer cannot be read"


async def test_an_error_with_status_200_is_an_error(carry: Carry, played: PlayedTasks) -> None:
    played.spoil = lambda _: {"error": {"message": f"no more, {KEY}"}}
    with pytest.raises(AdapterError) as failed:
        await carry(request())
    assert failed.value.kind is FailureKind.UPSTREAM
    assert "no more" in failed.value.detail
    assert KEY not in failed.value.detail


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(AdapterError):
        read_embeddings(body, request(), None)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_vectors_survive_base64(vector: list[float]) -> None:
    text = b64(*vector)
    body = b'{"data":[{"embedding":"%b"}]}' % text.encode()
    output, _ = read_embeddings(body, request(input="one"), None)
    assert output.vectors == [vector]
