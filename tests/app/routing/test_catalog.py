"""The catalog: what is offered, at the price in force, and when it is made anew."""

import tomllib
from collections.abc import AsyncIterator

from app.billing.prices import PriceBook
from app.config import parse
from app.routing.catalog import Catalog
from plugins.contract import Adapter, Event, InferenceCall, Offer, Price
from tests.app.routing.world import World

TEXT = """
[[providers]]
id = "mock"
plugin = "echo"
[[providers.models]]
id = "acme/tiny"
price = { input = "0.20", output = "0.60" }
[[providers.models.prices]]
from = "1970-01-02"
input = "0.10"
output = "0.30"
[[providers.models]]
id = "acme/later"
[[providers.models.prices]]
from = "1970-01-03"
input = "1"
output = "1"
"""
DAY = 86_400_000


class Fixed:
    """An adapter with fixed offers; it counts how often it is asked."""

    def __init__(self, *models: str) -> None:
        self.asked = 0
        self._models = models

    def offers(self) -> list[Offer]:
        self.asked += 1
        return [
            Offer(model=model, provider="mock", upstream_id="m", price=Price(input=7))
            for model in self._models
        ]

    async def start(self) -> None:
        """Nothing."""

    def infer(self, call: InferenceCall) -> AsyncIterator[Event]:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing."""


def made(adapter: Adapter, now_ms: int = 0) -> Catalog:
    book = PriceBook(parse(tomllib.loads(TEXT), source="test"))
    return Catalog({"mock": adapter}, now_ms, book)


def prices(catalog: Catalog, now_ms: int) -> dict[str, int]:
    models = catalog.snapshot_at(now_ms).models
    return {name: offers[0].price.input for name, offers in models.items()}


def test_offers_have_the_price_in_force() -> None:
    catalog = made(Fixed("acme/tiny", "acme/later", "acme/unknown"))
    assert prices(catalog, 0) == {"acme/tiny": 200_000_000, "acme/unknown": 7}
    assert prices(catalog, DAY) == {"acme/tiny": 100_000_000, "acme/unknown": 7}
    assert prices(catalog, 2 * DAY) == {
        "acme/tiny": 100_000_000,
        "acme/later": 10**9,
        "acme/unknown": 7,
    }


def test_the_snapshot_is_made_anew_only_when_a_date_has_come() -> None:
    adapter = Fixed("acme/tiny")
    catalog = made(adapter)
    first = catalog.snapshot
    assert all(catalog.snapshot_at(ms) is first for ms in (0, 1, DAY - 1))
    assert adapter.asked == 1
    assert catalog.snapshot_at(DAY) is not first
    assert catalog.snapshot_at(DAY) is catalog.snapshot
    assert catalog.snapshot_at(10**15) is catalog.snapshot_at(10**15)
    assert adapter.asked == 3


def test_a_clock_that_steps_back_gets_the_older_price_again() -> None:
    catalog = made(Fixed("acme/tiny"), DAY)
    assert prices(catalog, DAY)["acme/tiny"] == 100_000_000
    assert prices(catalog, DAY - 1)["acme/tiny"] == 200_000_000


def test_a_call_keeps_the_offer_that_it_was_planned_with() -> None:
    catalog = made(Fixed("acme/tiny"))
    route = World().plan_over(catalog.snapshot_at(DAY - 1))
    later = catalog.snapshot_at(DAY)
    assert route.offers[0].price.input == 200_000_000
    assert later.models["acme/tiny"][0].price.input == 100_000_000


def test_what_has_no_price_is_set_aside() -> None:
    catalog = made(Fixed("acme/tiny", "acme/later"))
    assert [offer.model for offer in catalog.snapshot.unpriced] == ["acme/later"]
    assert "acme/later" not in catalog.snapshot.models
    assert catalog.snapshot_at(2 * DAY).unpriced == ()


def test_without_a_price_book_adapters_set_the_price() -> None:
    catalog = Catalog({"mock": Fixed("acme/tiny")}, 5_000)
    assert prices(catalog, 10**15) == {"acme/tiny": 7}
    assert catalog.snapshot.built_at_s == 5
    assert [offer.model for offer in catalog.offers()] == ["acme/tiny"]
