"""``/livez``, ``/healthz``, ``/readyz``, ``/metrics``: for load balancers and Prometheus."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from litestar.types import HTTPScope, Receive, Send
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.api.admin.local_wire import LocalModels
from app.api.answer import send_answer
from app.api.disk_metrics import DiskMetrics
from app.api.families import counter, gauge, gauges, histogram
from app.api.job_metrics import JobMetrics
from app.api.local_metrics import of_local_models
from app.api.services import Services
from app.gateway.serve import Gateway
from app.identity.principal import Principal

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
    """The counts since start, in Prometheus' text format. ``answers`` are those of the guard,
    ``more`` collectors say what the appliance's other parts have to say."""

    def __init__(
        self,
        gateway: Gateway,
        services: Services,
        local: LocalModels,
        checks: Callable[[], dict[str, str]],
        answers: Sequence[int],
        more: Iterable[Collector] = (),
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Readiness(checks, answers))
        self._registry.register(_Calls(gateway, services, local))
        own = (DiskMetrics(services.disk, services.backups), JobMetrics(services.job_runs))
        for collector in (*own, *more):
            self._registry.register(collector)

    def collect(self) -> Iterable[Metric]:
        """All families, read now."""
        return self._registry.collect()

    async def __call__(
        self, _scope: HTTPScope, _receive: Receive, send: Send, _principal: Principal
    ) -> None:
        body = generate_latest(self._registry)
        await send_answer(send, 200, body, content_type=CONTENT_TYPE_LATEST.encode())


class _Readiness(Collector):
    """What /readyz says, and how requests were answered."""

    def __init__(self, checks: Callable[[], dict[str, str]], answers: Sequence[int]) -> None:
        self._checks = checks
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        wrong = self._checks()
        yield gauge("ready", "1 while new calls can be served, as /readyz has it.", not wrong)
        yield gauges(
            "problem",
            "1 for each part that keeps new calls from being served; none where all is well.",
            ["part"],
            [((part,), 1) for part in wrong],
        )
        yield counter(
            "http_responses",
            "Answers to requests of every kind, by the class of their status.",
            ["class"],
            [((f"{first}xx",), self._answers[first]) for first in range(2, 6)],
        )


class _Calls(Collector):
    """Reads the plain counts when asked, so that counting itself stays cheap."""

    def __init__(self, gateway: Gateway, services: Services, local: LocalModels) -> None:
        self._local = local
        self._tally = gateway.tally
        self._in_flight = gateway.in_flight
        self._health = services.health
        self._pools = services.pools

    def collect(self) -> Iterator[Metric]:
        tally = self._tally
        by_model = ["provider", "model"]
        yield counter("calls", "Calls that ended.", [*by_model, "outcome"], tally.calls.items())
        yield counter(
            "calls_refused",
            "Requests that were answered with an error, by its status and code.",
            ["status", "code"],
            tally.refused.items(),
        )
        yield counter("tokens", "Tokens by kind.", [*by_model, "kind"], tally.tokens.items())
        yield counter(
            "cost_nano_usd", "What payers were charged.", by_model, tally.cost_nano_usd.items()
        )
        yield counter(
            "compute_nanoseconds", "Busy time of own hardware.", by_model, tally.compute_ns.items()
        )
        yield counter(
            "failed_attempts",
            "Attempts that failed.",
            ["provider", "kind"],
            tally.failed_attempts.items(),
        )
        yield gauge("calls_running", "Calls in flight.", self._in_flight.running)
        yield gauges(
            "circuit_open",
            "Offers that failed too often lately; 1 each, none where all is well.",
            by_model,
            [(key, 1) for key in self._health.open_circuits()],
        )
        yield gauges(
            "provider_keys",
            "The operator's keys at a provider: ready, resting (429) or refused.",
            ["provider", "state"],
            self._keys(),
        )
        yield from of_local_models(self._local)
        for name, about, by in (
            ("call_seconds", "From request to settled.", tally.latency),
            ("first_token_seconds", "From request to first token.", tally.first_token),
        ):
            yield histogram(name, about, by_model, by.items(), per_second=1000)

    def _keys(self) -> Iterator[tuple[tuple[str, str], int]]:
        for provider in self._pools.providers():
            states = Counter(each.state for each in self._pools.states(provider))
            for state in ("ready", "resting", "refused"):
                yield (provider, state), states[state]
