"""What a provider does wrong, for every task: each is a failure that the gateway can judge."""

import asyncio
from typing import Any

import pytest

from plugins.contract import AdapterError, FailureKind, InferenceCall, Produced, Started
from plugins.http.client import Client
from plugins.openai_compatible.tasks.perform import perform
from plugins.tasks import (
    EmbeddingRequest,
    ImageRequest,
    Media,
    SpeechRequest,
    TaskRequest,
    TranscriptionRequest,
    VideoRequest,
)
from tests.plugins.openai_compatible_tasks.conftest import KEY, Carry, Fetched, call_of
from tests.upstreams.tasks import PlayedTasks, wav

REQUESTS: list[TaskRequest] = [
    EmbeddingRequest(model="a/b", input="one"),
    ImageRequest(model="a/b", prompt="a tree"),
    SpeechRequest(model="a/b", input="say"),
    TranscriptionRequest(model="a/b", file=Media(data=wav(), media_type="audio/wav")),
    VideoRequest(model="a/b", prompt="a film"),
]
every_task = pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.task)


@every_task
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.BAD_REQUEST),
        (401, FailureKind.AUTH),
        (402, FailureKind.NO_CREDIT),
        (404, FailureKind.NOT_FOUND),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.UPSTREAM),
        (503, FailureKind.OVERLOADED),
        (302, FailureKind.UPSTREAM),
    ],
)
async def test_refusals(
    carry: Carry, played: PlayedTasks, request_: TaskRequest, status: int, kind: FailureKind
) -> None:
    played.status = status
    played.headers = [("Retry-After", "7"), ("Location", "http://elsewhere.example/")]
    with pytest.raises(AdapterError) as failed:
        await carry(request_)
    assert failed.value.kind is kind
    assert failed.value.status == status
    assert failed.value.retry_after_s == (7 if status in (429, 503) else None)
    assert len(played.asked) == 1  # nothing is tried again here


@every_task
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff\xfe\x00garbage", "application/json"),
        (b'{"data": [', "application/json"),
        (b"<html>busy</html>", "text/html"),
        (b"", "application/json"),
        (b"[" * 20_000, "application/json"),
    ],
)
async def test_garbage(
    carry: Carry, played: PlayedTasks, request_: TaskRequest, body: bytes, content_type: str
) -> None:
    played.body, played.kind = body, content_type
    with pytest.raises(AdapterError) as failed:
        await carry(request_)
    assert failed.value.kind is FailureKind.PROTOCOL


@every_task
async def test_an_encoded_answer(carry: Carry, played: PlayedTasks, request_: TaskRequest) -> None:
    played.headers = [("Content-Encoding", "gzip")]
    played.body = b"\x1f\x8b"
    with pytest.raises(AdapterError) as failed:
        await carry(request_)
    assert failed.value.kind is FailureKind.PROTOCOL


@every_task
async def test_a_provider_that_says_nothing(
    carry: Carry, played: PlayedTasks, request_: TaskRequest
) -> None:
    played.hang = True
    with pytest.raises(AdapterError) as failed:
        await carry(request_, of={"first_event_s": 0.2, "deadline_s": 0.2})
    assert failed.value.kind is FailureKind.TIMEOUT


async def test_nobody_listens(carry: Carry, played: PlayedTasks) -> None:
    await played.serving.__aexit__(None, None, None)
    with pytest.raises(AdapterError) as failed:
        await carry(REQUESTS[0])
    assert failed.value.kind is FailureKind.CONNECT


@every_task
async def test_a_call_that_is_closed_leaves_nothing_behind(
    client: Client, played: PlayedTasks, fetch: Fetched, request_: TaskRequest
) -> None:
    played.hang = True
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(anext(perform(client, call_of(request_), fetch=fetch)))
    await played.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await played.left.wait()
    left = {each for each in asyncio.all_tasks() - before if not played.serving.is_ours(each)}
    assert left == set()


async def test_an_id_in_a_header_comes_before_the_answer(events: Any, played: PlayedTasks) -> None:
    played.headers = [("X-Request-Id", "r-17")]
    found = await events(REQUESTS[0], id_header="x-request-id")
    assert found[0] == Started("r-17")
    assert isinstance(found[1], Produced)


async def test_compute_is_reported_where_it_is_billed(carry: Carry, played: PlayedTasks) -> None:
    played.headers = [("X-Compute-Time", "0.25")]
    _, usage = await carry(REQUESTS[0], of={"compute_ns_max": 10**10})
    assert (usage.compute_ns, usage.input_tokens) == (250_000_000, 1)


async def test_keys_are_not_in_what_is_logged(carry: Carry, played: PlayedTasks) -> None:
    played.status, played.body = 500, f"key {KEY} is wrong".encode()
    with pytest.raises(AdapterError) as failed:
        await carry(REQUESTS[0])
    assert KEY not in f"{failed.value.message} {failed.value.detail}"
    assert isinstance(call_of(REQUESTS[0]), InferenceCall)
