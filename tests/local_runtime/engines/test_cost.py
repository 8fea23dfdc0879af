"""Who pays for a step: shares that add up exactly, and forecasts on the high side."""

from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.cost import Forecast, share

WEIGHTS = st.lists(st.integers(1, 512), min_size=1, max_size=64)


@given(st.integers(0, 10**13), WEIGHTS)
def test_shares_add_up_and_are_fair(total_ns: int, weights: list[int]) -> None:
    shares = share(total_ns, weights)
    assert sum(shares) == total_ns
    for part, weight in zip(shares, weights, strict=True):
        assert abs(part - total_ns * weight / sum(weights)) <= 1 + total_ns / 2**50


def test_the_same_second_is_not_paid_twice() -> None:
    assert share(16_000, [1] * 16) == [1_000] * 16


def test_a_forecast_starts_from_what_loading_measured() -> None:
    forecast = Forecast(prompt_token_ns=1_000, output_token_ns=9_000)
    assert forecast.prompt_token_ns == 1_500
    assert forecast.output_token_ns == 13_500
    assert forecast.prompt_tokens_within(10_000) == 10


def test_a_forecast_follows_the_dearest_of_the_last_steps() -> None:
    forecast = Forecast(1_000, 9_000)
    forecast.observe(40_000, prompt_tokens=0, output_tokens=4)
    assert forecast.output_token_ns == 60_000  # the batch may shrink to one
    for _ in range(8):
        forecast.observe(10_000, prompt_tokens=0, output_tokens=1)
    assert forecast.output_token_ns == 15_000


def test_prompt_and_output_are_told_apart() -> None:
    forecast = Forecast(1_000, 9_000)
    for _ in range(8):
        forecast.observe(200_000, prompt_tokens=90, output_tokens=10)
    assert forecast.prompt_token_ns == 3_000
    assert forecast.output_token_ns == 13_500


def test_small_portions_are_no_reason_for_small_portions() -> None:
    forecast = Forecast(1_000, 9_000)
    forecast.observe(64_000, prompt_tokens=64, output_tokens=0)
    for _ in range(8):
        forecast.observe(80_000, prompt_tokens=10, output_tokens=0)
    assert forecast.prompt_tokens_within(100_000) == 100
    assert forecast.prompt_token_ns == 12_000  # who pays for ten pays for them at that price
