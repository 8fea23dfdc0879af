"""Providers' listings of their models, read into entries.

Every listing is a JSON array, or an object that holds one under ``data`` or ``models``; what is in
an item differs by provider and is looked for under all names in use (see ``presets`` for whose they
are). Numbers never pass through a float. What makes no sense is treated as not said.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from plugins.chat import PARAMS
from plugins.contract import ModelEntry, Price
from plugins.openai_compatible.listed_prices import price_of
from plugins.openai_compatible.preset import COMMON, STRUCTURED_OUTPUTS, Preset, PriceForm
from plugins.tasks import (
    CONVERSATIONAL,
    FEATURE_EXTRACTION,
    SPEECH_TO_TEXT,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    TEXT_TO_VIDEO,
)

Item = dict[str, Any]
ITEMS_MAX = 20_000
NUMBER_LENGTH_MAX = 64
_ID_LENGTH_MAX = 256
_LENGTH_MAX = 100_000_000
_CONTEXT = (
    *("context_length", "context_window", "context_size", "max_model_len", "max_context_length"),
    *("max_context_window",),
)
_OUTPUT = ("max_completion_tokens", "max_output_tokens", "max_output_length")
_MODALITIES = frozenset({"text", "image", "audio", "video", "file"})
_TASKS = {
    **dict.fromkeys(("chat", "llm", "vlm", "language", "text"), CONVERSATIONAL),
    **dict.fromkeys(("embedding", "embeddings"), FEATURE_EXTRACTION),
    "image": TEXT_TO_IMAGE,
    "video": TEXT_TO_VIDEO,
    **dict.fromkeys(("audio", "tts"), TEXT_TO_SPEECH),
    **dict.fromkeys(("transcribe", "stt"), SPEECH_TO_TEXT),
}
# Where a listing does not say what a model does, as OpenAI's, its name has to.
_BY_NAME: tuple[tuple[re.Pattern[str], str | None], ...] = (
    (re.compile(r"moderation|rerank|realtime|guard|davinci-002|babbage-002|-instruct-0914"), None),
    (re.compile(r"embed|(^|/)(bge|gte|e5)-"), FEATURE_EXTRACTION),
    (re.compile(r"whisper|transcribe|voxtral-mini-.*transcri"), SPEECH_TO_TEXT),
    (re.compile(r"(^|[/-])tts($|[-:])"), TEXT_TO_SPEECH),
    (re.compile(r"dall-e|gpt-image|(^|/)flux|stable-diffusion|sdxl"), TEXT_TO_IMAGE),
    (re.compile(r"(^|/)sora"), TEXT_TO_VIDEO),
)
_TOOL_PARAMS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "functions"})
# A server that overlooks a grammar answers freely, so none is believed to know it unasked.
_ALL_PARAMS = (frozenset(PARAMS) - {"grammar"}) | {STRUCTURED_OUTPUTS}


def _number(text: str) -> Decimal | None:
    return Decimal(text) if len(text) <= NUMBER_LENGTH_MAX else None


_decoder = msgspec.json.Decoder(float_hook=_number)


def read_listing(body: bytes, preset: Preset) -> list[ModelEntry]:
    """The models that can be called, each name once. Raises ValueError for what is no listing, or
    one of more than 20,000 models."""
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if isinstance(found, dict):
        found = found.get("data", found.get("models"))
    if not isinstance(found, list):
        raise ValueError("no list of models")
    if len(found) > ITEMS_MAX:
        raise ValueError(f"more than {ITEMS_MAX} models")
    entries: dict[str, ModelEntry] = {}
    for item in found:
        entry = _entry(item, preset) if isinstance(item, dict) else None
        if entry is not None:
            entries.setdefault(entry.id, entry)
    return list(entries.values())


def _entry(item: Item, preset: Preset) -> ModelEntry | None:
    """One model; None where it cannot be called, or is nothing of ours."""
    name = item.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= _ID_LENGTH_MAX or not name.isprintable():
        return None
    listing = preset.listing
    form = listing.prices if listing is not None else PriceForm.NONE
    tasks = _tasks_of(item, name)
    if item.get("active") is False or not tasks:
        return None
    if form is PriceForm.ROUTER and isinstance(item.get("providers"), list):
        return _routed(item, name, tasks, preset)
    metadata = _object(item, "metadata")
    top = _object(item, "top_provider")
    price = Price()
    if listing is not None and form is not PriceForm.NONE:
        price = price_of(item, form, complete=listing.complete)
    return ModelEntry(
        id=name,
        upstream_id=name,
        tasks=tasks,
        price=price,
        context_length=_context_of(item, metadata, top),
        output_tokens_max=_first(
            (top, "max_completion_tokens"),
            *((item, key) for key in _OUTPUT),
            (metadata, "max_tokens"),
        ),
        supported_params=_params_of(item, preset),
        input_modalities=_modalities(item, "input_modalities"),
        output_modalities=_modalities(item, "output_modalities"),
        quantization=_short(item.get("quantization")),
    )


def _routed(item: Item, name: str, tasks: tuple[str, ...], preset: Preset) -> ModelEntry | None:
    """A model of a router, as its cheapest live provider serves it.

    It is called by the name's ``:cheapest`` form, so that the price listed here is the price of the
    call (huggingface/hub-docs: least per output token). Without any price it is called by the
    plain name, unpriced.
    """
    complete = preset.listing is not None and preset.listing.complete
    live = [each for each in _objects(item["providers"]) if each.get("status", "live") == "live"]
    if not live:
        return None
    priced = [
        (price, provider)
        for provider in live
        if (price := price_of(provider, PriceForm.ROUTER, complete=complete)) != Price()
    ]
    if priced:
        price, chosen = min(priced, key=lambda each: (each[0].output, each[0].input))
    else:
        price, chosen = Price(), live[0]
    known = preset.params
    if chosen.get("supports_tools") is False:
        known = (known or _ALL_PARAMS) - _TOOL_PARAMS
    if chosen.get("supports_structured_output") is False:
        known = (known or _ALL_PARAMS) - {STRUCTURED_OUTPUTS}
    return ModelEntry(
        id=name,
        upstream_id=f"{name}:cheapest" if priced else name,
        tasks=tasks,
        price=price,
        context_length=_context_of(chosen, {}, {}),
        supported_params=None if known is preset.params else known,
        input_modalities=_modalities(item, "input_modalities"),
        output_modalities=_modalities(item, "output_modalities"),
        is_model_author=chosen.get("is_model_author") is True,
    )


def _tasks_of(item: Item, name: str) -> tuple[str, ...]:
    """What a model does; nothing where it is none of our tasks."""
    abilities = item.get("capabilities")
    if isinstance(abilities, dict) and abilities.get("completion_chat") is True:  # Mistral
        return (CONVERSATIONAL,)
    kind = item.get("type") or item.get("model_type")
    if isinstance(kind, str) and kind not in ("model", "base", "fine-tuned"):
        task = _TASKS.get(kind.lower())
        return (task,) if task else ()
    for pattern, task in _BY_NAME:
        if pattern.search(name.lower()):
            return (task,) if task else ()
    made = _modalities(item, "output_modalities")
    return (CONVERSATIONAL,) if made is None or "text" in made else ()


def _params_of(item: Item, preset: Preset) -> frozenset[str] | None:
    """The parameters that this model honours, where the listing says so: OpenRouter's full list,
    or the features that Groq, Baseten and Novita name. None: as all of the provider's."""
    listed = item.get("supported_parameters")
    if isinstance(listed, list) and listed:
        names = frozenset(each for each in listed[:200] if isinstance(each, str))
        always = COMMON - _TOOL_PARAMS - {"response_format", "stop", "temperature", "top_p"}
        if "reasoning" in names:
            names |= {"reasoning_effort"}
        if "structured_outputs" in names:
            names |= {"response_format"}
        return (names & _ALL_PARAMS) | always | {"user", "metadata"}
    features = item.get("supported_features") or item.get("features")
    if not isinstance(features, list) or not features:
        return None
    known = preset.params or _ALL_PARAMS
    if not {"tools", "function-calling", "function_calling"} & _texts(features):
        known -= _TOOL_PARAMS
    if not {"structured_outputs", "structured-outputs", "json_schema"} & _texts(features):
        known -= {STRUCTURED_OUTPUTS}
    return known


