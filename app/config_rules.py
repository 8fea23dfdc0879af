"""Rules between the keys of a configuration, which types alone cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.config_faults import Fault, Steps
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
    for fault in broken(config):
        raise ConfigError(f"{source}: {fault}")


def broken(config: Config) -> Iterator[Fault]:
    """Every rule that is broken, in the order of the tables."""
    for name, tier in config.tiers.items():
        yield from _of_tier(tier, ("tiers", name))
    seen: set[str] = set()
    for at, provider in enumerate(config.providers):
        here: Steps = ("providers", at)
        if provider.id in seen or provider.id == "local":
            yield _rule((*here, "id"), f"{provider.id!r} is taken; provider ids are unique")
        seen.add(provider.id)
        names: set[str] = set()
        for n, model in enumerate(provider.models):
            at_model = (*here, "models", n)
            if model.id in names:
                yield _rule((*at_model, "id"), f"{model.id!r} is listed twice")
            names.add(model.id)
            yield from _of_prices(model, at_model)
    hardware = config.local.hardware
    yield from _of_dates([dated.starts for dated in hardware.prices], ("local", "hardware"))
    local_ids: set[str] = set()
    for n, local in enumerate(config.local.models):
        at_local: Steps = ("local", "models", n)
        ids = [((*at_local, "id"), local.id)]
        ids += [
            ((*at_local, "adapters", m, "id"), each.id) for m, each in enumerate(local.adapters)
        ]
        for steps, local_id in ids:
            if local_id in local_ids:
                yield _rule(steps, f"{local_id!r} is listed twice")
            local_ids.add(local_id)


def _rule(steps: Steps, text: str) -> Fault:
    return Fault(steps, text, "rule")


def _of_tier(tier: Tier, here: Steps) -> Iterator[Fault]:
    if tier.overage_limit_usd is not None and tier.overage == "stop":
        yield _rule(
            (*here, "overage_limit_usd"),
            'given, but overage is "stop"; say "pay_as_you_go", or leave the limit out',
        )
    if tier.per == "seat" and not tier.org:
        yield _rule((*here, "per"), '"seat", but only orgs have seats; add org = true')


def _of_prices(model: ProviderModel, here: Steps) -> Iterator[Fault]:
    priced = bool(model.price or model.price_per_second or model.prices)
    if priced and model.free:
        yield _rule((*here, "free"), "true, but there is a price")
    if not priced and not model.free:
        yield _rule(
            (*here, "price"),
            'missing; give { input = "…", output = "…" } in USD per million tokens, or'
            " price_per_second in USD, or free = true",
        )
    if model.price is not None:
        given = [name for name in model.price.__struct_fields__ if getattr(model.price, name)]
        for name in ("input", "output"):
            if name not in given and ("conversational" in model.tasks or not given):
                yield _rule((*here, "price", name), "missing; give it in USD per million tokens")
    if model.price and model.price_per_second:
        yield _rule(
            (*here, "price_per_second"),
            "given, but there is a price per token too; choose one",
        )
    yield from _of_dates([dated.starts for dated in model.prices], here)
    for n, dated in enumerate(model.prices):
        per_token = (dated.input is not None) + (dated.output is not None)
        if per_token != (2 if dated.per_second is None else 0):
            yield _rule(
                (*here, "prices", n),
                "give input and output, in USD per million tokens, or give per_second, in USD",
            )


def _of_dates(moments: list[str], here: Steps) -> Iterator[Fault]:
    """Dated prices come in the order of their dates, each date once."""
    before: int | None = None
    for n, moment in enumerate(moments):
        steps = (*here, "prices", n, "from")
        try:
            starts = moment_ms(moment)
        except ValueError:
            yield _rule(steps, f'expected a date that there is, found "{moment}"')
            continue
        if before is not None and starts <= before:
            yield _rule(
                steps,
                f'"{moment}" is not later than the one before; list prices in the order of their'
                " dates, each date once",
            )
        before = starts
