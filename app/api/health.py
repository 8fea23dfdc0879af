"""``/livez``, ``/healthz``, ``/readyz``, ``/metrics``: for load balancers and Prometheus."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from app.api.admin.local_wire import LocalModels
from app.api.answer import send_answer
from app.api.local_metrics import of_local_models
from app.api.services import Services
from app.gateway.serve import Gateway
from app.identity.principal import Principal
from app.metering.tally import LATENCY_BUCKETS_MS, Histogram, Series

_encode = msgspec.json.Encoder().encode


async def healthz(_scope: HTTPScope, _receive: Receive, send: Send, _principal: Principal) -> None:
    """The process runs and its event loop turns."""
    await send_answer(send, 200, b'{"status":"ok"}')


class Ready:
    """Whether new calls can be served: ``checks`` name what is wrong, or give nothing."""

    def __init__(
        self, checks: Callable[[], dict[str, str]], models: Callable[[], dict[str, str]]
    ) -> None:
        self._checks = checks
        self._models = models

    async def __call__(
        self, _scope: HTTPScope, _receive: Receive, send: Send, _principal: Principal
    ) -> None:
        wrong = self._checks()
        body = {
            "status": "unavailable" if wrong else "ready",
            "problems": wrong,
            "local_models": self._models(),
        }
        await send_answer(send, 503 if wrong else 200, _encode(body))


class Metrics:
    """The counts since start, in Prometheus' text format."""

    def __init__(self, gateway: Gateway, services: Services, local: LocalModels) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(gateway, services, local))

    async def __call__(
        self, _scope: HTTPScope, _receive: Receive, send: Send, _principal: Principal
    ) -> None:
        body = generate_latest(self._registry)
        await send_answer(send, 200, body, content_type=CONTENT_TYPE_LATEST.encode())


class _Collector:
    """Reads the plain counts when asked, so that counting itself stays cheap."""

    def __init__(self, gateway: Gateway, services: Services, local: LocalModels) -> None:
        self._local = local
        self._tally = gateway.tally
        self._in_flight = gateway.in_flight
        self._ledger = services.ledger
        self._health = services.health
        self._pools = services.pools

    def collect(self) -> Iterator[Metric]:
        tally = self._tally
        by_model = ["provider", "model"]
        yield _counter("calls", "Calls that ended.", [*by_model, "outcome"], tally.calls.items())
        yield _counter("tokens", "Tokens by kind.", [*by_model, "kind"], tally.tokens.items())
        yield _counter(
            "cost_nano_usd", "What payers were charged.", by_model, tally.cost_nano_usd.items()
        )
        yield _counter(
            "compute_nanoseconds", "Busy time of own hardware.", by_model, tally.compute_ns.items()
        )
        yield _counter(
            "failed_attempts",
            "Attempts that failed.",
            ["provider", "kind"],
            tally.failed_attempts.items(),
        )
        yield GaugeMetricFamily(
            "turnpike_calls_running", "Calls in flight.", value=self._in_flight.running
        )
        yield GaugeMetricFamily(
            "turnpike_holds_open", "Holds that have not ended.", value=self._ledger.open_holds()
        )
        yield self._circuits()
        yield self._keys()
        yield from of_local_models(self._local)
        yield _histogram("call_seconds", "From request to settled.", tally.latency)
        yield _histogram("first_token_seconds", "From request to first token.", tally.first_token)

    def _circuits(self) -> Metric:
        family = GaugeMetricFamily(
            "turnpike_circuit_open",
            "Offers that failed too often lately; 1 each, none where all is well.",
            labels=["provider", "model"],
        )
        for key in self._health.open_circuits():
            family.add_metric(list(key), 1)
        return family

    def _keys(self) -> Metric:
        family = GaugeMetricFamily(
            "turnpike_provider_keys",
            "The operator's keys at a provider: ready, resting (429) or refused.",
            labels=["provider", "state"],
        )
        for provider in self._pools.providers():
            states = Counter(each.state for each in self._pools.states(provider))
            for state in ("ready", "resting", "refused"):
                family.add_metric([provider, state], states[state])
        return family


def _counter(
    name: str, about: str, labels: list[str], items: Iterable[tuple[tuple[str, ...], int]]
) -> Metric:
    family = CounterMetricFamily(f"turnpike_{name}", about, labels=labels)
    for key, value in list(items):
        family.add_metric(list(key), value)
    return family


def _histogram(name: str, about: str, by: dict[Series, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"turnpike_{name}", about, labels=["provider", "model"])
    for series, histogram in list(by.items()):
        total = 0
        buckets: list[Any] = []
        bounds = [str(ms / 1000) for ms in LATENCY_BUCKETS_MS] + ["+Inf"]
        for bound, count in zip(bounds, histogram.counts, strict=True):
            total += count
            buckets.append([bound, total])
        family.add_metric(list(series), buckets=buckets, sum_value=histogram.total_ms / 1000)
    return family
