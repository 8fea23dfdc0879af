"""Why an offer cannot serve a request. Each rule is pure; the first that applies is the reason."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from app.routing.asked import BENIGN, Asked
from plugins.contract import Offer
from plugins.preferences import PriceCeiling, ProviderPreferences

NO_DATA_KEPT = frozenset({"zdr", "local"})
NO_TRAINING = NO_DATA_KEPT | {"no_training"}


class Reason(StrEnum):
    """Why an offer is left out of a plan."""

    PINNED = "pinned"  # the model's name asks for another provider
    TASK = "task"  # it does something else
    UNPRICED = "unpriced"  # nobody set a price that is in force
    CONFINED = "confined"  # the key, user or org may not send anything there
    ONLY = "only"  # provider.only does not name it
    IGNORED = "ignored"  # provider.ignore names it
    NOT_LOCAL = "not_local"  # ":local" was asked for
    DATA_COLLECTION = "data_collection"
    ZDR = "zdr"
    QUANTIZATION = "quantization"
    MAX_PRICE = "max_price"
    PARAMETER = "parameter"
    MODALITY = "modality"
    OWN_KEY = "own_key"  # the payer's own key serves the model elsewhere
    KEYS_RESTING = "keys_resting"  # every key for it was limited or refused a moment ago


class Excluded(msgspec.Struct, frozen=True):
    """An offer that is not in the plan, and why. ``detail`` is for people."""

    offer: Offer
    reason: Reason
    detail: str = ""


def reason_against(offer: Offer, asked: Asked) -> Excluded | None:
    """The first reason against an offer for the model, None where there is none."""
    if asked.task not in offer.tasks:
        return Excluded(offer, Reason.TASK, f"it does {', '.join(offer.tasks)}")
    for labels in asked.confined_to:
        if not labels & offer.labels:
            allowed = ", ".join(sorted(labels)) or "nothing"
            return Excluded(offer, Reason.CONFINED, f"confined to {allowed}")
    preferences = asked.preferences
    if preferences is not None:
        found = _against_preferences(offer, preferences)
        if found is not None:
            return found
    readable = offer.input_modalities
    if asked.modalities and readable is not None and not asked.modalities <= readable:
        lacking = ", ".join(sorted(asked.modalities - readable))
        return Excluded(offer, Reason.MODALITY, f"it does not read {lacking}")
    if offer.supported_params is not None:
        strict = preferences is not None and preferences.require_parameters is True
        lacking_params = not_honoured(offer, asked.params(), strict=strict)
        if lacking_params:
            return Excluded(offer, Reason.PARAMETER, ", ".join(lacking_params))
    return None


def not_honoured(offer: Offer, params: Sequence[str], *, strict: bool) -> list[str]:
    """The parameters that rule the offer out: semantic ones, or with ``strict`` all."""
    supported = offer.supported_params
    if supported is None:
        return []
    return [name for name in params if name not in supported and (strict or name not in BENIGN)]


def dropped(offer: Offer, params: Sequence[str]) -> list[str]:
    """The benign parameters that the offer is used without."""
    supported = offer.supported_params
    if supported is None:
        return []
    return [name for name in params if name in BENIGN and name not in supported]


def _against_preferences(offer: Offer, wish: ProviderPreferences) -> Excluded | None:
    provider = offer.provider
    if wish.only is not None and provider not in wish.only:
        return Excluded(offer, Reason.ONLY)
    if wish.ignore and provider in wish.ignore:
        return Excluded(offer, Reason.IGNORED)
    if wish.allow_fallbacks is False and wish.order and provider not in wish.order:
        return Excluded(offer, Reason.ONLY, "provider.order, without fallbacks")
    if wish.data_collection == "deny" and not offer.labels & NO_TRAINING:
        return Excluded(offer, Reason.DATA_COLLECTION, "it may keep or train on what it is sent")
    if wish.zdr and not offer.labels & NO_DATA_KEPT:
        return Excluded(offer, Reason.ZDR, "it may keep what it is sent")
    if wish.quantizations is not None and (offer.quantization or "unknown") not in (
        wish.quantizations
    ):
        return Excluded(offer, Reason.QUANTIZATION, offer.quantization or "unknown")
    if wish.max_price is not None:
        over = _over(offer, wish.max_price)
        if over:
            return Excluded(offer, Reason.MAX_PRICE, over)
    return None


def _over(offer: Offer, most: PriceCeiling) -> str:
    """Which price is above the ceiling; an empty string for none. A price per second has none of
    these units, so under any ceiling it is above it."""
    price = offer.price
    if price.free:
        return ""
    if price.compute_per_second:
        return "it is priced per second"
    for name, nano_usd, ceiling, unit_nano in (
        ("prompt", price.input, most.prompt, 1e9),
        ("completion", price.output, most.completion, 1e9),
        ("request", price.per_request, most.request, 1e9),
        ("image", price.image, most.image, 1e15),
    ):
        if ceiling is not None and nano_usd > ceiling * unit_nano:
            return f"{name} costs {nano_usd / unit_nano:g} USD"
    return ""
