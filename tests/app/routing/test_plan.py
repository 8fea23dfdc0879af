"""The plan: who is tried, in which order, and how a refusal is worded."""

from types import MappingProxyType

import pytest

from app.errors import NotFound, UnsupportedParameter
from app.routing.catalog import Snapshot
from app.routing.plan import ATTEMPTS_MAX, plan
from plugins.contract import Offer, Price


def offer(
    provider: str, supported: frozenset[str] | None = None, model: str = "acme/tiny"
) -> Offer:
    return Offer(
        model=model, provider=provider, upstream_id="m", price=Price(), supported_params=supported
    )


def snapshot(*offers: Offer) -> Snapshot:
    models: dict[str, tuple[Offer, ...]] = {}
    for each in offers:
        models[each.model] = (*models.get(each.model, ()), each)
    return Snapshot(MappingProxyType(models), 0)


def providers(
    name: str, found: Snapshot, params: tuple[str, ...] = (), dead: str = ""
) -> list[str]:
    route = plan(name, lambda: params, found, lambda key: key[0] != dead)
    return [each.provider for each in route.offers]


def test_offers_keep_the_order_of_the_configuration() -> None:
    assert providers("acme/tiny", snapshot(offer("b"), offer("a"))) == ["b", "a"]


def test_an_offer_whose_circuit_is_open_is_tried_last() -> None:
    found = snapshot(offer("a"), offer("b"), offer("c"))
    assert providers("acme/tiny", found, dead="a") == ["b", "c", "a"]


def test_a_provider_suffix_pins_the_offer() -> None:
    found = snapshot(offer("a"), offer("b"))
    assert providers("acme/tiny:b", found) == ["b"]
    with pytest.raises(NotFound, match="served by: a, b"):
        providers("acme/tiny:c", found)


def test_at_most_three_are_tried() -> None:
    found = snapshot(*(offer(name) for name in "abcdef"))
    assert len(providers("acme/tiny", found)) == ATTEMPTS_MAX


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(NotFound) as caught:
        providers("acme/huge", snapshot(offer("a")))
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_offers_that_cannot_honour_a_parameter_are_left_out() -> None:
    found = snapshot(offer("a", frozenset({"seed"})), offer("b", frozenset({"seed", "tools"})))
    assert providers("acme/tiny", found, ("tools",)) == ["b"]
    assert providers("acme/tiny", found, ("seed",)) == ["a", "b"]


def test_a_parameter_that_nobody_honours_is_named() -> None:
    found = snapshot(offer("a", frozenset({"seed"})), offer("b", frozenset({"stop"})))
    with pytest.raises(UnsupportedParameter) as caught:
        providers("acme/tiny", found, ("seed", "tools"))
    assert caught.value.param == "tools"
    with pytest.raises(UnsupportedParameter) as caught:
        providers("acme/tiny", found, ("seed", "stop"))
    assert caught.value.param in {"seed", "stop"}
