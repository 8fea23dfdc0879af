"""Metric families of Prometheus, made from plain counts."""

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from app.histogram import Histogram

Labels = tuple[str, ...]


def counter(
    name: str, about: str, labels: Sequence[str], items: Iterable[tuple[Labels, float]]
) -> Metric:
    """What only grows, by the values of ``labels``."""
    family = CounterMetricFamily(f"turnpike_{name}", about, labels=labels)
    for key, value in list(items):
        family.add_metric(list(key), value)
    return family


def gauge(name: str, about: str, value: float) -> Metric:
    """One number that goes up and down."""
    return GaugeMetricFamily(f"turnpike_{name}", about, value=value)


def gauges(
    name: str, about: str, labels: Sequence[str], items: Iterable[tuple[Labels, float]]
) -> Metric:
    """The same by the values of ``labels``."""
    family = GaugeMetricFamily(f"turnpike_{name}", about, labels=labels)
    for key, value in list(items):
        family.add_metric(list(key), value)
    return family


def histogram(
    name: str,
    about: str,
    labels: Sequence[str],
    items: Iterable[tuple[Labels, Histogram]],
    *,
    per_second: int,
) -> Metric:
    """How values are spread, in seconds; ``per_second`` of the histograms' unit make one."""
    family = HistogramMetricFamily(f"turnpike_{name}", about, labels=labels)
    for key, found in list(items):
        total = 0
        buckets: list[tuple[str, float]] = []
        bounds = [str(bound / per_second) for bound in found.bounds] + ["+Inf"]
        for bound, count in zip(bounds, found.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(list(key), buckets=buckets, sum_value=found.total / per_second)
    return family
