"""How a model looks in ``GET /v1/models``: to OpenAI's and Hugging Face's clients one object with
its providers, to Anthropic's another. Pure.

Shapes: huggingface/hub-docs (inference-providers, hub-api) and Anthropic's "List Models".
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from app.api.openai.pricing import pricing
from app.routing.health import Health
from app.routing.probe_results import ProbeResult
from plugins.contract import Offer
from plugins.tasks import (
    CONVERSATIONAL,
    FEATURE_EXTRACTION,
    IMAGE_TO_IMAGE,
    SPEECH_TO_TEXT,
    TEXT_RANKING,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    TEXT_TO_VIDEO,
)

_MODALITIES = ("text", "image", "audio", "video", "file", "embedding", "scores")
_OF_TASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    CONVERSATIONAL: (("text",), ("text",)),
    FEATURE_EXTRACTION: (("text",), ("embedding",)),
    TEXT_RANKING: (("text",), ("scores",)),
    TEXT_TO_IMAGE: (("text",), ("image",)),
    IMAGE_TO_IMAGE: (("text", "image"), ("image",)),
    TEXT_TO_VIDEO: (("text",), ("video",)),
    SPEECH_TO_TEXT: (("audio",), ("text",)),
    TEXT_TO_SPEECH: (("text",), ("audio",)),
}
# Anthropic's own word for a model whose day of release is not known.
_UNKNOWN_DAY = "1970-01-01T00:00:00Z"


class ProviderEntry(msgspec.Struct, kw_only=True):
    """One provider of a model. What is not known is left out."""

    provider: str
    status: Literal["live", "error"]
    context_length: int | UnsetType = UNSET
    pricing: dict[str, float]
    is_free: bool | UnsetType = UNSET
    supports_tools: bool | UnsetType = UNSET
    supports_structured_output: bool | UnsetType = UNSET
    first_token_latency_ms: int | UnsetType = UNSET
    throughput: float | UnsetType = UNSET
    is_model_author: bool


class Architecture(msgspec.Struct):
    """What goes in and what comes out."""

    input_modalities: list[str]
    output_modalities: list[str]


class ModelObject(msgspec.Struct, kw_only=True):
    """A model as OpenAI's clients know it, with the router's additions."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    architecture: Architecture
    providers: list[ProviderEntry]


class AnthropicModel(msgspec.Struct, kw_only=True):
    """A model as Anthropic's clients know it."""

    type: str = "model"
    id: str
    display_name: str
    created_at: str = _UNKNOWN_DAY


class Probed(Protocol):
    """What probes found; ``app.routing.probe_results.ProbeResults``."""

    def of(self, key: tuple[str, str]) -> ProbeResult | None:
        """The last result of (provider, model)."""
        ...


def model_object(
    name: str, offers: Sequence[Offer], created_s: int, health: Health, probed: Probed | None
) -> ModelObject:
    """A model with all its offers."""
    owner, slash, _ = name.partition("/")
    return ModelObject(
        id=name,
        created=created_s,
        owned_by=owner if slash else offers[0].provider,
        architecture=_architecture(offers),
        providers=[provider_entry(offer, health, probed) for offer in offers],
    )


def anthropic_model(name: str) -> AnthropicModel:
    """A model by its name."""
    return AnthropicModel(id=name, display_name=name)


def is_chat(offers: Sequence[Offer]) -> bool:
    """Whether any of them converses: Anthropic's clients know nothing else."""
    return any(CONVERSATIONAL in offer.tasks for offer in offers)


def provider_entry(offer: Offer, health: Health, probed: Probed | None) -> ProviderEntry:
    """One offer, with what calls and probes measured."""
    key = (offer.provider, offer.model)
    result = None if probed is None else probed.of(key)
    figures = health.figures(key)
    failing = not health.closed(key) or (result is not None and result.status == "error")
    entry = ProviderEntry(
        provider=offer.provider,
        status="error" if failing else "live",
        pricing=pricing(offer.price),
        is_model_author=offer.is_model_author,
    )
    if offer.context_length is not None:
        entry.context_length = offer.context_length
    if offer.price.free:
        entry.is_free = True
    if figures.first_token_ms is not None:
        entry.first_token_latency_ms = round(figures.first_token_ms)
    if figures.tokens_per_second is not None:
        entry.throughput = round(figures.tokens_per_second, 2)
    if CONVERSATIONAL in offer.tasks:
        _add_abilities(entry, offer, result)
    return entry


def _add_abilities(entry: ProviderEntry, offer: Offer, result: ProbeResult | None) -> None:
    """What a probe saw wins over what the offer says of itself."""
    tools, structured = None, None
    if offer.supported_params is not None:
        tools = "tools" in offer.supported_params
        structured = "structured_outputs" in offer.supported_params
    if result is not None:
        tools = tools if result.supports_tools is None else result.supports_tools
        seen = result.supports_structured_output
        structured = structured if seen is None else seen
    if tools is not None:
        entry.supports_tools = tools
    if structured is not None:
        entry.supports_structured_output = structured


def _architecture(offers: Sequence[Offer]) -> Architecture:
    """All that some offer of the model reads, and all that some offer makes."""
    reads: set[str] = set()
    makes: set[str] = set()
    for offer in offers:
        for task in offer.tasks:
            ins, outs = _OF_TASKS.get(task, ((), ()))
            reads.update(ins if offer.input_modalities is None else offer.input_modalities)
            makes.update(outs if offer.output_modalities is None else offer.output_modalities)
    return Architecture(_ordered(reads), _ordered(makes))


def _ordered(modalities: set[str]) -> list[str]:
    known = [each for each in _MODALITIES if each in modalities]
    return known + sorted(modalities.difference(_MODALITIES))


def anthropic_page(
    names: Sequence[str], limit: int, after_id: str | None, before_id: str | None
) -> dict[str, Any]:
    """A page of Anthropic's list: behind ``after_id``, or just before ``before_id``.

    Raises ValueError for a cursor that is not in the list.
    """
    if before_id is not None:
        end = names.index(before_id)
        start = max(0, end - limit)
        has_more = start > 0
    else:
        start = 0 if after_id is None else names.index(after_id) + 1
        end = min(len(names), start + limit)
        has_more = end < len(names)
    page = names[start:end]
    return {
        "data": [anthropic_model(name) for name in page],
        "has_more": has_more,
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }
