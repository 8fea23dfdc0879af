"""Snapshots, a clock that is moved by hand, and plans over them."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from app.routing.asked import Asked
from app.routing.catalog import Snapshot
from app.routing.health import Health
from app.routing.key_pools import KeyPools, ProviderKey
from app.routing.plan import RoutePlan, Rules, plan
from plugins.contract import Offer, Price

PRICE = Price(input=10**9, output=2 * 10**9)


class HandClock:
    """Stands still until told."""

    suspended = False

    def __init__(self) -> None:
        self.ns = 10**12

    def now_ms(self) -> int:
        return self.ns // 10**6

    def monotonic_ns(self) -> int:
        return self.ns

    def pass_seconds(self, seconds: float) -> None:
        self.ns += int(seconds * 10**9)


def offer(provider: str, model: str = "acme/tiny", **fields: Any) -> Offer:
    return Offer(
        **{"model": model, "provider": provider, "upstream_id": "m", "price": PRICE, **fields}
    )


def snapshot(*offers: Offer, unpriced: Sequence[Offer] = ()) -> Snapshot:
    models: dict[str, tuple[Offer, ...]] = {}
    for each in offers:
        models[each.model] = (*models.get(each.model, ()), each)
    return Snapshot(MappingProxyType(models), 0, tuple(unpriced))


class World:
    """Some offers, and what is known of them."""

    def __init__(self, *offers: Offer, unpriced: Sequence[Offer] = (), **rules: Any) -> None:
        self.clock = HandClock()
        self.health = Health(self.clock)
        self.pools = KeyPools((), self.clock)
        self.snapshot = snapshot(*offers, unpriced=unpriced)
        self.rules = Rules(**{"default_policy": "fastest", **rules})

    def keys(self, *names: str) -> None:
        """Give each provider a key."""
        self.pools.replace(
            ProviderKey(provider=name, name="api_key", secret=f"secret-{name}") for name in names
        )

    def open_circuit(self, provider: str, model: str = "acme/tiny") -> None:
        for _ in range(5):
            self.health.failed((provider, model))

    def speed(self, provider: str, tokens_per_second: float, first_ms: float = 100.0) -> None:
        self.health.measured((provider, "acme/tiny"), first_ms, tokens_per_second)

    def plan(self, *names: str, **asked: Any) -> RoutePlan:
        if "params" in asked:
            given = tuple(asked.pop("params"))
            asked["params"] = lambda: given
        request = Asked(names=names or ("acme/tiny",), **asked)
        return plan(request, self.snapshot, self.health, self.pools, self.rules)

    def plan_over(self, other: Snapshot) -> RoutePlan:
        """The plan for acme/tiny over another snapshot."""
        self.snapshot = other
        return self.plan()

    def order(self, *names: str, **asked: Any) -> list[str]:
        """The providers of the plan; with their models where those differ."""
        offers = self.plan(*names, **asked).offers
        if len({each.model for each in offers}) == 1:
            return [each.provider for each in offers]
        return [f"{each.model}:{each.provider}" for each in offers]

    def reasons(self, *names: str, **asked: Any) -> dict[str, str]:
        """Why each provider is left out."""
        excluded = self.plan(*names, **asked).excluded
        return {each.offer.provider: str(each.reason) for each in excluded}
