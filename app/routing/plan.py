"""Request + snapshot + health + caller → the offers to try, in order, with the reason for every
exclusion. Pure: no I/O, nothing is changed by asking.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from app.routing import names
from app.routing.asked import Asked
from app.routing.catalog import Snapshot
from app.routing.filters import Excluded, Reason, reason_against
from app.routing.health import Health
from app.routing.policies import SORTS, sort_key
from app.routing.refusals import no_offer, unknown_model, unknown_provider
from plugins.contract import Offer
from plugins.preferences import Percentiles, ProviderPreferences, SortRule

PINNED = "pinned"  # the name says which provider, so there is nothing to put in order
_NO_ALIASES: Mapping[str, str] = {}


class Resting(Protocol):
    """Which providers' keys all rest; ``app.routing.key_pools.KeyPools`` knows."""

    def rests_for_s(self, provider: str) -> float:
        """Seconds until a key of the provider is ready; 0 where one is."""
        ...

    def refused(self, provider: str) -> bool:
        """Whether the provider refuses every key of its."""
        ...


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's part in every plan."""

    default_policy: str = names.FASTEST
    preferred: Sequence[str] = ()
    aliases: Mapping[str, str] = _NO_ALIASES


class RoutePlan(msgspec.Struct, frozen=True):
    """All offers that can serve the request, best first. ``policy`` is the order they are in."""

    requested: str
    policy: str
    offers: tuple[Offer, ...]
    excluded: tuple[Excluded, ...] = ()


def plan(
    asked: Asked, snapshot: Snapshot, health: Health, resting: Resting, rules: Rules
) -> RoutePlan:
    """Find who serves the model, or else the models to fall back on.

    Raises NotFound, UnsupportedParameter, PermissionDenied, RateLimited or Unavailable, each with
    what ruled the offers out and what would work.
    """
    wish = asked.preferences
    excluded: list[Excluded] = []
    groups: list[list[Offer]] = []
    policy = ""
    for text in asked.names:
        name = names.read(text, rules.aliases)
        by = _policy(name, wish, rules)
        policy = policy or by
        found = _able(asked, name, snapshot, excluded, is_only=len(asked.names) == 1)
        if found:
            groups.append(_ordered(found, by, asked, health, rules))
    able = _merged(groups, wish, health)
    if asked.own_keys and able:
        able = _own_first(able, asked.own_keys, excluded)
    able = _awake(able, asked.own_keys, resting, excluded)
    if not able:
        raise no_offer(asked, snapshot, excluded, resting)
    if len(able) > 1:
        if wish is not None and wish.allow_fallbacks is False:
            able = able[:1]
        else:
            closed = health.closed
            able.sort(key=lambda offer: not closed((offer.provider, offer.model)))
    return RoutePlan(asked.names[0], policy, tuple(able), tuple(excluded))


def _policy(name: names.Name, wish: ProviderPreferences | None, rules: Rules) -> str:
    if name.provider is not None:
        return PINNED
    if name.policy is not None:
        return name.policy
    if wish is not None and wish.sort is not None:
        return SORTS[wish.sort.by if isinstance(wish.sort, SortRule) else wish.sort]
    return rules.default_policy


def _able(
    asked: Asked,
    name: names.Name,
    snapshot: Snapshot,
    excluded: list[Excluded],
    *,
    is_only: bool,
) -> list[Offer]:
    """The model's offers that nothing speaks against; the others go to ``excluded``."""
    offers = snapshot.models.get(name.model)
    if offers is None:
        unpriced = [each for each in snapshot.unpriced if each.model == name.model]
        excluded += [Excluded(offer, Reason.UNPRICED) for offer in unpriced]
        if is_only and not unpriced:
            raise unknown_model(name.model, snapshot)
        return []
    if name.provider is not None:
        pinned = [offer for offer in offers if offer.provider == name.provider]
        if not pinned and is_only:
            raise unknown_provider(name.model, name.provider, offers)
        excluded += [Excluded(each, Reason.PINNED) for each in offers if each not in pinned]
        offers = tuple(pinned)
    able = []
    for offer in offers:
        against = reason_against(offer, asked)
        if against is None and name.policy == names.LOCAL and names.LOCAL not in offer.labels:
            against = Excluded(offer, Reason.NOT_LOCAL)
        if against is None:
            able.append(offer)
        else:
            excluded.append(against)
    return able


