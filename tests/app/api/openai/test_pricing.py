"""Prices as clients read them: the router's two figures, and whatever else there is a price for."""

from app.api.openai.pricing import pricing
from plugins.contract import Price


def test_a_price_per_token_has_the_routers_form() -> None:
    assert pricing(Price(input=200_000_000, output=600_000_000)) == {"input": 0.2, "output": 0.6}
    cached = pricing(Price(input=200_000_000, cache_read=0, reasoning=10**9))
    assert cached == {"input": 0.2, "output": 0, "cache_read": 0, "reasoning": 1}


def test_other_quantities_have_the_names_of_the_configuration() -> None:
    price = Price(
        image=40_000_000 * 10**6,
        character=15 * 10**9,
        audio_second=100_000,
        video_second=10**8,
        per_request=1_000_000,
        compute_per_second=120_000,
    )
    assert pricing(price) == {
        "input": 0,
        "output": 0,
        "image": 0.04,
        "characters": 15,
        "audio_second": 0.0001,
        "video_second": 0.1,
        "per_request": 0.001,
        "compute_per_second": 0.00012,
    }
