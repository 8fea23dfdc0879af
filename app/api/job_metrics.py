"""What ``/metrics`` says about what the server does by itself from time to time."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.api.families import counter, gauges
from app.job_runs import JobRuns


class JobMetrics(Collector):
    """Read when asked."""

    def __init__(self, runs: JobRuns) -> None:
        self._runs = runs

    def collect(self) -> Iterator[Metric]:
        """The families. Prometheus has a label ``job`` of its own."""
        runs = list(self._runs)
        yield gauges(
            "task_late_seconds",
            "How much longer ago than its interval a periodic task last ended well.",
            ["task"],
            [((run.name,), run.late_s) for run in runs],
        )
        yield counter(
            "task_failures",
            "How often a periodic task failed.",
            ["task"],
            [((run.name,), run.failures) for run in runs],
        )
