"""The bound is a bound: whatever is used within it costs no more than the hold."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from app.billing.rating import rate
from app.gateway.estimate import (
    bounds,
    compute_ns_to_send,
    input_tokens_max,
    output_tokens_max,
    output_tokens_to_send,
)
from plugins.chat import ChatRequest, Message
from plugins.contract import Offer, Price, Usage

prices = st.integers(0, 10**12)
optional_prices = st.none() | prices


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    price = Price(
        input=draw(prices),
        output=draw(prices),
        cache_read=draw(optional_prices),
        cache_write=draw(optional_prices),
        reasoning=draw(optional_prices),
        audio_input=draw(optional_prices),
        audio_output=draw(optional_prices),
        image=draw(prices),
        per_request=draw(prices),
    )
    context = draw(st.none() | st.integers(128, 200_000))
    return Offer(model="m", provider="p", upstream_id="m", price=price, context_length=context)


def request(max_tokens: int | None, n: int | None, text: str = "hello") -> ChatRequest:
    message = Message(role="user", content=text)
    return ChatRequest(model="m", messages=[message], max_tokens=max_tokens, n=n)


def _split(data: st.DataObject, total: int, parts: int) -> list[int]:
    """``total`` as a sum of so many parts."""
    cuts = sorted(data.draw(st.integers(0, total)) for _ in range(parts - 1))
    return [end - begin for begin, end in zip([0, *cuts], [*cuts, total], strict=True)]


@given(
    st.lists(offers(), min_size=1, max_size=3),
    st.none() | st.integers(1, 100_000),
    st.none() | st.integers(1, 8),
    st.integers(10, 100_000),
    st.data(),
)
def test_what_fits_the_bounds_costs_no_more_than_the_hold(
    found: list[Offer], max_tokens: int | None, n: int | None, body_bytes: int, data: st.DataObject
) -> None:
    asked = request(max_tokens, n)
    limits = bounds(asked, body_bytes, tuple(found))
    assert 0 <= limits.floor_nano_usd <= limits.comfortable_nano_usd <= limits.amount_nano_usd
    held = data.draw(st.integers(limits.floor_nano_usd, limits.amount_nano_usd))
    for offer in found:
        tokens_in = min(input_tokens_max(asked, body_bytes), offer.context_length or 10**9)
        sent = output_tokens_to_send(asked, offer, held, limits.input_tokens)
        assert 1 <= sent * (n or 1) <= max(output_tokens_max(asked, offer), n or 1)
        fresh, read, written, heard = _split(data, tokens_in, 4)
        said, thought, spoken = _split(data, sent * (n or 1), 3)
        usage = Usage(
            input_tokens=fresh,
            cache_read_tokens=read,
            cache_write_tokens=written,
            audio_input_tokens=heard,
            output_tokens=said,
            reasoning_tokens=thought,
            audio_output_tokens=spoken,
        )
        if held == limits.amount_nano_usd:
            assert rate(usage, offer.price) <= held


def test_compute_is_bounded_by_what_the_hold_pays_for() -> None:
    price = Price(compute_per_second=10_000)
    offer = Offer(
        model="m",
        provider="local",
        upstream_id="m",
        price=price,
        context_length=2048,
        abort_stops_billing=True,
    )
    assert compute_ns_to_send(offer, 10_000) == 10**9
    limits = bounds(request(None, None), 100, (offer,))
    assert limits.floor_nano_usd == 1000  # a tenth of a second
    assert limits.floor_nano_usd < limits.comfortable_nano_usd < limits.amount_nano_usd


def test_elsewhere_the_least_compute_is_that_of_a_short_answer() -> None:
    price = Price(compute_per_second=120_000)
    offer = Offer(model="m", provider="hf", upstream_id="m", price=price, context_length=2048)
    limits = bounds(request(10, None), 100, (offer,))
    # 1 s, 5 ms for each prompt token, 50 ms for each of the answer.
    seconds = Fraction(1000 + 5 * limits.input_tokens + 50 * 10, 1000)
    assert limits.floor_nano_usd == limits.comfortable_nano_usd == -(-seconds * 120_000 // 1)
    assert limits.floor_nano_usd < limits.amount_nano_usd


def test_a_price_per_request_counts_once() -> None:
    price = Price(input=10**9, output=10**9, per_request=10**6)
    plain = Price(input=10**9, output=10**9)
    with_it, without = (
        bounds(
            request(10, 4),
            100,
            (Offer(model="m", provider="p", upstream_id="m", price=each),),
        )
        for each in (price, plain)
    )
    assert with_it.amount_nano_usd == without.amount_nano_usd + 10**6


def test_attachments_weigh() -> None:
    parts: list[dict[str, object]] = [
        {"type": "text", "text": "x"},
        {"type": "image_url", "image_url": {"url": "u"}},
    ]
    plain = request(5, None)
    message = Message(role="user", content=parts)
    with_image = ChatRequest(model="m", messages=[message], max_tokens=5)
    assert input_tokens_max(with_image, 100) > input_tokens_max(plain, 100) + 10_000


def test_a_free_offer_needs_no_money() -> None:
    offer = Offer(model="m", provider="p", upstream_id="m", price=Price(free=True))
    assert bounds(request(10, None), 100, (offer,)).amount_nano_usd == 0
