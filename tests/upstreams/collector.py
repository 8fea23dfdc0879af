"""A real HTTP server on loopback that is a collector of OpenTelemetry traces, faults included.

It takes OTLP over HTTP in protobuf's form, as collectors do, and keeps every span that it was sent.
``faults`` are what it does with the next requests instead, one each, ``always`` with all after
them::

    async with PlayedCollector() as collector:
        collector.faults.append("unavailable")
        ... serve with `endpoint = collector.endpoint` ...
        (call,) = await collector.calls(1)
        assert [span.name for span in call.children] == ["authenticate", "hold", "chat m", "settle"]
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Written
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.upstreams.serving import Asked, Reply, Serving

SERVER, CLIENT, INTERNAL = "SERVER", "CLIENT", "INTERNAL"
_KINDS = {
    Written.SPAN_KIND_SERVER: SERVER,
    Written.SPAN_KIND_CLIENT: CLIENT,
    Written.SPAN_KIND_INTERNAL: INTERNAL,
}
PATH = "/v1/traces"


@dataclass
class Seen:
    """One span as it came. ``error`` is its status' description, None where that is no error."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: dict[str, int]
    error: str | None
    resource: dict[str, Any]
    children: list["Seen"] = field(default_factory=list)

    def child(self, name: str) -> "Seen":
        """The only one of that name."""
        (found,) = (each for each in self.children if each.name == name)
        return found


def read(body: bytes) -> list[Seen]:
    """The spans of a request. Raises where it is not one."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _seen(span, _plain(of.resource.attributes))
        for of in request.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]


def _seen(span: Written, resource: dict[str, Any]) -> Seen:
    return Seen(
        name=span.name,
        kind=_KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        state=span.trace_state,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_plain(span.attributes),
        events={event.name: event.time_unix_nano for event in span.events},
        error=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
        resource=resource,
    )


def _plain(given: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    each: KeyValue
    for each in given:
        assert each.key not in found
        found[each.key] = getattr(each.value, each.value.WhichOneof("value") or "string_value")
    return found


class PlayedCollector:
    """See the module."""

    def __init__(self, always: str = "normal") -> None:
        self.spans: list[Seen] = []
        self.bodies: list[bytes] = []
        self.faults: deque[str] = deque()
        self.always = always
        self.serving = Serving(self._play)

    @property
    def endpoint(self) -> str:
        """What goes into ``tracing.endpoint``."""
        return self.serving.origin

    async def __aenter__(self) -> "PlayedCollector":
        await self.serving.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.serving.__aexit__(kind, error, trace)

    async def calls(self, count: int, seconds: float = 20.0) -> list[Seen]:
        """The spans of requests with all that is below each, in the order in which they began, once
        so many have come."""
        await self.until(lambda: len(self._roots()) >= count, seconds)
        roots = self._roots()
        assert len(roots) == count, [each.name for each in roots]
        for span in self.spans:
            below = (each for each in self.spans if each.parent_id == span.span_id)
            span.children = sorted(below, key=lambda each: (each.start_ns, each.end_ns))
        return sorted(roots, key=lambda each: each.start_ns)

    async def until(self, true: Callable[[], bool], seconds: float = 20.0) -> None:
        """Until something can be seen; TimeoutError where it never can."""
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110  # what was sent has no event
                await asyncio.sleep(0.02)

    def _roots(self) -> list[Seen]:
        return [each for each in self.spans if each.kind == SERVER]

    async def _play(self, asked: Asked, reply: Reply) -> None:
        assert (asked.method, asked.path) == ("POST", PATH), asked.target
        assert asked.headers["content-type"] == "application/x-protobuf"
        fault = self.faults.popleft() if self.faults else self.always
        if fault != "normal":
            await _fault(fault, reply)
            return
        self.bodies.append(asked.body)
        self.spans += read(asked.body)
        await reply.answer(200, b"", kind="application/x-protobuf")


_SECRET = b"SECRET-OF-COLLECTOR"
_REFUSALS: dict[str, tuple[int, bytes, list[tuple[str, str]]]] = {
    "unavailable": (503, b"not now", [("Retry-After", "1")]),
    "error": (500, _SECRET, []),
    "refused": (401, _SECRET, []),
    "redirect": (307, b"", [("Location", "/elsewhere")]),
    "garbage": (200, b"\xff\xfe" * 100, []),
}


async def _fault(fault: str, reply: Reply) -> None:
    """What collectors do that are down, slow or hostile."""
    if fault in _REFUSALS:
        await reply.answer(*_REFUSALS[fault])
    elif fault == "partly":
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 2
        answer.partial_success.error_message = _SECRET.decode()
        await reply.answer(200, answer.SerializeToString(), kind="application/x-protobuf")
    elif fault == "no_http":
        reply.writer.write(_SECRET + b"\r\n\r\n")
        await reply.close()
    elif fault == "hang":
        await reply.hang()
    elif fault == "reset":
        await reply.reset()
    else:
        await _go_on_for_ever(fault, reply)


async def _go_on_for_ever(fault: str, reply: Reply) -> None:
    if fault == "drip_head":
        reply.writer.write(b"HTTP/1.1 200 OK\r\nx: ")
    else:
        await reply.begin(200)
    while True:
        if fault == "drip_head":
            reply.writer.write(b".")
        else:
            await reply.send({"drip": b".", "endless": b"." * 65_536}[fault])
        await asyncio.sleep(0 if fault == "endless" else 0.05)
