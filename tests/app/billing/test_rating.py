"""I16: usage × price against exact fractions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.billing.rating import (
    affordable_compute_ns,
    affordable_output_tokens,
    ceiling,
    ceiling_of,
    is_anything,
    is_missing,
    rate,
)
from plugins.contract import Price, Usage

QUANTITIES = [
    name for name in Usage.__struct_fields__ if name not in ("cost_nano_usd", "estimated")
]
FIGURES = [name for name in Price.__struct_fields__ if name not in ("as_billed", "free")]
tokens = st.integers(0, 10**9)
rates = st.integers(0, 10**12)
optional = st.none() | rates
prices = st.builds(
    Price,
    input=rates,
    output=rates,
    cache_read=optional,
    cache_write=optional,
    reasoning=optional,
    audio_input=optional,
    audio_output=optional,
    image=st.integers(0, 10**16),
    character=rates,
    audio_second=rates,
    video_second=rates,
    per_request=rates,
    compute_per_second=rates,
)
usages = st.builds(
    Usage,
    input_tokens=tokens,
    cache_read_tokens=tokens,
    cache_write_tokens=tokens,
    output_tokens=tokens,
    reasoning_tokens=tokens,
    audio_input_tokens=tokens,
    audio_output_tokens=tokens,
    images=st.integers(0, 1000),
    characters=st.integers(0, 10**7),
    audio_ms=st.integers(0, 10**9),
    video_ms=st.integers(0, 10**9),
    compute_ns=st.integers(0, 10**15),
)


def exact(usage: Usage, price: Price) -> Fraction:
    """The cost in nano-USD without any rounding, written the long way round."""
    million, second = 10**6, 10**9
    total = Fraction(usage.input_tokens * price.input, million)
    total += Fraction(usage.output_tokens * price.output, million)
    total += Fraction(usage.images * price.image, million)
    total += Fraction(usage.characters * price.character, million)
    total += Fraction(usage.audio_ms * price.audio_second, 1000)
    total += Fraction(usage.video_ms * price.video_second, 1000)
    if usage != Usage():
        total += price.per_request
    for count, own, fallback in (
        (usage.cache_read_tokens, price.cache_read, price.input),
        (usage.cache_write_tokens, price.cache_write, price.input),
        (usage.reasoning_tokens, price.reasoning, price.output),
        (usage.audio_input_tokens, price.audio_input, price.input),
        (usage.audio_output_tokens, price.audio_output, price.output),
    ):
        total += Fraction(count * (own if own is not None else fallback), million)
    return total + Fraction(usage.compute_ns * price.compute_per_second, second)


@given(usages, prices)
def test_one_ceil_at_the_end(usage: Usage, price: Price) -> None:
    cost = rate(usage, price)
    assert type(cost) is int
    assert 0 <= cost - exact(usage, price) < 1


@given(usages, prices, st.integers(0, 10**18))
def test_the_providers_own_bill_wins_where_the_price_says_so(
    usage: Usage, price: Price, cost: int
) -> None:
    as_billed = replace(price, as_billed=True)
    assert rate(replace(usage, cost_nano_usd=cost), as_billed) == cost
    assert rate(replace(usage, cost_nano_usd=-1), as_billed) == rate(usage, price)
    assert rate(usage, as_billed) == rate(usage, price)
    assert rate(replace(usage, cost_nano_usd=cost), price) == rate(usage, price)
    assert rate(replace(usage, cost_nano_usd=cost), Price(free=True)) == 0


def all_read(usage: Usage) -> int:
    tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return tokens + usage.audio_input_tokens


def all_made(usage: Usage) -> int:
    return usage.output_tokens + usage.reasoning_tokens + usage.audio_output_tokens


@given(usages, prices)
def test_no_chat_within_the_bounds_costs_more_than_the_ceiling(usage: Usage, price: Price) -> None:
    chat = replace(usage, images=0, characters=0, audio_ms=0, video_ms=0)
    bound = ceiling(price, all_read(chat), all_made(chat), chat.compute_ns)
    assert rate(chat, price) <= bound
    assert bound == ceiling_of(chat, price)


@given(usages, prices, st.data())
def test_no_call_that_uses_less_costs_more_than_the_ceiling(
    most: Usage, price: Price, data: st.DataObject
) -> None:
    rest = {
        name: data.draw(st.integers(0, getattr(most, name)))
        for name in ("images", "characters", "audio_ms", "video_ms", "compute_ns")
    }
    used = data.draw(usages)
    read, made = all_read(used), all_made(used)
    # The tokens that the call may use, in whatever buckets.
    most = replace(most, input_tokens=read, cache_read_tokens=0, cache_write_tokens=0)
    most = replace(most, audio_input_tokens=0, output_tokens=made, reasoning_tokens=0)
    most = replace(most, audio_output_tokens=0)
    assert rate(replace(used, **rest), price) <= ceiling_of(most, price)


@given(usages, prices, st.sampled_from(QUANTITIES))
def test_more_use_never_costs_less(usage: Usage, price: Price, bucket: str) -> None:
    more = replace(usage, **{bucket: getattr(usage, bucket) + 1})
    assert rate(more, price) >= rate(usage, price)


@given(prices, st.integers(0, 10**15), tokens)
def test_affordable_tokens_are_the_most_that_fit(price: Price, amount: int, read: int) -> None:
    most = affordable_output_tokens(price, amount, read)
    if most is None:
        assert ceiling(price, 0, 10**9, 0) == price.per_request
        return
    assert ceiling(price, read, most + 1, 0) > amount
    assert most == 0 or ceiling(price, read, most, 0) <= amount


@given(prices, st.integers(0, 10**15))
def test_affordable_compute_is_the_most_that_fits(price: Price, amount: int) -> None:
    most = affordable_compute_ns(price, amount)
    if most is None:
        assert price.compute_per_second == 0
        return
    assert amount < ceiling(price, 0, 0, most + 1)
    assert most == 0 or ceiling(price, 0, 0, most) <= amount


def test_worked_examples() -> None:
    chat = Price(input=200_000_000, output=600_000_000)  # $0.20 and $0.60 per million
    assert rate(Usage(input_tokens=120, output_tokens=240), chat) == 24_000 + 144_000
    assert rate(Usage(input_tokens=1), Price(input=1)) == 1
    assert rate(Usage(input_tokens=10**6), Price(input=1)) == 1
    assert rate(Usage(input_tokens=10**6 + 1), Price(input=1)) == 2
    # 10 s at $0.00012 a second are $0.0012.
    hardware = Price(compute_per_second=120_000)
    assert rate(Usage(compute_ns=10 * 10**9), hardware) == 1_200_000
    # Buckets never overlap: 100 read afresh, 900 found in the cache at a tenth of the price.
    cached = Price(input=1_000_000, output=0, cache_read=100_000)
    assert rate(Usage(input_tokens=100, cache_read_tokens=900), cached) == 190
    assert rate(Usage(cache_write_tokens=10), cached) == 10
    # An image at $0.04 and $0.001 for the call.
    pictures = Price(image=40_000_000 * 10**6, per_request=1_000_000)
    assert rate(Usage(images=1), pictures) == 41_000_000
    assert rate(Usage(images=3), pictures) == 121_000_000
    # 4,096 characters at $15 a million, 61.5 s of sound at $0.0001, 8 s of video at $0.10.
    assert rate(Usage(characters=4096), Price(character=15 * 10**9)) == 61_440_000
    assert rate(Usage(audio_ms=61_500), Price(audio_second=100_000)) == 6_150_000
    assert rate(Usage(video_ms=8_000), Price(video_second=10**8)) == 800_000_000
    assert rate(Usage(audio_ms=1), Price(audio_second=1)) == 1
    # One ceil for all of it: 0.3 + 0.3 + 0.4 nano-USD are one.
    parts = Price(character=300_000, audio_second=300, video_second=400)
    assert rate(Usage(characters=1, audio_ms=1, video_ms=1), parts) == 1
    assert rate(Usage(characters=1, audio_ms=2, video_ms=1), parts) == 2
    # Sound at a price of its own, and at that of text where it has none.
    sound = Price(input=1_000_000, output=2_000_000, audio_output=5_000_000)
    assert rate(Usage(audio_input_tokens=7, audio_output_tokens=3), sound) == 7 + 15


def test_free_and_unpriced() -> None:
    assert rate(Usage(input_tokens=5), Price(free=True, input=9)) == 0
    assert ceiling(Price(free=True, input=9), 5, 5, 5) == 0
    assert ceiling_of(Usage(images=5), Price(free=True, image=9)) == 0
    assert affordable_output_tokens(Price(input=1), 0, 0) is None
    assert affordable_output_tokens(Price(free=True, output=1), 0, 0) is None
    assert affordable_compute_ns(Price(output=1), 0) is None


@pytest.mark.parametrize("usage", [replace(Usage(), **{bucket: -1}) for bucket in QUANTITIES])
def test_negative_quantities_are_refused(usage: Usage) -> None:
    with pytest.raises(ValueError, match="negative"):
        rate(usage, Price(input=1))
    with pytest.raises(ValueError, match="negative"):
        ceiling_of(usage, Price(input=1))
    for place in range(3):
        with pytest.raises(ValueError, match="negative"):
            ceiling(Price(input=1), *[-1 if at == place else 0 for at in range(3)])


def test_the_price_per_request_is_due_once_anything_was_used() -> None:
    price = Price(per_request=7)
    assert rate(Usage(), price) == 0
    for bucket in QUANTITIES:
        used = replace(Usage(), **{bucket: 1})
        assert is_anything(used)
        assert rate(used, price) == 7
    assert ceiling(price, 0, 0, 0) == ceiling_of(Usage(), price) == 7
    assert affordable_output_tokens(Price(output=10**6, per_request=7), 6, 0) == 0
    assert affordable_output_tokens(Price(output=10**6, per_request=7), 9, 0) == 2
    assert affordable_compute_ns(Price(compute_per_second=1, per_request=7), 6) == 0


def test_a_price_without_any_figure_is_missing() -> None:
    assert is_missing(Price())
    assert is_missing(Price(as_billed=True, cache_read=0))
    assert not is_missing(Price(free=True))
    for figure in FIGURES:
        assert not is_missing(replace(Price(), **{figure: 1}))
