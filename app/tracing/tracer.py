"""OpenTelemetry's part of it: who makes the spans, which calls get some, and how they are written.

With ``app.tracing.call_trace`` the only place that imports OpenTelemetry, a tenth of a second of
start-up: ``app.parts`` imports it where a collector is configured. Of the libraries' settings in
the environment none is read: the configuration file has them.
"""

import logging
import random
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes

from app.tracing.attributes import allowed
from app.tracing.call_trace import CallTrace
from app.tracing.caller import CallersTrace, callers_trace
from app.tracing.delivery import Delivery
from app.tracing.settings import Settings
from app.version import VERSION

# What they say may repeat what a caller or a collector sent.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

_NOBODYS = Context()
_ATTRIBUTES_MAX = 64
_EVENTS_MAX = 16


class Tracing:
    """Begins traces, and delivers their spans. One for a process."""

    def __init__(self, settings: Settings) -> None:
        self.delivery = Delivery(settings, _Otlp())
        provider = TracerProvider(
            sampler=sampler_of(settings),
            resource=Resource(
                {
                    "service.name": settings.service_name,
                    "service.version": VERSION,
                    "service.instance.id": str(uuid.uuid4()),
                    "telemetry.sdk.language": "python",
                    "telemetry.sdk.name": "opentelemetry",
                }
            ),
            shutdown_on_exit=False,
            span_limits=SpanLimits(
                max_attributes=_ATTRIBUTES_MAX,
                max_events=_EVENTS_MAX,
                max_links=0,
                max_event_attributes=_ATTRIBUTES_MAX,
                max_link_attributes=0,
                max_attribute_length=1024,
                max_span_attribute_length=1024,
            ),
        )
        provider.add_span_processor(_Handing(self.delivery))
        self._tracer = provider.get_tracer("turnpike", VERSION)

    def begin(
        self, name: str, headers: Iterable[tuple[bytes, bytes]], attributes: Mapping[str, object]
    ) -> CallTrace:
        """A request's trace, which its caller's headers may put into one of theirs."""
        caller = callers_trace(headers)
        anchor_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            name,
            _NOBODYS if caller is None else _context_of(caller),
            SpanKind.SERVER,
            start_time=anchor_ns + time.monotonic_ns(),
        )
        if span.is_recording():
            span.set_attributes(allowed(attributes))
        return CallTrace(self._tracer, span, anchor_ns)


class _Handing(SpanProcessor):
    """Hands on what has ended; what is not sampled has no spans here."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def on_end(self, span: ReadableSpan) -> None:
        self._delivery.put(span)


class _Otlp:
    """``app.tracing.delivery.Codec``: OTLP's protobuf messages."""

    def encode(self, spans: Sequence[Any]) -> bytes:
        written: bytes = encode_spans(spans).SerializeToString()
        return written

    def rejected(self, body: bytes) -> int:
        try:
            answer = ExportTraceServiceResponse.FromString(body)
        except Exception:  # noqa: BLE001  # whatever it was: it was no report of a loss
            return 0
        return max(0, int(answer.partial_success.rejected_spans))


def sampler_of(settings: Settings) -> Sampler:
    """Which calls are recorded: without a caller's trace, a share of them by their trace ids.

    With one, no call that the caller does not record itself. Of those that it does record, all
    where callers are trusted; else the share, by dice of ours, since its ids are the caller's
    choice.
    """
    share = TraceIdRatioBased(settings.sample_ratio)
    recorded = ALWAYS_ON if settings.trust_callers else _Dice(settings.sample_ratio)
    return ParentBased(share, remote_parent_sampled=recorded)


class _Dice(Sampler):
    def __init__(self, ratio: float) -> None:
        self._ratio = ratio

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if random.random() < self._ratio:  # noqa: S311
            return ALWAYS_ON.should_sample(parent_context, trace_id, name, kind, attributes)
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return f"Dice{{{self._ratio}}}"


def _context_of(caller: CallersTrace) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if caller.sampled else TraceFlags.DEFAULT)
    parent = SpanContext(
        caller.trace_id, caller.span_id, True, flags, TraceState(list(caller.state))
    )
    return set_span_in_context(NonRecordingSpan(parent), _NOBODYS)
