"""A played provider of tasks, and calls of them."""

import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from plugins.contract import (
    AdapterError,
    Event,
    FailureKind,
    InferenceCall,
    Produced,
    Usage,
    UsageReport,
)
from plugins.http.client import Client
from plugins.openai_compatible.tasks.perform import perform
from plugins.tasks import Media, Output, TaskRequest
from tests.upstreams.tasks import PlayedTasks, mp4, png

KEY = "sk-of-the-operator"
HEADERS = (("authorization", f"Bearer {KEY}"),)
_numbers = itertools.count()

Carry = Callable[..., Coroutine[Any, Any, tuple[Output, Usage]]]


def call_of(request: TaskRequest, **fields: Any) -> InferenceCall:
    number = next(_numbers)
    given: dict[str, Any] = {"upstream_id": "m", "first_event_s": 10.0, "deadline_s": 10.0}
    return InferenceCall(
        call_id=f"call-{number}",
        attempt_id=f"attempt-{number}",
        request=request,
        stream=False,
        api_key=KEY,
        **{**given, **fields},
    )


class Fetched:
    """Plays the host's ``fetch``: what it was asked for, and files by how their URLs end."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.refuses = False

    async def __call__(self, url: str) -> Media:
        self.urls.append(url)
        if self.refuses:
            raise AdapterError(FailureKind.BAD_REQUEST, "That address is not public.")
        if url.endswith(".mp4"):
            return Media(data=mp4(3), media_type="video/mp4", url=url)
        if url.endswith(".html"):
            return Media(data=b"<html>", media_type="text/html", url=url)
        return Media(data=png(9), media_type="image/png", url=url)


@pytest.fixture
def fetch() -> Fetched:
    return Fetched()


@pytest.fixture
async def played() -> AsyncIterator[PlayedTasks]:
    async with PlayedTasks() as provider:
        yield provider


@pytest.fixture
async def client(played: PlayedTasks) -> AsyncIterator[Client]:
    client = Client(played.base_url, user_agent="Turnpike/test")
    await client.start()
    yield client
    await client.close()


@pytest.fixture
def events(client: Client, fetch: Fetched) -> Callable[..., Coroutine[Any, Any, list[Event]]]:
    """All events of one call."""

    async def run(request: TaskRequest, *, of: dict[str, Any] | None = None, **more: Any) -> Any:
        call = call_of(request, **(of or {}))
        return [each async for each in perform(client, call, fetch=fetch, headers=HEADERS, **more)]

    return run


@pytest.fixture
def carry(events: Any) -> Carry:
    """One call's output and usage, the order of its events checked."""

    async def run(request: TaskRequest, **more: Any) -> tuple[Output, Usage]:
        found = await events(request, **more)
        assert [type(each).__name__ for each in found] == ["Started", "Produced", "UsageReport"]
        assert isinstance(found[1], Produced)
        assert isinstance(found[2], UsageReport)
        return found[1].output, found[2].usage

    return run
