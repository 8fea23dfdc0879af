"""The plan: who is tried, in which order, and why others are not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import CallError, NotFound, PermissionDenied, RateLimited, UpstreamFailed
from app.routing.plan import RoutePlan
from plugins.contract import Price
from plugins.preferences import Percentiles, PriceCeiling, ProviderPreferences, SortRule
from tests.app.routing.world import PRICE, World, offer

LOCAL = frozenset({"local"})


def wish(**fields: Any) -> ProviderPreferences:
    return ProviderPreferences(**fields)


def refusal(world: World, *names: str, **asked: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        world.plan(*names, **asked)
    return caught.value


def test_without_measures_offers_keep_the_order_of_the_configuration() -> None:
    assert World(offer("b"), offer("a")).order() == ["b", "a"]


def test_the_default_is_the_highest_measured_throughput_and_it_follows_what_is_measured() -> None:
    world = World(offer("a"), offer("b"), offer("c"))
    world.speed("b", 100)
    world.speed("c", 300)
    assert world.order() == ["c", "b", "a"]
    for _ in range(20):
        world.speed("c", 10)
    assert world.order("acme/tiny:fastest") == ["b", "c", "a"]


def test_cheapest_goes_by_the_price_of_an_output_token() -> None:
    world = World(
        offer("dear", price=Price(input=1, output=9 * 10**9)),
        offer("cheap", price=Price(input=9 * 10**9, output=10**9)),
        offer("gift", price=Price(free=True)),
    )
    world.speed("dear", 1000)
    assert world.order("acme/tiny:cheapest") == ["gift", "cheap", "dear"]


def test_a_price_per_second_is_compared_at_the_measured_speed() -> None:
    per_second = Price(compute_per_second=100_000)  # 100,000 nano-USD
    world = World(offer("hours", price=per_second), offer("tokens", price=Price(output=10**9)))
    world.speed("hours", 50)  # 2,000 nano-USD a token against 1,000
    assert world.order("acme/tiny:cheapest") == ["tokens", "hours"]
    for _ in range(30):
        world.speed("hours", 400)  # 250
    assert world.order("acme/tiny:cheapest") == ["hours", "tokens"]


def test_preferred_is_the_callers_own_order_and_else_the_operators() -> None:
    world = World(offer("a"), offer("b"), offer("c"), preferred=("b",))
    world.speed("a", 1000)
    assert world.order("acme/tiny:preferred", preferred=("c", "b")) == ["c", "b", "a"]
    assert world.order("acme/tiny:preferred") == ["b", "a", "c"]
    assert world.order() == ["a", "b", "c"]


def test_local_keeps_to_this_machine() -> None:
    world = World(offer("far"), offer("local", labels=LOCAL))
    assert world.order("acme/tiny:local") == ["local"]
    assert world.reasons("acme/tiny:local") == {"far": "not_local"}
    found = refusal(World(offer("far")), "acme/tiny:local")
    assert found.availability is not None
    assert found.availability.code == "privacy_restricted"


def test_an_offer_whose_circuit_is_open_is_tried_last() -> None:
    world = World(offer("a"), offer("b"), offer("c"))
    world.speed("a", 1000)
    world.open_circuit("a")
    assert world.order() == ["b", "c", "a"]
    world.clock.pass_seconds(6)  # half-open: worth a try again
    assert world.order() == ["a", "b", "c"]


def test_a_provider_suffix_pins_the_offer() -> None:
    world = World(offer("a"), offer("b"))
    assert world.order("acme/tiny:b") == ["b"]
    assert world.plan("acme/tiny:b").policy == "pinned"
    found = refusal(world, "acme/tiny:c")
    assert isinstance(found, NotFound)
    assert "served by: a, b" in found.message
    assert found.availability is not None
    assert found.availability.fallback_models == ["acme/tiny:a", "acme/tiny:b"]


def test_aliases_stand_for_names_with_their_suffix() -> None:
    world = World(
        offer("a"),
        offer("b"),
        aliases={"gpt": "acme/tiny:b", "loop": "loop", "two": "gpt"},
    )
    assert world.order("gpt") == ["b"]
    assert world.order("two") == ["b"]
    assert world.order("gpt:a") == ["a"]
    assert refusal(world, "loop").status == 404


def test_an_unknown_model_is_named_with_what_is_close() -> None:
    found = refusal(World(offer("a")), "acme/tini")
    assert (found.status, found.param, found.code) == (404, "model", "model_not_found")
    assert found.availability is not None
    assert found.availability.fallback_models == ["acme/tiny"]


def test_unknown_models_cost_little_in_a_large_catalog() -> None:
    world = World(*(offer("a", f"org{n}/model-{n}") for n in range(5000)))
    found = refusal(world, "x/model-77777")
    assert found.availability is not None
    assert len(found.availability.fallback_models) <= 5


def test_fallback_models_have_their_turn_within_three_tries() -> None:
    world = World(*(offer(name) for name in "abcd"), offer("x", "acme/other"))
    names = ("acme/tiny", "acme/other", "acme/unknown")
    assert world.order(*names)[:3] == ["acme/tiny:a", "acme/tiny:b", "acme/other:x"]
    assert world.order("acme/unknown", "acme/other") == ["x"]
    assert refusal(world, "acme/unknown", "acme/unheard").status == 404


def test_a_sort_over_all_models_mixes_them() -> None:
    cheap = Price(output=1)
    world = World(offer("a"), offer("b"), offer("x", "acme/other", price=cheap))
    rule = wish(sort=SortRule(by="price", partition="none"))
    assert world.order("acme/tiny", "acme/other", preferences=rule)[0] == "acme/other:x"
    assert world.order("acme/tiny", "acme/other", preferences=wish(sort="price"))[0] == (
        "acme/tiny:a"
    )


def test_order_only_ignore_and_no_fallbacks() -> None:
    world = World(offer("a"), offer("b"), offer("c"))
    assert world.order(preferences=wish(order=["c", "a"])) == ["c", "a", "b"]
    assert world.order(preferences=wish(order=["c", "a"], allow_fallbacks=False)) == ["c"]
    assert world.order(preferences=wish(only=["b", "z"])) == ["b"]
    assert world.order(preferences=wish(ignore=["a"])) == ["b", "c"]
    assert world.reasons(preferences=wish(only=["b"])) == {"a": "only", "c": "only"}
    found = refusal(world, preferences=wish(only=["z"]))
    assert found.availability is not None
    assert found.availability.constraint is not None
    assert found.availability.constraint.field == "provider.only"
    assert found.availability.affected_providers == ["a", "b", "c"]


def test_sort_in_the_request_wins_over_the_default() -> None:
    world = World(offer("a", price=Price(output=9)), offer("b", price=Price(output=1)))
    world.speed("a", 1000, first_ms=500)
    world.speed("b", 10, first_ms=20)
    assert world.order() == ["a", "b"]
    assert world.order(preferences=wish(sort="price")) == ["b", "a"]
    assert world.order(preferences=wish(sort="latency")) == ["b", "a"]
    assert world.order(preferences=wish(sort="throughput")) == ["a", "b"]
    assert world.order("acme/tiny:cheapest", preferences=wish(sort="throughput")) == ["b", "a"]


def test_max_price_in_usd_per_million_tokens() -> None:
    world = World(offer("a", price=PRICE), offer("b", price=Price(input=1, output=1)))
    assert world.order(preferences=wish(max_price=PriceCeiling(prompt=1.0))) == ["a", "b"]
    assert world.order(preferences=wish(max_price=PriceCeiling(prompt=0.99))) == ["b"]
    assert world.order(preferences=wish(max_price=PriceCeiling(completion=1.5))) == ["b"]
    hours = World(offer("h", price=Price(compute_per_second=1)), offer("b", price=Price(free=True)))
    assert hours.order(preferences=wish(max_price=PriceCeiling(completion=9.0))) == ["b"]


def test_preferred_figures_move_offers_behind_but_leave_none_out() -> None:
    world = World(offer("a"), offer("b"), offer("c"))
    world.speed("b", 50, first_ms=5000)
    world.speed("c", 200, first_ms=100)
    order = ["c", "b", "a"]
    assert world.order(preferences=wish(sort="price", preferred_min_throughput=100.0))[0] == "c"
    assert world.order(preferences=wish(preferred_max_latency=Percentiles(p90=1.0))) == order


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"data_collection": "deny"}, ["zdr", "local", "careful"]),
        ({"zdr": True}, ["zdr", "local"]),
        ({"quantizations": ["fp8"]}, ["plain"]),
        ({"quantizations": ["unknown"]}, ["zdr", "local", "careful"]),
    ],
)
def test_what_an_offer_must_be(fields: dict[str, Any], left: list[str]) -> None:
    world = World(
        offer("plain", quantization="fp8"),
        offer("zdr", labels=frozenset({"zdr"})),
        offer("local", labels=LOCAL),
        offer("careful", labels=frozenset({"no_training"})),
    )
    assert world.order(preferences=wish(**fields)) == left


def test_parameters_rule_offers_out_or_are_dropped() -> None:
    world = World(
        offer("a", supported_params=frozenset({"seed"})),
        offer("b", supported_params=frozenset({"seed", "tools", "user"})),
    )
    assert world.order(params=["tools"]) == ["b"]
    assert world.reasons(params=["tools"]) == {"a": "parameter"}
    assert world.order(params=["seed", "user"]) == ["a", "b"]  # user does not change the answer
    assert world.order(params=["seed", "user"], preferences=wish(require_parameters=True)) == ["b"]
    found = refusal(world, params=["seed", "top_k"])
    assert (found.status, found.param, found.code) == (400, "top_k", "unsupported_parameter")
    found = refusal(world, params=["structured_outputs"])
    assert found.param == "response_format"


def test_pictures_need_a_model_that_sees() -> None:
    world = World(
        offer("blind", input_modalities=frozenset({"text"})),
        offer("seeing", input_modalities=frozenset({"text", "image"})),
        offer("unknown"),
    )
    assert world.order(modalities=frozenset({"image"})) == ["seeing", "unknown"]
    assert world.reasons(modalities=frozenset({"image"})) == {"blind": "modality"}


def test_another_task_is_told_its_route() -> None:
    world = World(offer("a", tasks=("feature-extraction",)))
    found = refusal(world)
    assert (found.status, "/v1/embeddings" in found.message) == (404, True)
    assert found.availability is not None
    assert found.availability.code == "wrong_endpoint"


def test_confinement_leaves_only_offers_with_a_label_of_each_set() -> None:
    eu, zdr = frozenset({"eu"}), frozenset({"zdr", "local"})
    world = World(
        offer("a", labels=frozenset({"eu"})),
        offer("b", labels=frozenset({"eu", "zdr"})),
        offer("c", labels=frozenset({"zdr"})),
        offer("d"),
    )
    assert world.order(confined_to=(eu,)) == ["a", "b"]
    assert world.order(confined_to=(eu, zdr)) == ["b"]
    found = refusal(world, "acme/tiny:d", confined_to=(eu,))
    assert isinstance(found, PermissionDenied)
    assert found.code == "confined"
    assert found.availability is not None
    assert found.availability.code == "privacy_restricted"


NAMES = [
    "acme/tiny",
    "acme/tiny:far",
    "acme/tiny:fastest",
    "acme/tiny:cheapest",
    "acme/tiny:preferred",
    "alias",
]


@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    order=st.lists(st.sampled_from(["far", "near"]), max_size=2, unique=True),
    only=st.none() | st.lists(st.sampled_from(["far", "near"]), max_size=2),
    sort=st.sampled_from([None, "price", "throughput", "latency"]),
    fallbacks=st.sampled_from([None, True, False]),
    own=st.dictionaries(st.sampled_from(["far", "near"]), st.booleans()),
    preferred=st.lists(st.sampled_from(["far", "near"]), max_size=2),
)
def test_nothing_in_a_request_gets_past_a_confinement(
    names: list[str],
    order: list[str],
    only: list[str] | None,
    sort: Any,
    fallbacks: bool | None,
    own: dict[str, bool],
    preferred: list[str],
) -> None:
    world = World(
        offer("far", price=Price(output=1)),
        offer("near", labels=LOCAL),
        aliases={"alias": "acme/tiny:far"},
    )
    world.speed("far", 10_000)
    asked = {
        "preferences": wish(order=order or None, only=only, sort=sort, allow_fallbacks=fallbacks),
        "confined_to": (LOCAL,),
        "own_keys": own,
        "preferred": preferred,
    }
    try:
        route = world.plan(*names, **asked)
    except CallError:
        return
    assert {each.provider for each in route.offers} <= {"near"}


def test_own_keys_come_first_and_alone() -> None:
    world = World(offer("a"), offer("b"), offer("c"))
    assert world.order(own_keys={"c": False}) == ["c"]
    assert world.reasons(own_keys={"c": False}) == {"a": "own_key", "b": "own_key"}
    assert world.order(own_keys={"c": True}) == ["c", "a", "b"]
    assert world.order("acme/tiny:a", own_keys={"c": False}) == ["a"]
    assert world.order(own_keys={"z": False}) == ["a", "b", "c"]


def test_a_provider_whose_keys_all_rest_is_left_out_until_one_is_ready() -> None:
    world = World(offer("a"), offer("b"))
    world.keys("a", "b")
    a, b = world.pools.pick("a"), world.pools.pick("b")
    assert a is not None
    assert b is not None
    world.pools.cool(a, 30)
    assert world.order() == ["b"]
    assert world.order(own_keys={"a": False}) == ["a"]
    world.pools.cool(b, 12)
    found = refusal(world)
    assert isinstance(found, RateLimited)
    assert found.retry_after_s == 12
    assert found.availability is not None
    assert (found.availability.retryable, found.availability.code) == (True, "capacity_exhausted")
    world.clock.pass_seconds(13)
    assert world.order() == ["b"]


def test_refused_keys_are_the_operators_fault() -> None:
    world = World(offer("a"))
    world.keys("a")
    key = world.pools.pick("a")
    assert key is not None
    world.pools.refuse(key)
    assert isinstance(refusal(world), UpstreamFailed)


def test_an_unpriced_model_says_so() -> None:
    world = World(offer("a", "acme/other"), unpriced=[offer("b")])
    found = refusal(world)
    assert (found.status, found.code) == (404, "model_not_found")
    assert "no price" in found.message


@given(
    speeds=st.lists(st.floats(0.1, 1000), min_size=1, max_size=6),
    prices=st.lists(st.integers(1, 10**12), min_size=6, max_size=6),
    policy=st.sampled_from(["fastest", "cheapest", "preferred"]),
)
def test_every_plan_has_each_able_offer_once(
    speeds: list[float], prices: list[int], policy: str
) -> None:
    names = "abcdef"[: len(speeds)]
    world = World(
        *(offer(n, price=Price(output=prices[at])) for at, n in enumerate(names)),
        preferred=("c", "a"),
    )
    for name, speed in zip(names, speeds, strict=True):
        world.speed(name, speed)
    route: RoutePlan = world.plan(f"acme/tiny:{policy}")
    assert sorted(each.provider for each in route.offers) == sorted(names)
    if policy == "fastest":
        found = [world.health.speed((each.provider, each.model)) for each in route.offers]
        assert found == sorted(found, reverse=True)
    if policy == "cheapest":
        outputs = [each.price.output for each in route.offers]
        assert outputs == sorted(outputs)
