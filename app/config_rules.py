"""Rules between the keys of a configuration, which types alone cannot say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.errors import ConfigError

if TYPE_CHECKING:
    from app.config import Config, Tier
    from app.config_providers import ProviderModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_ms(moment: str) -> int:
    """Milliseconds since 1970 of a date or a date with a time; UTC where no zone is given.

    Raises ValueError for a day or time that no calendar has.
    """
    found = datetime.fromisoformat(moment)
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return (found - _EPOCH) // timedelta(milliseconds=1)


def check(config: Config, source: str) -> None:
    """Raises ConfigError, which starts with ``source`` and the path, for a rule that is broken."""
    for name, tier in config.tiers.items():
        _check_tier(tier, f"{source}: tiers.{name}")
    seen: set[str] = set()
    for at, provider in enumerate(config.providers):
        where = f"{source}: providers[{at}]"
        if provider.id in seen or provider.id == "local":
            raise ConfigError(f"{where}.id: {provider.id!r} is taken; provider ids are unique")
        seen.add(provider.id)
        names: set[str] = set()
        for n, model in enumerate(provider.models):
            if model.id in names:
                raise ConfigError(f"{where}.models[{n}].id: {model.id!r} is listed twice")
            names.add(model.id)
            _check_prices(model, f"{where}.models[{n}]")
    _check_dates(
        [dated.starts for dated in config.local.hardware.prices], f"{source}: local.hardware"
    )
    local_ids: set[str] = set()
    for n, local in enumerate(config.local.models):
        where = f"{source}: local.models[{n}]"
        ids = [(f"{where}.id", local.id)]
        ids += [(f"{where}.adapters[{m}].id", each.id) for m, each in enumerate(local.adapters)]
        for place, local_id in ids:
            if local_id in local_ids:
                raise ConfigError(f"{place}: {local_id!r} is listed twice")
            local_ids.add(local_id)


def _check_tier(tier: Tier, where: str) -> None:
    if tier.overage_limit_usd is not None and tier.overage == "stop":
        raise ConfigError(
            f'{where}.overage_limit_usd: given, but overage is "stop"; say "pay_as_you_go", or'
            " leave the limit out"
        )
    if tier.per == "seat" and not tier.org:
        raise ConfigError(f'{where}.per: "seat", but only orgs have seats; add org = true')


def _check_prices(model: ProviderModel, where: str) -> None:
    priced = bool(model.price or model.price_per_second or model.prices)
    if priced and model.free:
        raise ConfigError(f"{where}.free: true, but there is a price")
    if not priced and not model.free:
        raise ConfigError(
            f'{where}.price: missing; give {{ input = "…", output = "…" }} in USD per million'
            " tokens, or price_per_second in USD, or free = true"
        )
    if model.price is not None:
        given = [name for name in model.price.__struct_fields__ if getattr(model.price, name)]
        for name in ("input", "output"):
            if name not in given and ("conversational" in model.tasks or not given):
                raise ConfigError(
                    f"{where}.price.{name}: missing; give it in USD per million tokens"
                )
    if model.price and model.price_per_second:
        raise ConfigError(
            f"{where}.price_per_second: given, but there is a price per token too; choose one"
        )
    _check_dates([dated.starts for dated in model.prices], where)
    for n, dated in enumerate(model.prices):
        per_token = (dated.input is not None) + (dated.output is not None)
        if per_token != (2 if dated.per_second is None else 0):
            raise ConfigError(
                f"{where}.prices[{n}]: give input and output, in USD per million tokens, or give"
                " per_second, in USD"
            )


def _check_dates(moments: list[str], where: str) -> None:
    """Dated prices come in the order of their dates, each date once."""
    before: int | None = None
    for n, moment in enumerate(moments):
        try:
            starts = moment_ms(moment)
        except ValueError:
            raise ConfigError(
                f'{where}.prices[{n}].from: expected a date that there is, found "{moment}"'
            ) from None
        if before is not None and starts <= before:
            raise ConfigError(
                f'{where}.prices[{n}].from: "{moment}" is not later than the one before; list'
                " prices in the order of their dates, each date once"
            )
        before = starts
