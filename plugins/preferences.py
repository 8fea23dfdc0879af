"""What a request may say about how it is routed: OpenRouter's in-request routing object.

Fields and meanings are those of OpenRouterTeam/docs, ``guides/routing/provider-selection``. They
are read by ``app.routing`` and taken out before the request reaches an adapter.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

ROUTING_FIELDS = frozenset({"models", "provider"})
_Names = Annotated[list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(max_length=64)]
_Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
_Usd = Annotated[float, Meta(ge=0, le=1_000_000)]
SortBy = Literal["price", "throughput", "latency"]


class Percentiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A bound for each percentile of what was measured lately; all that are given must hold."""

    p50: _Rate | None = None
    p75: _Rate | None = None
    p90: _Rate | None = None
    p99: _Rate | None = None


class SortRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``partition="none"`` sorts the offers of all fallback models together."""

    by: SortBy
    partition: Literal["model", "none"] = "model"


class PriceCeiling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The most the caller accepts: USD per million tokens, per request, per image."""

    prompt: _Usd | None = None
    completion: _Usd | None = None
    request: _Usd | None = None
    image: _Usd | None = None


class Hedge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ours: ask a second provider too where the first has said nothing for so long. The answer that
    begins first is kept and charged."""

    after_ms: Annotated[int, Meta(ge=1, le=600_000)]


class ProviderPreferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``order``: try these first, in this order. ``only``/``ignore``: nobody else/not these.
    ``allow_fallbacks``: false tries the first offer only. ``require_parameters``: providers that
    would drop any parameter are left out. ``preferred_*`` move offers that miss them behind those
    that do not; latency is in seconds to the first token, throughput in tokens per second.
    """

    order: _Names | None = None
    only: _Names | None = None
    ignore: _Names | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: Literal["allow", "deny"] | None = None
    zdr: bool | None = None
    quantizations: _Names | None = None
    sort: SortBy | SortRule | None = None
    max_price: PriceCeiling | None = None
    preferred_min_throughput: _Rate | Percentiles | None = None
    preferred_max_latency: _Rate | Percentiles | None = None
    hedge: Hedge | None = None


class Routed(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A request that may say how it is routed. ``models`` are tried when ``model`` fails."""

    models: (
        Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=16)]
        | None
        | UnsetType
    ) = UNSET
    provider: ProviderPreferences | None | UnsetType = UNSET


def given_params(request: Any, apart_from: frozenset[str]) -> list[str]:
    """Names of the fields that carry a value (not absent, not null), but for some."""
    return [
        name
        for name in request.__struct_fields__
        if name not in apart_from
        and (value := getattr(request, name)) is not UNSET
        and value is not None
    ]