def _ordered(
    offers: list[Offer], policy: str, asked: Asked, health: Health, rules: Rules
) -> list[Offer]:
    if len(offers) == 1:
        return offers
    key = sort_key(policy, health, asked.preferred or rules.preferred)
    if key is not None:
        offers.sort(key=key)
    wish = asked.preferences
    if wish is None:
        return offers
    if wish.preferred_min_throughput is not None or wish.preferred_max_latency is not None:
        offers.sort(key=lambda offer: not _meets(offer, wish, health))
    if wish.order:
        place = {provider: at for at, provider in enumerate(wish.order)}
        offers.sort(key=lambda offer: place.get(offer.provider, len(place)))
    return offers


def _merged(
    groups: list[list[Offer]], wish: ProviderPreferences | None, health: Health
) -> list[Offer]:
    """One list over the models: each fallback model has its turn within the first attempts, so that
    one model's many providers do not use them all up."""
    if len(groups) <= 1:
        return groups[0] if groups else []
    if wish is not None and isinstance(wish.sort, SortRule) and wish.sort.partition == "none":
        merged = [offer for group in groups for offer in group]
        key = sort_key(SORTS[wish.sort.by], health, ())
        if key is not None:
            merged.sort(key=key)
        return merged
    turns = max(1, 3 - (len(groups) - 1))
    first = groups[0][:turns] + [group[0] for group in groups[1:]]
    return first + [offer for group in groups for offer in group if offer not in first]


def _own_first(
    offers: list[Offer], own_keys: Mapping[str, bool], excluded: list[Excluded]
) -> list[Offer]:
    """Offers that the payer has a key for come first; others follow only where that is asked for,
    so that a key that fails does not turn into a bill."""
    own = [offer for offer in offers if offer.provider in own_keys]
    if not own:
        return offers
    rest = [offer for offer in offers if offer.provider not in own_keys]
    if any(own_keys[offer.provider] for offer in own):
        return own + rest
    used = ", ".join(dict.fromkeys(offer.provider for offer in own))
    excluded += [
        Excluded(each, Reason.OWN_KEY, f"your own key for {used} is used") for each in rest
    ]
    return own


def _awake(
    offers: list[Offer], own_keys: Mapping[str, bool], resting: Resting, excluded: list[Excluded]
) -> list[Offer]:
    """Without the offers whose provider's keys all rest."""
    awake = []
    for offer in offers:
        rest_s = 0.0 if offer.provider in own_keys else resting.rests_for_s(offer.provider)
        if rest_s:
            excluded.append(Excluded(offer, Reason.KEYS_RESTING, f"for another {rest_s:.0f} s"))
        else:
            awake.append(offer)
    return awake


def _meets(offer: Offer, wish: ProviderPreferences, health: Health) -> bool:
    """Whether what was measured keeps to what is preferred; the unmeasured does not."""
    key = (offer.provider, offer.model)
    for percent, least in _bounds(wish.preferred_min_throughput):
        speed = health.speed_at(key, percent)
        if speed is None or speed < least:
            return False
    for percent, most_s in _bounds(wish.preferred_max_latency):
        first_ms = health.first_token_ms_at(key, percent)
        if first_ms is None or first_ms > most_s * 1000:
            return False
    return True


def _bounds(wish: float | Percentiles | None) -> list[tuple[int, float]]:
    """Percentiles and their bounds; a bare number is the median's."""
    if wish is None:
        return []
    if not isinstance(wish, Percentiles):
        return [(50, wish)]
    given = ((50, wish.p50), (75, wish.p75), (90, wish.p90), (99, wish.p99))
    return [(percent, bound) for percent, bound in given if bound is not None]
