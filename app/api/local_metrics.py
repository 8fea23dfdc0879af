"""What ``/metrics`` says about the models of this machine."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from app.api.admin.local_wire import LocalModelLine, LocalModels

_STATES = ("absent", "pulling", "cold", "loading", "warm", "draining", "failed")
_LOCAL_GAUGES: dict[str, tuple[str, Callable[[LocalModelLine], float]]] = {
    "memory_bytes": ("Memory that a model holds.", lambda line: line.memory_bytes),
    "calls_running": ("Calls that a model works on.", lambda line: line.calls_running),
    "sequences_running": (
        "Answers that are being generated.",
        lambda line: line.sequences_running,
    ),
    "cache_cells": ("Tokens that a model's cache has room for.", lambda line: line.cells),
    "cache_cells_used": ("Tokens in a model's cache.", lambda line: line.cells_used),
    "kept_tokens": (
        "Tokens of ended calls, kept for prompts that start alike.",
        lambda line: line.kept_tokens,
    ),
    "calls_waiting": (
        "Calls that wait for a model, or for a place with it.",
        lambda line: line.calls_waiting,
    ),
}
_LOCAL_COUNTERS: dict[str, tuple[str, Callable[[LocalModelLine], float]]] = {
    "busy_seconds": ("Time in which a model computed.", lambda line: line.busy_ms / 1000),
    "unbilled_seconds": ("The part of it that nobody pays.", lambda line: line.unbilled_ms / 1000),
    "load_seconds": ("What loading took, for the house.", lambda line: line.load_ms / 1000),
    "loads": ("How often a model was loaded.", lambda line: line.loads),
    "crashes": ("How often a model's engine died.", lambda line: line.crashes),
    "out_of_memory": (
        "How often a model's engine ended because it got no more memory.",
        lambda line: line.out_of_memory,
    ),
    "evictions": ("How often a model had to leave the memory.", lambda line: line.evictions),
}  # fmt: skip


def of_local_models(local: LocalModels) -> Iterator[Metric]:
    """What each model of this machine is, has and did."""
    found = local.every()
    states = GaugeMetricFamily(
        "turnpike_local_state", "1 for the state that a model is in.", labels=["model", "state"]
    )
    for line in found.data:
        for state in _STATES:
            states.add_metric([line.model, state], float(line.state == state))
    yield states
    for name, (about, value) in _LOCAL_GAUGES.items():
        gauge = GaugeMetricFamily(f"turnpike_local_{name}", about, labels=["model"])
        for line in found.data:
            gauge.add_metric([line.model], value(line))
        yield gauge
    for name, (about, value) in _LOCAL_COUNTERS.items():
        counter = CounterMetricFamily(f"turnpike_local_{name}", about, labels=["model"])
        for line in found.data:
            counter.add_metric([line.model], value(line))
        yield counter
    yield GaugeMetricFamily(
        "turnpike_local_memory_bytes_max",
        "Memory that all local models together may hold.",
        value=found.memory_bytes_max,
    )
