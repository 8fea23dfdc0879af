"""Where OpenAI-compatible providers differ in the tasks beyond chat: one row per provider.

What a row does not say is as in OpenAI's API (openai/openai-openapi). Sources: huggingface_hub's
``inference/_providers`` (Together, Nebius, Hyperbolic, Nscale, DeepInfra, Scaleway, Novita, Z.ai),
vercel/ai's image models (Together, DeepInfra, Fireworks), together-py's request types, and the API
references of Nebius, Mistral, Groq and xAI.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from plugins.tasks import (
    FEATURE_EXTRACTION,
    IMAGE_TO_IMAGE,
    SPEECH_TO_TEXT,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    TEXT_TO_VIDEO,
)

_NONE: Mapping[str, str] = MappingProxyType({})
_OPENAI_FORMATS: Mapping[str, str] = MappingProxyType({"url": "url", "b64_json": "b64_json"})


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """How pictures are asked for.

    ``target`` may hold ``{model}``; the name then stays out of the body. ``pixels`` sends width and
    height for ``size``, ``pixels_default`` where the caller gives none. ``renames`` are of the
    body's fields, the model's included. ``format_names`` are the provider's names for
    ``response_format``; without ``url`` or ``b64_json`` in it, that one is not asked for.
    ``format_default`` is asked for where the caller does not say.
    ``edits`` is how pictures are sent: as a form to ``edits_target``, or in the JSON of ``target``.
    """

    target: str = "/images/generations"
    pixels: bool = False
    pixels_default: tuple[int, int] | None = None
    renames: Mapping[str, str] = _NONE
    format_names: Mapping[str, str] = _OPENAI_FORMATS
    format_default: str | None = None
    output_format_names: Mapping[str, str] = _NONE
    edits: Literal["form", "json", "none"] = "form"
    edits_target: str = "/images/edits"
    params: frozenset[str] | None = None


class Videos(msgspec.Struct, frozen=True, kw_only=True):
    """How videos are asked for. ``target`` is a path behind the base URL, or a whole URL on the
    provider's host. ``once``: the answer has the video's URL, without a job to ask after.
    """

    target: str = "/videos"
    form: bool = True
    once: bool = False
    pixels: bool = False
    renames: Mapping[str, str] = _NONE
    params: frozenset[str] | None = None


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's ways.

    ``embeddings_base64``: vectors may be asked for as base64, which is a quarter of the bytes.
    ``transcripts_verbose``: ``verbose_json`` is always asked for, since it alone says how long the
    sound is, by which the provider bills.
    """

    embeddings_target: str = "/embeddings"
    embeddings_base64: bool = False
    embeddings_renames: Mapping[str, str] = _NONE
    embeddings_params: frozenset[str] | None = None
    images: Images = Images()
    speech_target: str = "/audio/speech"
    speech_params: frozenset[str] | None = None
    transcriptions_target: str = "/audio/transcriptions"
    transcripts_verbose: bool = False
    videos: Videos = Videos()


def supported_params(dialect: Dialect, tasks: tuple[str, ...]) -> frozenset[str] | None:
    """For an offer of these tasks: the parameters that are honoured; None where all are passed on.

    An offer with several tasks honours what all of them do; tasks of which nothing is known set no
    bound.
    """
    known = [params for task in tasks if (params := _params_of(dialect, task)) is not None]
    return frozenset.intersection(*known) if known else None


def _params_of(dialect: Dialect, task: str) -> frozenset[str] | None:
    if task == FEATURE_EXTRACTION:
        return dialect.embeddings_params
    if task in (TEXT_TO_IMAGE, IMAGE_TO_IMAGE):
        return dialect.images.params
    if task == TEXT_TO_VIDEO:
        return dialect.videos.params
    if task == TEXT_TO_SPEECH:
        return dialect.speech_params
    return _TRANSCRIPTION if task == SPEECH_TO_TEXT else None


_TRANSCRIPTION = frozenset(
    {"language", "prompt", "response_format", "temperature", "timestamp_granularities", "user"}
)
_EMBEDDING = frozenset({"dimensions", "encoding_format", "user"})
_SPEECH = frozenset({"voice", "instructions", "response_format", "speed", "user"})
_OPENAI_IMAGE = frozenset(
    {
        "n",
        "size",
        "quality",
        "style",
        "background",
        "moderation",
        "output_format",
        "output_compression",
        "response_format",
        "input_fidelity",
        "image",
        "mask",
        "user",
    }
)
_DIFFUSION = frozenset(
    {"size", "seed", "negative_prompt", "guidance_scale", "num_inference_steps", "response_format"}
)
_OPENAI_VIDEO = frozenset({"seconds", "size", "input_reference", "user"})

