"""Tiers out of a configuration: what they give, cost and allow."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.billing.tiers import Tiers
from app.config import Config, parse
from app.config_types import FEATURES
from app.errors import PermissionDenied
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from app.ledger.entries import CreditTerms

USD = 10**9


def tiers_of(text: str) -> Tiers:
    return Tiers(parse(tomllib.loads(text), source="test"))


def test_the_default_tiers() -> None:
    tiers = Tiers(Config())
    assert tiers.names() == ["free", "pro", "team", "enterprise"]
    assert tiers.terms_of("free") == CreditTerms(
        tier="free", monthly_credit_nano_usd=USD // 10, overage=False
    )
    assert tiers.terms_of("pro") == CreditTerms(
        tier="pro", monthly_credit_nano_usd=2 * USD, overage=True, fee_nano_usd=9 * USD
    )
    assert tiers.terms_of("team", 5) == CreditTerms(
        tier="team", monthly_credit_nano_usd=10 * USD, overage=True, fee_nano_usd=100 * USD
    )
    assert tiers.terms_of("enterprise", 7) == CreditTerms(
        tier="enterprise", monthly_credit_nano_usd=14 * USD, overage=True
    )


def test_users_and_orgs_have_tiers_of_their_own() -> None:
    tiers = Tiers(Config())
    assert tiers.for_users() == ["free", "pro"]
    assert tiers.for_orgs() == ["team", "enterprise"]
    assert [tiers.is_for_orgs(name) for name in tiers.names()] == [False, False, True, True]
    assert [tiers.is_per_seat(name) for name in tiers.names()] == [False, False, True, True]


def test_the_default_features() -> None:
    tiers = Tiers(Config())
    assert [tiers.with_feature(feature) for feature in FEATURES] == [
        ["enterprise"],
        ["enterprise"],
        ["team", "enterprise"],
        ["pro", "team", "enterprise"],
        ["team", "enterprise"],
    ]
    assert tiers.has("enterprise", "sso")
    assert not tiers.has("free", "spending_limits")
    assert tiers.features_of("pro") == ("spending_limits",)


def test_terms_are_the_same_object_every_time() -> None:
    tiers = Tiers(Config())
    assert tiers.terms_of("pro") is tiers.terms_of("pro", seats=3)
    assert tiers.terms_of("team", 3) is tiers.terms_of("team", 3)
    assert tiers.terms_of("team", 3) is not tiers.terms_of("team", 4)


def test_configured_tiers_to_the_nano() -> None:
    tiers = tiers_of(
        """
        [tiers.lab]
        monthly_credit_usd = "12.000000001"
        [tiers.enterprise]
        overage_limit_usd = "500.00"
        price_usd = "35.50"
        """
    )
    assert tiers.terms_of("lab").monthly_credit_nano_usd == 12_000_000_001
    assert not tiers.terms_of("lab").overage
    terms = tiers.terms_of("enterprise", 2)
    assert terms.overage_limit_nano_usd == 500 * USD
    assert tiers.price_of("enterprise", 2) == terms.fee_nano_usd == 71 * USD
    assert tiers.price_of("lab", 2) == 0
    assert (tiers.invoice_days("enterprise"), tiers.invoice_days("lab")) == (30, 0)


def test_an_org_tier_may_count_as_one_account() -> None:
    tiers = tiers_of('tiers.club = { org = true, monthly_credit_usd = "5.00", price_usd = "9.00" }')
    assert tiers.for_orgs() == ["team", "enterprise", "club"]
    assert tiers.terms_of("club", 20).monthly_credit_nano_usd == 5 * USD
    assert tiers.price_of("club", 20) == 9 * USD


@given(seats=st.integers(0, 10**9), cents=st.integers(0, 10**9))
def test_seats_multiply_credit_and_price_up_to_the_largest_amount(seats: int, cents: int) -> None:
    usd = f"{cents // 100}.{cents % 100:02d}"
    terms = tiers_of(
        f'tiers.team.monthly_credit_usd = "{usd}"\ntiers.team.price_usd = "{usd}"'
    ).terms_of("team", seats)
    whole = min(seats * cents * 10**7, AMOUNT_NANO_USD_MAX)
    assert terms.monthly_credit_nano_usd == terms.fee_nano_usd == whole


def test_a_tier_that_is_gone_is_the_operators_to_mend() -> None:
    tiers = Tiers(Config())
    for ask in (tiers.terms_of, tiers.is_for_orgs, tiers.features_of, tiers.invoice_days):
        with pytest.raises(
            PermissionDenied, match="one of: enterprise, free, pro, team"
        ) as refused:
            ask("gold")
        assert refused.value.code == "tier_not_configured"
