"""What a caller is told when nobody can serve a request: what was left out, why, and what would
work. ``availability`` says the same to programs, in OpenRouter's words.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

from app.errors import (
    Availability,
    CallError,
    Constraint,
    NotFound,
    PermissionDenied,
    RateLimited,
    UnsupportedParameter,
    UpstreamFailed,
)
from app.routing.asked import Asked
from app.routing.catalog import Snapshot
from app.routing.filters import Excluded, Reason
from plugins.contract import Offer

if TYPE_CHECKING:
    from app.routing.plan import Resting

SUGGESTIONS_MAX = 5
COMPARED_MAX = 200
EXCLUDED_TOLD_MAX = 20
_PRIVACY = {Reason.CONFINED, Reason.DATA_COLLECTION, Reason.ZDR, Reason.NOT_LOCAL}
_FIELD = {
    Reason.ONLY: "provider.only",
    Reason.IGNORED: "provider.ignore",
    Reason.DATA_COLLECTION: "provider.data_collection",
    Reason.ZDR: "provider.zdr",
    Reason.QUANTIZATION: "provider.quantizations",
    Reason.MAX_PRICE: "provider.max_price",
    Reason.PARAMETER: "parameters",
    Reason.MODALITY: "messages",
    Reason.NOT_LOCAL: "model",
    Reason.PINNED: "model",
    Reason.TASK: "model",
}
_ROUTES = {
    "conversational": "/v1/chat/completions",
    "feature-extraction": "/v1/embeddings",
    "text-ranking": "/v1/rerank",
    "text-to-image": "/v1/images/generations",
    "image-to-image": "/v1/images/edits",
    "text-to-video": "/v1/videos",
    "text-to-speech": "/v1/audio/speech",
    "automatic-speech-recognition": "/v1/audio/transcriptions",
}


def unknown_model(model: str, snapshot: Snapshot) -> NotFound:
    """Nobody here has the model."""
    close = _close_to(model, snapshot)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return NotFound(
        f"The model {model!r} does not exist here.{hint} GET /v1/models lists those that do.",
        param="model",
        code="model_not_found",
        availability=Availability(
            code="model_not_found",
            retryable=False,
            requested_models=[model],
            fallback_models=close,
        ),
    )


def _close_to(model: str, snapshot: Snapshot) -> list[str]:
    """Models with a similar name. Comparing is slow, so only some of a large catalog are compared:
    those whose names begin alike."""
    known: Iterable[str] = snapshot.models
    if len(snapshot.models) > COMPARED_MAX:
        start = model.rpartition("/")[2][:4].lower()
        alike = (each for each in known if each.rpartition("/")[2].lower().startswith(start))
        known = islice(alike, COMPARED_MAX)
    return get_close_matches(model, known, SUGGESTIONS_MAX, 0.6)


def unknown_provider(model: str, provider: str, offers: Sequence[Offer]) -> NotFound:
    """The model is not served by the provider that its name asks for."""
    served_by = [offer.provider for offer in offers]
    return NotFound(
        f"The model {model!r} is not served by {provider!r}; it is served by:"
        f" {', '.join(served_by)}.",
        param="model",
        code="model_not_found",
        availability=Availability(
            code="no_endpoints",
            retryable=False,
            requested_models=[f"{model}:{provider}"],
            affected_providers=[provider],
            fallback_models=[f"{model}:{each}" for each in served_by[:SUGGESTIONS_MAX]],
        ),
    )


def no_offer(
    asked: Asked, snapshot: Snapshot, excluded: Sequence[Excluded], resting: "Resting"
) -> CallError:
    """Every offer was left out. The rule that left out the most that else could serve is named."""
    if not excluded:
        return unknown_model(asked.names[0], snapshot)
    error = _worded(asked, excluded, resting)
    error.metadata["excluded"] = [
        {
            "provider": each.offer.provider,
            "model": each.offer.model,
            "reason": str(each.reason),
            "detail": each.detail,
        }
        for each in excluded[:EXCLUDED_TOLD_MAX]
    ]
    return error


def _worded(asked: Asked, excluded: Sequence[Excluded], resting: "Resting") -> CallError:
    last = Counter(each.reason for each in excluded if each.reason is not Reason.PINNED)
    reason = last.most_common(1)[0][0] if last else Reason.PINNED
    if any(each.reason is Reason.KEYS_RESTING for each in excluded):
        return _resting(asked, excluded, resting)
    availability = _availability(asked, excluded, reason)
    told = _told(excluded)
    model = asked.names[0]
    if reason is Reason.PARAMETER:
        return _unsupported(model, excluded, availability)
    if reason is Reason.CONFINED:
        return PermissionDenied(
            f"Nobody who may be sent this request serves {model!r}: {told}. An owner of this"
            " appliance sets what a key, user or org is confined to.",
            code="confined",
            availability=availability,
        )
    if reason is Reason.UNPRICED:
        return NotFound(
            f"The model {model!r} has no price now, so nobody can call it. GET /v1/models lists"
            " those that have.",
            param="model",
            code="model_not_found",
            availability=availability,
        )
    if reason is Reason.TASK:
        return NotFound(_other_route(model, excluded), param="model", availability=availability)
    return NotFound(
        f"No provider of {model!r} fits this request: {told}. {_advice(reason)}",
        param=_FIELD.get(reason),
        code="no_provider_fits",
        availability=availability,
    )


def _told(excluded: Sequence[Excluded]) -> str:
    """``acme (max_price: …), other (ignored)``, each provider once."""
    parts = {}
    for each in excluded:
        if each.reason is not Reason.PINNED:
            why = f"{each.reason}: {each.detail}" if each.detail else str(each.reason)
            parts[each.offer.provider] = f"{each.offer.provider} ({why})"
    return ", ".join(list(parts.values())[:10])


def _advice(reason: Reason) -> str:
    field = _FIELD.get(reason)
    if reason is Reason.NOT_LOCAL:
        return "Leave ':local' out, or ask for a model that this machine serves."
    if reason is Reason.MODALITY:
        return "Send text only, or choose a model that reads what you send."
    return f"Loosen {field}, or choose another model." if field else "Choose another model."


def _availability(asked: Asked, excluded: Sequence[Excluded], reason: Reason) -> Availability:
    code = "constraint_filtered"
    if reason in _PRIVACY:
        code = "privacy_restricted"
    elif reason is Reason.TASK:
        code = "wrong_endpoint"
    elif reason in {Reason.UNPRICED, Reason.PINNED}:
        code = "no_endpoints"
    field = _FIELD.get(reason)
    details = [each.detail for each in excluded if each.reason is reason and each.detail]
    would_work = [
        f"{each.offer.model}:{each.offer.provider}"
        for each in excluded
        if each.reason is Reason.PINNED
    ]
    return Availability(
        code=code,
        retryable=False,
        requested_models=list(asked.names),
        affected_providers=list(dict.fromkeys(each.offer.provider for each in excluded)),
        excluded_by=list(dict.fromkeys(str(each.reason) for each in excluded)),
        fallback_models=would_work[:SUGGESTIONS_MAX],
        constraint=Constraint(field, details[0] if details else "") if field else None,
    )


def _unsupported(
    model: str, excluded: Sequence[Excluded], availability: Availability
) -> UnsupportedParameter:
    """Name a parameter that nobody honours, or else the first that some offer lacks."""
    by_offer = [
        set(each.detail.split(", ")) for each in excluded if each.reason is Reason.PARAMETER
    ]
    by_all = set.intersection(*by_offer)
    named = sorted(by_all) or sorted(set.union(*by_offer))
    providers = ", ".join(
        dict.fromkeys(each.offer.provider for each in excluded if each.reason is Reason.PARAMETER)
    )
    return UnsupportedParameter(
        f"{', '.join(map(repr, named))} is not supported for the model {model!r} by {providers}. "
        "Leave it out, or choose another model.",
        param="response_format" if named == ["structured_outputs"] else named[0],
        availability=availability,
    )


def _other_route(model: str, excluded: Sequence[Excluded]) -> str:
    tasks = dict.fromkeys(
        task for each in excluded if each.reason is Reason.TASK for task in each.offer.tasks
    )
    routes = " or ".join(_ROUTES[task] for task in tasks if task in _ROUTES)
    return f"The model {model!r} does not do this; it does {', '.join(tasks)}: use {routes}."


def _resting(asked: Asked, excluded: Sequence[Excluded], resting: "Resting") -> CallError:
    """All that could serve the request rests; say when the first will be back. Keys that the
    provider refuses are not the caller's to wait for."""
    providers = list(
        dict.fromkeys(
            each.offer.provider for each in excluded if each.reason is Reason.KEYS_RESTING
        )
    )
    wait_s = max(1, ceil(min(resting.rests_for_s(each) for each in providers)))
    model = asked.names[0]
    if all(resting.refused(each) for each in providers):
        return UpstreamFailed(
            f"No provider of {model!r} could answer: {', '.join(providers)} does not accept this"
            " appliance's key. Its owner has to mend that.",
            availability=Availability(
                code="temporarily_unavailable",
                retryable=True,
                retry_after=wait_s,
                requested_models=list(asked.names),
                affected_providers=providers,
                excluded_by=[str(Reason.KEYS_RESTING)],
            ),
        )
    return RateLimited(
        f"Every provider of {model!r} that could take this is rate limited at the moment:"
        f" {', '.join(providers)}. Try again in {wait_s} s.",
        retry_after_s=wait_s,
        availability=Availability(
            code="capacity_exhausted",
            retryable=True,
            retry_after=wait_s,
            requested_models=list(asked.names),
            affected_providers=providers,
            excluded_by=[str(Reason.KEYS_RESTING)],
        ),
    )
