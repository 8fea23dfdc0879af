"""How a call was served, for clients that ask (``X-Turnpike-Explain: 1``, or OpenRouter's
``X-OpenRouter-Metadata: enabled``): the plan, what it left out and why, and every attempt.

The fields are those of OpenRouter's ``openrouter_metadata``; ``excluded`` is ours.
"""

from typing import Any

import msgspec
from litestar.types import HTTPScope

from app.errors import CallError
from app.gateway.call import Call, Try
from plugins.contract import Offer

FIELD = "openrouter_metadata"
EXCLUDED_SHOWN_MAX = 50
_HEADERS = {b"x-turnpike-explain": b"1", b"x-openrouter-metadata": b"enabled"}


def is_asked(scope: HTTPScope) -> bool:
    """Whether the client wants to know."""
    return any(_HEADERS.get(name) == value for name, value in scope["headers"])


def explained(call: Call) -> dict[str, Any]:
    """What to tell of a call that was planned, at any time after."""
    route = call.route
    served = getattr(call, "offer", None)
    return {
        "requested": route.requested,
        "strategy": route.policy,
        "region": None,
        "summary": _summary(call, served),
        "attempt": call.attempts,
        "is_byok": call.byok,
        "endpoints": {
            "total": len(route.offers) + len(route.excluded),
            "available": [_endpoint(offer, served) for offer in route.offers],
        },
        "attempts": [_attempt(each) for each in call.tries],
        "pipeline": [],
        "excluded": [
            {
                "provider": each.offer.provider,
                "model": each.offer.model,
                "reason": str(each.reason),
                "detail": each.detail,
            }
            for each in route.excluded[:EXCLUDED_SHOWN_MAX]
        ],
        "dropped_params": list(call.dropped_params),
    }


def with_explanation(body: bytes, call: Call) -> bytes:
    """A JSON object with what there is to tell of the call added, where the client asked."""
    if not call.explain or not body.endswith(b"}"):
        return body
    return body[:-1] + b',"' + FIELD.encode() + b'":' + msgspec.json.encode(explained(call)) + b"}"


def explain_error(call: Call, error: CallError) -> CallError:
    """The error, with what led to it where the client asked."""
    if call.explain and hasattr(call, "route"):
        error.metadata[FIELD] = explained(call)
    return error


def _summary(call: Call, served: Offer | None) -> str:
    who = "nobody" if served is None else served.provider
    return f"available={len(call.route.offers)}, attempts={call.attempts}, selected={who}"


def _endpoint(offer: Offer, served: Offer | None) -> dict[str, Any]:
    return {
        "provider": offer.provider,
        "model": offer.model,
        "selected": offer is served,
        "labels": sorted(offer.labels),
    }


def _attempt(each: Try) -> dict[str, Any]:
    return {
        "provider": each.provider,
        "model": each.model,
        "status": each.status,
        "ms": each.ms,
        "is_byok": each.own_key,
    }
