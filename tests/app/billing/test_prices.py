"""Prices out of a configuration, to the nano, and which of them is in force when."""

import tomllib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.billing.prices import (
    NEVER_MS,
    PriceBook,
    compute_price,
    price_from_config,
    token_price,
)
from app.config import Config, parse
from app.config_providers import ProviderModel
from app.errors import ConfigError
from plugins.contract import Offer, Price

PROVIDER = '[[providers]]\nid = "mock"\nplugin = "echo"\n'
MODEL = '[[providers.models]]\nid = "acme/tiny"\n'
PRICE = 'price = { input = "0.20", output = "0.60" }\n'
OFFER = Offer(model="acme/tiny", provider="mock", upstream_id="m", price=Price(input=5))


def parsed(text: str) -> Config:
    return parse(tomllib.loads(text), source="test")


def at(day: str) -> int:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000


def test_prices_are_exact() -> None:
    config = parsed(
        PROVIDER
        + MODEL
        + """price = { input = "0.20", output = "0.000000001", cache_read = "0.02", \
reasoning = "1234.5", audio_input = "3", audio_output = "6.5", image = "0.04", \
per_request = "0.000000001" }
""".replace("\\\n", "")
        + MODEL.replace("tiny", "gift")
        + "free = true\n"
        + MODEL.replace("tiny", "seconds")
        + 'price_per_second = "0.00012"\n'
        + MODEL.replace("tiny", "media")
        + 'tasks = ["text-to-speech", "text-to-video"]\n'
        + 'price = { characters = "15", audio_second = "0.0001", video_second = "0.10" }\n'
    )
    priced, free, seconds, media = config.providers[0].models
    assert price_from_config(priced) == Price(
        input=200_000_000,
        output=1,
        cache_read=20_000_000,
        reasoning=1_234_500_000_000,
        audio_input=3_000_000_000,
        audio_output=6_500_000_000,
        image=40_000_000 * 10**6,
        per_request=1,
    )
    assert price_from_config(media) == Price(
        character=15 * 10**9, audio_second=100_000, video_second=10**8
    )
    assert price_from_config(free) == Price(free=True)
    assert price_from_config(seconds) == Price(compute_per_second=120_000)
    assert compute_price("0.00001") == Price(compute_per_second=10_000)
    assert priced.price is not None
    assert token_price(priced.price) == price_from_config(priced)


def test_a_price_that_is_missing_is_never_zero() -> None:
    with pytest.raises(ConfigError, match="acme/tiny"):
        price_from_config(ProviderModel(id="acme/tiny"))
    # An adapter's own offer without a figure in it is refused too.
    bare = Offer(model="a/b", provider="other", upstream_id="m", price=Price())
    assert PriceBook(Config()).price_at(bare, 0) is None


def test_noughts_that_were_written_down_are_free() -> None:
    config = parsed(PROVIDER + MODEL + 'price = { input = "0", output = "0.00" }\n')
    assert PriceBook(config).price_at(OFFER, 0) == Price(free=True)
    assert compute_price("0") == Price(free=True)


def test_what_is_not_configured_keeps_its_adapters_price() -> None:
    assert PriceBook(Config()).price_at(OFFER, 0) is OFFER.price


def test_a_dated_price_takes_over_at_its_moment() -> None:
    config = parsed(
        PROVIDER
        + MODEL
        + PRICE
        + """[[providers.models.prices]]
from = 2026-12-01
input = "0.10"
output = "0.30"
[[providers.models.prices]]
from = "2027-01-01T12:00:00Z"
per_second = "0.00012"
"""
    )
    book = PriceBook(config)
    first = Price(input=200_000_000, output=600_000_000)
    second = Price(input=100_000_000, output=300_000_000)
    third = Price(compute_per_second=120_000)
    december, noon = at("2026-12-01"), at("2027-01-01T12:00:00")
    assert [book.price_at(OFFER, ms) for ms in (0, december - 1)] == [first, first]
    assert [book.price_at(OFFER, ms) for ms in (december, noon - 1)] == [second, second]
    assert [book.price_at(OFFER, ms) for ms in (noon, noon + 10**12)] == [third, third]
    assert [(each.from_ms, each.price) for each in book.upcoming(OFFER, december - 1)] == [
        (december, second),
        (noon, third),
    ]
    assert [each.price for each in book.upcoming(OFFER, december)] == [third]
    assert book.upcoming(OFFER, noon) == []
    assert price_from_config(config.providers[0].models[0]) == first


def test_before_its_first_date_there_is_no_price() -> None:
    dated = '[[providers.models.prices]]\nfrom = "2026-12-01"\ninput = "1"\noutput = "2"\n'
    config = parsed(PROVIDER + MODEL + dated)
    book = PriceBook(config)
    assert book.price_at(OFFER, at("2026-12-01") - 1) is None
    assert book.price_at(OFFER, at("2026-12-01")) == Price(input=10**9, output=2 * 10**9)
    assert price_from_config(config.providers[0].models[0]).input == 10**9


def test_a_trusted_provider_is_paid_as_it_bills() -> None:
    price = PriceBook(parsed(PROVIDER + "trust_cost = true\n" + MODEL + PRICE)).price_at(OFFER, 0)
    assert price == Price(input=200_000_000, output=600_000_000, as_billed=True)
    free = PriceBook(parsed(PROVIDER + "trust_cost = true\n" + MODEL + "free = true"))
    assert free.price_at(OFFER, 0) == Price(free=True)


def test_all_local_models_have_the_hardwares_price() -> None:
    book = PriceBook(
        parsed(
            """[local.hardware]
price_usd_per_second = "0.00012"
[[local.hardware.prices]]
from = "2026-12-01"
price_usd_per_second = "0.0001"
"""
        )
    )
    offer = Offer(model="any/model", provider="local", upstream_id="m", price=Price(input=1))
    assert book.price_at(offer, 0) == Price(compute_per_second=120_000)
    assert book.price_at(offer, at("2026-12-01")) == Price(compute_per_second=100_000)


days = st.lists(st.dates(), unique=True, max_size=6).map(sorted)


@given(days, days, st.datetimes())
def test_no_price_changes_within_a_span(
    here: list[object], there: list[object], moment: datetime
) -> None:
    text = PROVIDER
    for name, dates in (("tiny", here), ("other", there)):
        text += MODEL.replace("tiny", name) + PRICE
        for n, day in enumerate(dates):
            text += f'[[providers.models.prices]]\nfrom = "{day}"\n'
            text += f'input = "{n + 1}"\noutput = "1"\n'
    book = PriceBook(parsed(text))
    offers = [OFFER, Offer(model="acme/other", provider="mock", upstream_id="m", price=Price())]
    now_ms = at(moment.isoformat())
    begins, ends = book.span_at(now_ms)
    assert begins <= now_ms < ends
    for offer in offers:
        now = book.price_at(offer, now_ms)
        assert book.price_at(offer, ends - 1) == now
        assert book.price_at(offer, begins) == now
        later = book.upcoming(offer, now_ms)
        assert all(each.from_ms >= ends for each in later)
    if ends != NEVER_MS:
        assert any(book.price_at(o, ends) != book.price_at(o, ends - 1) for o in offers)
