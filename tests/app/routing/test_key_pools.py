"""Whose turn it is, and who rests."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.routing.key_pools import COOL_SECONDS_MAX, REFUSED_SECONDS, KeyPools, ProviderKey
from tests.app.routing.world import HandClock


def key(name: str, weight: int = 1, provider: str = "mock") -> ProviderKey:
    return ProviderKey(provider=provider, name=name, secret=f"s-{name}", weight=weight)


def picked(pools: KeyPools, times: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(times):
        chosen = pools.pick("mock")
        assert chosen is not None
        found[chosen.name] += 1
    return found


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_calls_are_spread_by_weight(weights: list[int]) -> None:
    pools = KeyPools((key(str(n), weight) for n, weight in enumerate(weights)), HandClock())
    turns = picked(pools, 3 * sum(weights))
    assert turns == {str(n): 3 * weight for n, weight in enumerate(weights)}


def test_a_provider_without_keys_is_called_without_one() -> None:
    pools = KeyPools((), HandClock())
    chosen = pools.pick("echo")
    assert chosen is not None
    assert chosen.secret is None
    assert pools.rests_for_s("echo") == 0


def test_a_limited_key_rests_and_the_others_go_on() -> None:
    clock = HandClock()
    pools = KeyPools((key("a"), key("b")), clock)
    pools.cool(key("a"), 10)
    assert picked(pools, 4) == {"b": 4}
    pools.cool(key("b"), 3)
    assert pools.pick("mock") is None
    assert 2.9 < pools.rests_for_s("mock") <= 3
    clock.pass_seconds(3.1)
    assert picked(pools, 4) == {"b": 4}
    clock.pass_seconds(8)
    assert picked(pools, 4) == {"a": 2, "b": 2}


def test_absurd_waits_are_cut() -> None:
    clock = HandClock()
    pools = KeyPools((key("a"),), clock)
    pools.cool(key("a"), 10**9)
    assert pools.rests_for_s("mock") <= COOL_SECONDS_MAX
    pools.cool(key("a"), 0)
    clock.pass_seconds(COOL_SECONDS_MAX + 1)
    assert pools.pick("mock") is not None


def test_a_refused_key_is_told_from_a_limited_one() -> None:
    clock = HandClock()
    pools = KeyPools((key("a"), key("b")), clock)
    pools.refuse(key("a"))
    assert [state.state for state in pools.states("mock")] == ["refused", "ready"]
    assert not pools.refused("mock")
    pools.refuse(key("b"))
    assert pools.refused("mock")
    clock.pass_seconds(REFUSED_SECONDS + 1)
    again = pools.pick("mock")
    assert again is not None
    pools.accepted(again)
    assert not pools.refused("mock")


def test_a_new_configuration_keeps_the_rest_of_keys_that_stay() -> None:
    pools = KeyPools((key("a"), key("b")), HandClock())
    pools.cool(key("a"), 30)
    pools.replace([key("a", 5), key("c")])
    assert picked(pools, 3) == {"c": 3}
    assert [state.name for state in pools.states("mock")] == ["a", "c"]


def test_an_own_key_never_rests_the_operators() -> None:
    pools = KeyPools((key("a"),), HandClock())
    own = ProviderKey(provider="mock", name="own", secret="s-a", owner_id="user_1")
    pools.cool(own, 30)
    pools.refuse(own)
    assert pools.rests_for_s("mock") == 0
