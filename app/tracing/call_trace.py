"""The spans of one call: its own, and below it one for each step.

Imports OpenTelemetry, so it is imported only where traces are switched on (``app.tracing.tracer``).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from app.tracing.attributes import ERROR_TYPE, FIRST_CHUNK_S, HTTP_STATUS, allowed

BEGINS = "first token"
ACCEPTED = "accepted"
_NOBODYS = Context()
_CLIENT_ERRORS = range(400, 500)


class Attempt:
    """One attempt's span. ``accepted_ns``: when its provider took the work."""

    __slots__ = ("accepted_ns", "began_ns", "context", "span")

    def __init__(self, span: Span, began_ns: int) -> None:
        self.span = span
        self.began_ns = began_ns
        self.accepted_ns: int | None = None
        self.context = set_span_in_context(span)


class CallTrace:
    """See the module. A call that is not recorded has one too, which does nothing but name it.

    The call's own span ends with the later of its two parts: the request, and the call's task,
    which goes on to settle when a client has left.
    """

    def __init__(self, tracer: Tracer, span: Span, anchor_ns: int) -> None:
        """``anchor_ns`` is what added to the monotonic clock makes the time of day, within this
        call: a clock that is set does not make a step take an hour."""
        found = span.get_span_context()
        self.trace_id = f"{found.trace_id:032x}"
        self.recorded = span.is_recording()
        self._anchor_ns = anchor_ns
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span) if self.recorded else _NOBODYS
        self._open: dict[object, Attempt] = {}
        self._error = ""
        self._parts = 1

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A part of the work; one that raises has failed, by the error's ``code`` if it has one."""
        if not self.recorded:
            yield
            return
        span = self._child(name, self._context, self._now_ns())
        failure = ""
        try:
            yield
        except BaseException as error:
            code = getattr(error, "code", None)
            failure = code if isinstance(code, str) and code else type(error).__name__
            raise
        finally:
            _end(span, failure, self._now_ns())

    def begin_attempt(self, at: object, name: str, attributes: Mapping[str, object]) -> None:
        """An attempt at the offer ``at``; nothing happens where one is under way."""
        if not self.recorded or at in self._open:
            return
        now_ns = self._now_ns()
        span = self._tracer.start_span(
            name, self._context, SpanKind.CLIENT, allowed(attributes), start_time=now_ns
        )
        self._open[at] = Attempt(span, now_ns)

    def accepted(self, at: object) -> None:
        """The provider of the attempt took the work."""
        attempt = self._open.get(at)
        if attempt is not None and attempt.accepted_ns is None:
            attempt.accepted_ns = self._now_ns()

    def end_attempt(
        self,
        at: object,
        failure: str,
        attributes: Mapping[str, object],
        *,
        first_token_ns: int | None = None,
        queued: bool = False,
    ) -> None:
        """It is over, and failed by ``failure``, if that is not empty. ``first_token_ns`` is by the
        monotonic clock. ``queued``: the time before it was accepted was spent in a queue of ours,
        which gets a span, and so does the rest."""
        attempt = self._open.pop(at, None)
        if attempt is None:
            return
        span, now_ns = attempt.span, self._now_ns()
        first_ns = -1 if first_token_ns is None else self._anchor_ns + first_token_ns
        if attempt.began_ns <= first_ns <= now_ns:
            span.add_event(BEGINS, timestamp=first_ns)
            span.set_attribute(FIRST_CHUNK_S, (first_ns - attempt.began_ns) / 1e9)
        if queued:
            self._queued(attempt, failure, now_ns)
        elif attempt.accepted_ns is not None:
            span.add_event(ACCEPTED, timestamp=attempt.accepted_ns)
        span.set_attributes(allowed(attributes))
        _end(span, failure, now_ns)

    def begin_task(self) -> None:
        """The call has a task of its own now, which goes on without the request."""
        self._parts += 1

    def end_task(self, failure: str, attributes: Mapping[str, object]) -> None:
        """The call is settled, or will never be. Attempts that were broken off end here."""
        for at in list(self._open):
            self.end_attempt(at, failure or "cancelled", {})
        self._error = failure or self._error
        self._end_part(attributes)

    def end_request(self, failure: str, attributes: Mapping[str, object]) -> None:
        """The request is answered, or nobody waits for an answer any more."""
        self._error = self._error or failure
        self._end_part(attributes)

    def _end_part(self, attributes: Mapping[str, object]) -> None:
        self._parts -= 1
        if not self.recorded:
            return
        self._span.set_attributes(allowed(attributes))
        if self._parts:
            return
        status = getattr(self._span, "attributes", {}).get(HTTP_STATUS)
        # The conventions: what the client did wrong is no error of the server's span.
        is_clients = status in _CLIENT_ERRORS
        _end(self._span, self._error, self._now_ns(), is_error=not is_clients)

    def _queued(self, attempt: Attempt, failure: str, now_ns: int) -> None:
        accepted_ns = attempt.accepted_ns
        waiting = self._child("queue", attempt.context, attempt.began_ns)
        if accepted_ns is None:
            _end(waiting, failure, now_ns)
            return
        _end(waiting, "", accepted_ns)
        _end(self._child("generate", attempt.context, accepted_ns), failure, now_ns)

    def _now_ns(self) -> int:
        return self._anchor_ns + time.monotonic_ns()

    def _child(self, name: str, context: Context, began_ns: int) -> Span:
        return self._tracer.start_span(name, context, start_time=began_ns)


def _end(span: Span, failure: str, at_ns: int, *, is_error: bool = True) -> None:
    if failure:
        span.set_attributes(allowed({ERROR_TYPE: failure}))
        if is_error:
            span.set_status(Status(StatusCode.ERROR, failure[:64]))
    span.end(at_ns)