OPENAI = Dialect(
    embeddings_base64=True,
    embeddings_params=_EMBEDDING,
    images=Images(params=_OPENAI_IMAGE),
    speech_params=_SPEECH,
    videos=Videos(params=_OPENAI_VIDEO),
)
_OWN_SERVER = Dialect(embeddings_base64=True)

TOGETHER = Dialect(
    images=Images(
        pixels=True,
        renames={"num_inference_steps": "steps"},
        format_names={"url": "url", "b64_json": "base64"},
        format_default="base64",
        edits="json",
        params=_DIFFUSION | {"n", "output_format", "image"},
    ),
    # Videos are under /v2, beside the base URL's /v1.
    videos=Videos(
        target="https://api.together.xyz/v2/videos",
        form=False,
        pixels=True,
        renames={"num_inference_steps": "steps"},
        params=frozenset(
            {
                "seconds",
                "size",
                "seed",
                "negative_prompt",
                "guidance_scale",
                "num_inference_steps",
                "input_reference",
            }
        ),
    ),
)

NEBIUS = Dialect(
    images=Images(
        pixels=True,
        renames={"output_format": "response_extension"},
        output_format_names={"jpeg": "jpg"},
        format_default="b64_json",
        edits="none",
        params=_DIFFUSION | {"output_format"},
    )
)

HYPERBOLIC = Dialect(
    images=Images(
        target="/image/generation",
        pixels=True,
        pixels_default=(512, 512),  # required there
        renames={
            "model": "model_name",
            "num_inference_steps": "steps",
            "guidance_scale": "cfg_scale",
        },
        format_names={},
        edits="none",
        params=_DIFFUSION,
    )
)

NSCALE = Dialect(
    images=Images(
        format_default="b64_json",
        edits="none",
        params=frozenset({"n", "size", "response_format", "user"}),
    )
)

DEEPINFRA = Dialect(
    images=Images(params=frozenset({"n", "size", "response_format", "image", "mask", "user"})),
    transcripts_verbose=True,
)

FIREWORKS = Dialect(
    images=Images(
        # Each model has a route of its own, and answers with the picture itself.
        target="/workflows/{model}/text_to_image",
        pixels=True,
        format_names={},
        edits="none",
        params=_DIFFUSION,
    )
)

NOVITA = Dialect(
    videos=Videos(
        target="https://api.novita.ai/v3/hf/{model}",
        form=False,
        once=True,
        pixels=True,
        params=frozenset({"size", "seed", "negative_prompt", "guidance_scale"})
        | {"num_inference_steps", "num_frames"},
    )
)

GROQ = Dialect(speech_params=_SPEECH, transcripts_verbose=True)
MISTRAL = Dialect(
    embeddings_renames={"dimensions": "output_dimension"}, embeddings_params=_EMBEDDING
)
XAI = Dialect(images=Images(edits="none", params=frozenset({"n", "response_format", "user"})))
PLAIN = Dialect()

DIALECTS: Mapping[str, Dialect] = {
    "openai": OPENAI,
    "azure_openai": OPENAI,
    "turnpike": Dialect(embeddings_base64=True),
    "vllm": _OWN_SERVER,
    "sglang": _OWN_SERVER,
    "together": TOGETHER,
    "nebius": NEBIUS,
    "hyperbolic": HYPERBOLIC,
    "nscale": NSCALE,
    "deepinfra": DEEPINFRA,
    "fireworks": FIREWORKS,
    "novita": NOVITA,
    "groq": GROQ,
    "mistral": MISTRAL,
    "xai": XAI,
}
"""By the plugin's name; a provider that is not here is ``PLAIN``."""


def dialect_of(plugin: str) -> Dialect:
    """The row of a plugin, whose names may have hyphens or ``_ai`` in them."""
    name = plugin.replace("-", "_")
    return DIALECTS.get(name) or DIALECTS.get(name.removesuffix("_ai")) or PLAIN
