"""What ``/metrics`` says about the process: its version, memory, threads, event loop and log."""

import asyncio
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.api.families import counter, gauge, gauges, histogram
from app.api.loop_watch import LoopWatch
from app.histogram import Histogram
from app.version import VERSION

LOOK_EVERY_S = 1.0
LAG_BUCKETS_MS = (1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000)
_THREADS = Path("/proc/self/task")


class LoopLag:
    """How late the event loop comes to what is due: once a second a timer is looked at.

    What holds the loop up holds up every call. Once a second costs nothing that can be measured.
    """

    def __init__(self) -> None:
        self.histogram = Histogram(LAG_BUCKETS_MS)
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look; from within the loop."""
        self._due_ns = time.monotonic_ns() + int(LOOK_EVERY_S * 1e9)
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def stop(self) -> None:
        """End it."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.histogram.add(max(0, time.monotonic_ns() - self._due_ns) // 1_000_000)
        self.start()


class ProcessMetrics(Collector):
    """Read when asked. The ``process_`` figures are Prometheus' usual ones, where the system has
    them."""

    def __init__(self, lag: LoopLag, loop_watch: LoopWatch, lines_lost: Callable[[], int]) -> None:
        self._lag = lag
        self._loop_watch = loop_watch
        self._lines_lost = lines_lost
        self._process = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield from self._process.collect()
        yield gauges(
            "build_info",
            "1, with the version that runs.",
            ["version", "python"],
            [((VERSION, platform.python_version()), 1)],
        )
        yield gauge("threads", "Threads of the process.", _threads())
        yield gauge("tasks", "Tasks of the event loop.", _tasks())
        yield histogram(
            "event_loop_lag_seconds",
            "How late the event loop came to a timer, looked at once a second.",
            [],
            [((), self._lag.histogram)],
            per_second=1000,
        )
        yield counter(
            "event_loop_stalls",
            "How often the event loop was held up for a second or longer.",
            [],
            [((), self._loop_watch.stalls)],
        )
        yield counter(
            "log_lines_lost",
            "Lines that could not be written to the log file.",
            [],
            [((), self._lines_lost())],
        )


def _threads() -> int:
    """All of them where the system tells, else those of Python."""
    try:
        return len(os.listdir(_THREADS))
    except OSError:
        return threading.active_count()


def _tasks() -> int:
    """As many as the loop that scrapes has; 0 outside of one."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0
