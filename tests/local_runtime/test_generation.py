"""From an engine's events to the contract's: what came together goes on together."""

from collections.abc import Callable, Sequence
from contextlib import aclosing

import pytest

from local_runtime.engines.contract import (
    Admitted,
    EngineEvent,
    EngineInfo,
    Failed,
    Finished,
    Piece,
    Worked,
)
from local_runtime.generation import Generation
from local_runtime.placement.frames import Stepped, Submit, ToEngine
from local_runtime.placement.reports import ReportedHost
from plugins.contract import (
    AdapterError,
    Chunk,
    Event,
    FailureKind,
    InferenceCall,
    Started,
    Usage,
    UsageReport,
)
from tests.local_runtime.calls import order


class Told(ReportedHost):
    """A host whose engine answers the one request with the reports that it was made with."""

    def __init__(self, *reports: Sequence[EngineEvent]) -> None:
        super().__init__(self._hear)
        self.heard: list[ToEngine] = []
        self._reports = reports

    async def start(self, progress: Callable[[float], None]) -> EngineInfo:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def _hear(self, message: ToEngine) -> None:
        self.heard.append(message)
        if isinstance(message, Submit):
            for report in self._reports:
                self._take(Stepped(list(report), 5, 2))

    def lose(self, reason: str) -> None:
        self._streams.end(reason)


def piece(call: InferenceCall, text: str, index: int = 0, reason: str | None = None) -> Piece:
    return Piece(call.attempt_id, Usage(), index=index, text=text, finish_reason=reason)


async def events_of(host: Told, call: InferenceCall) -> list[Event]:
    async with aclosing(Generation(call, host, 10**9).events()) as events:
        return [event async for event in events]


def texts(chunk: Event) -> list[tuple[int, object]]:
    assert isinstance(chunk, Chunk)
    return [(each.index, each.delta.content) for each in chunk.choices]


async def test_pieces_that_come_together_are_one_chunk_with_a_delta_each() -> None:
    call = order(stream=True, n=2)
    usage = Usage(output_tokens=5)
    host = Told(
        [Admitted(call.attempt_id, Usage()), piece(call, "a"), piece(call, "x", 1)],
        [Worked(call.attempt_id, Usage()), piece(call, "b"), piece(call, "")],
        [piece(call, "c", 0, "stop"), piece(call, "y", 1, "stop")],
        [Finished(call.attempt_id, usage)],
    )
    started, first, second, end = await events_of(host, call)
    assert started == Started(upstream_id=call.attempt_id)
    # The second report has its ``Worked`` between, which says nothing and yet parts the two.
    assert texts(first) == [(0, "a"), (1, "x")]
    assert texts(second) == [(0, "b"), (0, "c"), (1, "y")]
    assert end == UsageReport(usage)
    assert host.stats.busy_ns == 5 and host.stats.unbilled_ns == 2
    assert [type(each) for each in host.heard] == [Submit]  # over, so not cancelled


async def test_what_came_before_a_failure_goes_on_before_it() -> None:
    call = order(stream=True)
    used = Usage(output_tokens=1)
    broken = Failed(call.attempt_id, used, FailureKind.UPSTREAM, "It broke.")
    host = Told([piece(call, "a"), broken])
    heard: list[Event] = []
    with pytest.raises(AdapterError, match="It broke") as failure:
        async for event in Generation(call, host, 10**9).events():
            heard.append(event)
    assert [texts(event) for event in heard] == [[(0, "a")]]
    assert failure.value.usage == used


async def test_an_answer_that_is_over_stays_over_when_the_engine_dies_next() -> None:
    call = order(stream=True)
    host = Told([piece(call, "a", 0, "stop"), Finished(call.attempt_id, Usage(output_tokens=1))])
    generation = Generation(call, host, 10**9)
    async with aclosing(generation.events()) as events:
        first = await anext(events)
        host.lose("killed")
        assert texts(first) == [(0, "a")]
        assert [event async for event in events] == [UsageReport(Usage(output_tokens=1))]
    assert not host.alive