def _modalities(item: Item, name: str) -> frozenset[str] | None:
    found = item.get(name)
    if found is None:
        found = _object(item, "architecture").get(name)
    if not isinstance(found, list):
        return None
    return _texts(found) & _MODALITIES or None


def _context_of(item: Item, metadata: Item, top: Item) -> int | None:
    meta = _object(item, "meta")
    return _first(
        (top, "context_length"),
        *((item, key) for key in _CONTEXT),
        (metadata, "context_length"),
        (meta, "n_ctx"),
        (meta, "n_ctx_train"),
    )


def _first(*places: tuple[Item, str]) -> int | None:
    """The first that holds a length in tokens that can be true."""
    for item, key in places:
        found = item.get(key)
        if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 10:
            found = int(found)
        if isinstance(found, int) and not isinstance(found, bool) and 0 < found <= _LENGTH_MAX:
            return found
    return None


def _object(item: Item, key: str) -> Item:
    found = item.get(key)
    return found if isinstance(found, dict) else {}


def _objects(found: list[Any]) -> Iterator[Item]:
    return (each for each in found[:1000] if isinstance(each, dict))


def _texts(found: list[Any]) -> frozenset[str]:
    return frozenset(each for each in found[:200] if isinstance(each, str))


def _short(found: Any) -> str | None:
    return found if isinstance(found, str) and 0 < len(found) <= 32 else None
