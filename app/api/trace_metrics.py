"""What ``/metrics`` says of traces; zeros where they are switched off."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.api.families import counter, gauge
from app.tracing.delivery import RESULTS

if TYPE_CHECKING:
    from app.tracing.tracer import Tracing


class TraceMetrics(Collector):
    """Read when asked; so that it costs nothing else."""

    def __init__(self, tracing: "Tracing | None") -> None:
        self._delivery = None if tracing is None else tracing.delivery

    def collect(self) -> Iterator[Metric]:
        """The families."""
        delivery = self._delivery
        results = dict.fromkeys(RESULTS, 0) if delivery is None else delivery.results
        yield counter(
            "trace_spans",
            "Spans by what became of them.",
            ["result"],
            [((result,), count) for result, count in results.items()],
        )
        waiting = 0 if delivery is None else delivery.waiting
        yield gauge("trace_spans_waiting", "Spans to be sent yet.", waiting)
