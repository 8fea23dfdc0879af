"""What HF Inference takes for each task but chat.

Source: huggingface/huggingface_hub, ``inference/_providers/hf_inference.py`` (paths, payloads) and
``inference/_generated/types`` (parameters).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from plugins.contract import AdapterError, FailureKind, InferenceCall
from plugins.http.client import HttpRequest
from plugins.openai_compatible.tasks.media import sound_type
from plugins.queued.media import AUDIO_TYPE, base64_of
from plugins.queued.params import given
from plugins.tasks import (
    FEATURE_EXTRACTION,
    IMAGE_TO_IMAGE,
    SPEECH_TO_TEXT,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    EmbeddingRequest,
    ImageRequest,
    Media,
    Request,
    SpeechRequest,
    TranscriptionRequest,
)

_DIFFUSION = ("negative_prompt", "guidance_scale", "num_inference_steps")
HONOURS: Mapping[str, frozenset[str]] = {
    FEATURE_EXTRACTION: frozenset({"encoding_format", "input_type", "truncate"}),
    TEXT_TO_IMAGE: frozenset({*_DIFFUSION, "seed", "size", "response_format"}),
    IMAGE_TO_IMAGE: frozenset({*_DIFFUSION, "size", "response_format", "image"}),
    SPEECH_TO_TEXT: frozenset({"response_format", "timestamp_granularities", "temperature"}),
    TEXT_TO_SPEECH: frozenset({"response_format"}),
}
"""The request parameters that are sent on, for each task."""

SPEECH_FORMAT = "flac"
_TIMED = frozenset({"verbose_json", "srt", "vtt"})
_ACCEPTS = {
    FEATURE_EXTRACTION: "application/json",
    TEXT_TO_IMAGE: "image/png, image/*",
    IMAGE_TO_IMAGE: "image/png, image/*",
    SPEECH_TO_TEXT: "application/json",
    TEXT_TO_SPEECH: "audio/*",
}
_encode = msgspec.json.Encoder().encode


def path_of(model: str) -> str:
    """The model's path."""
    return f"/models/{quote(model, safe='/-._~')}"


def request_of(call: InferenceCall) -> HttpRequest:
    """What to send; media of ``call`` have their bytes. Raises AdapterError (BAD_REQUEST)."""
    request, target = call.request, path_of(call.upstream_id)
    headers = [("accept", _ACCEPTS[request.task])]
    if call.api_key:
        headers.append(("authorization", f"Bearer {call.api_key}"))
    if isinstance(request, EmbeddingRequest):
        # Models of this task often have another one too, so it is in the path.
        target += f"/pipeline/{FEATURE_EXTRACTION}"
    if isinstance(request, TranscriptionRequest) and not _listening(request):
        headers.append(("content-type", _sound_type(request.file)))
        return HttpRequest(target=target, headers=tuple(headers), body=request.file.data or b"")
    headers.append(("content-type", "application/json"))
    return HttpRequest(target=target, headers=tuple(headers), body=_encode(_payload(request)))


def _payload(request: Request) -> dict[str, Any]:
    if isinstance(request, EmbeddingRequest):
        return _embedding(request)
    if isinstance(request, ImageRequest):
        return _image(request)
    if isinstance(request, SpeechRequest):
        if request.response_format not in (None, msgspec.UNSET, SPEECH_FORMAT):
            raise _refused("response_format", f"response_format: expected {SPEECH_FORMAT}")
        return {"inputs": request.input}
    if isinstance(request, TranscriptionRequest):
        return {"inputs": base64_of(request.file), "parameters": _listening(request)}
    raise AdapterError(FailureKind.NOT_FOUND, "this provider does not serve this task")


def _embedding(request: EmbeddingRequest) -> dict[str, Any]:
    """Parameters stand beside the inputs here."""
    texts = request.texts()
    if len(texts) != (1 if isinstance(request.input, str) else len(request.input)):
        raise _refused("input", "input: this provider takes texts, not tokens")
    body: dict[str, Any] = {"inputs": texts, **given(request, "truncate")}
    if isinstance(request.input_type, str):
        body["prompt_name"] = request.input_type
    return body


def _image(request: ImageRequest) -> dict[str, Any]:
    if request.answers() > 1:
        raise _refused("n", "n: this provider makes one picture per request")
    parameters = given(request, *_DIFFUSION, "seed")
    pixels = request.pixels()
    size = {} if pixels is None else {"width": pixels[0], "height": pixels[1]}
    if not isinstance(request.image, list) or not request.image:
        parameters |= size
        body: dict[str, Any] = {"inputs": request.prompt}
        return {**body, "parameters": parameters} if parameters else body
    if len(request.image) > 1:
        raise _refused("image", "image: this provider starts from one picture")
    if isinstance(request.mask, Media):
        raise _refused("mask", "mask: this provider takes none")
    parameters["prompt"] = request.prompt
    if size:
        parameters["target_size"] = size
    return {"inputs": base64_of(request.image[0]), "parameters": parameters}


def _listening(request: TranscriptionRequest) -> dict[str, Any]:
    """The parameters of a transcription; none where the sound alone says all."""
    parameters: dict[str, Any] = {}
    levels = request.timestamp_granularities
    if isinstance(levels, list) and "word" in levels:
        if "segment" in levels:
            raise _refused(
                "timestamp_granularities",
                "timestamp_granularities: this provider gives words or segments, not both",
            )
        parameters["return_timestamps"] = "word"
    elif request.response_format in _TIMED or levels:
        parameters["return_timestamps"] = True
    if isinstance(request.temperature, int | float):
        parameters["generation_parameters"] = {"temperature": request.temperature}
    return parameters


def _sound_type(sound: Media) -> str:
    told = sound.media_type
    return told if told.startswith("audio/") else sound_type(sound.data or b"") or AUDIO_TYPE


def _refused(param: str, message: str) -> AdapterError:
    return AdapterError(FailureKind.BAD_REQUEST, message, param=param)
