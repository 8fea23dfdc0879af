"""What routing asks of a request and its caller. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from plugins.chat import ChatRequest
from plugins.preferences import ProviderPreferences
from plugins.tasks import CONVERSATIONAL, ImageRequest, Request, VideoRequest

BENIGN = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Parameters that do not change what is answered: an offer that cannot honour one is used without
it, and the answer says so. All others exclude the offer."""

_ANY_OFFER = frozenset({"stream", "stream_options", "max_tokens", "max_completion_tokens"})
STRUCTURED_OUTPUTS = "structured_outputs"
# A value that asks for what would happen anyway.
_AS_USUAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "store": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
    "min_tokens": (0,),
    "min_p": (0,),
    "mirostat": (0,),
    "dry_multiplier": (0,),
    "xtc_probability": (0,),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "metadata": ({},),
    "tools": ([],),
    "functions": ([],),
    "stop": ([],),
    "modalities": (["text"],),
    "response_format": ({"type": "text"}, "url"),
}
_MODALITY_OF_PART = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "video_url": "video",
    "file": "file",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request as routing sees it.

    ``names`` are the model's and those of the fallback models, as the client wrote them.
    ``params`` gives the parameters that an offer has to honour, or may drop where they are benign;
    it is asked only where an offer does not honour all. ``confined_to``: an offer must carry a
    label of each. ``preferred`` is the caller's own order of providers. ``own_keys`` are the
    providers for which whoever pays has a key, and whether paid offers may be used besides.
    """

    names: Sequence[str]
    task: str = CONVERSATIONAL
    params: Callable[[], Sequence[str]] = tuple
    modalities: frozenset[str] = frozenset()
    preferences: ProviderPreferences | None = None
    confined_to: Sequence[frozenset[str]] = ()
    preferred: Sequence[str] = ()
    own_keys: Mapping[str, bool] = {}


def names_of(request: Request) -> Sequence[str]:
    """The model's name and those of the models to fall back on, each once."""
    models = request.models
    if not models:
        return (request.model,)
    return tuple(dict.fromkeys((request.model, *models)))


def preferences_of(request: Request) -> ProviderPreferences | None:
    """The in-request routing object, where there is one."""
    found = request.provider
    return found if isinstance(found, ProviderPreferences) else None


def semantic_params(request: Request) -> list[str]:
    """Names of the parameters that were given and ask for something; ``structured_outputs`` among
    them where the answer must follow a JSON schema."""
    found = []
    for name in request.given_params():
        if name in _ANY_OFFER:
            continue
        value = getattr(request, name)
        if name in _AS_USUAL and value in _AS_USUAL[name]:
            continue
        found.append(name)
        if isinstance(value, dict) and value.get("type") == "json_schema":
            found.append(STRUCTURED_OUTPUTS)
    return _without_idle_tools(request, found)


def modalities_of(request: Request) -> frozenset[str]:
    """What the model has to read besides text."""
    if isinstance(request, ChatRequest):
        kinds = None
        for message in request.messages:
            if isinstance(message.content, list):
                kinds = kinds or set()
                for part in message.content:
                    kind = _MODALITY_OF_PART.get(part.get("type", ""))
                    if kind is not None:
                        kinds.add(kind)
        return frozenset(kinds) if kinds else frozenset()
    if isinstance(request, ImageRequest) and request.image:
        return frozenset({"image"})
    if isinstance(request, VideoRequest) and request.input_reference:
        return frozenset({"image"})
    return frozenset()


def _without_idle_tools(request: Request, params: list[str]) -> list[str]:
    """How tools are to be called does not matter where there are none."""
    if "tools" in params or not isinstance(request, ChatRequest):
        return params
    return [name for name in params if name not in {"tool_choice", "parallel_tool_calls"}]
