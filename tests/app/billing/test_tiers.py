"""Tiers and prices out of a configuration."""

import pytest

from app.billing.prices import compute_price, price_from_config
from app.billing.tiers import Tiers
from app.config import Config, ProviderModel, parse
from app.errors import ConfigError, PermissionDenied
from app.ledger.entries import CreditTerms
from plugins.contract import Price


def test_the_default_tiers() -> None:
    tiers = Tiers(Config())
    assert tiers.names() == ["free", "pro"]
    assert tiers.terms_of("free") == CreditTerms(
        tier="free", monthly_credit_nano_usd=100_000_000, overage=False
    )
    assert tiers.terms_of("pro") == CreditTerms(
        tier="pro", monthly_credit_nano_usd=2_000_000_000, overage=True
    )
    assert tiers.terms_of("pro") is tiers.terms_of("pro")


def test_configured_tiers_to_the_nano() -> None:
    config = parse({"tiers": {"lab": {"monthly_credit_usd": "12.000000001"}}}, source="test")
    terms = Tiers(config).terms_of("lab")
    assert terms.monthly_credit_nano_usd == 12_000_000_001
    assert not terms.overage


def test_a_tier_that_is_gone_is_the_operators_to_mend() -> None:
    with pytest.raises(PermissionDenied, match="one of: free, pro") as refused:
        Tiers(Config()).terms_of("gold")
    assert refused.value.code == "tier_not_configured"


def test_prices_are_exact() -> None:
    raw = {
        "providers": [
            {
                "id": "mock",
                "plugin": "echo",
                "models": [
                    {
                        "id": "acme/tiny",
                        "price": {
                            "input": "0.20",
                            "output": "0.000000001",
                            "cache_read": "0.02",
                            "reasoning": "1234.5",
                        },
                    },
                    {"id": "acme/gift", "free": True},
                ],
            }
        ]
    }
    priced, free = parse(raw, source="test").providers[0].models
    assert price_from_config(priced) == Price(
        input=200_000_000, output=1, cache_read=20_000_000, reasoning=1_234_500_000_000
    )
    assert price_from_config(free) == Price(free=True)
    assert compute_price("0.00001") == Price(compute_per_second=10_000)


def test_a_price_that_is_missing_is_never_zero() -> None:
    with pytest.raises(ConfigError, match="acme/tiny"):
        price_from_config(ProviderModel(id="acme/tiny"))
