"""fal's queue, and its synchronous host.

Facts: fal's Inference API reference (queue: submit, status, result, cancel; their URLs are to be
taken from the reply; ``x-fal-request-timeout``), its pages on model errors (a ``detail`` list with
``type``) and request errors (``error_type``), fal-ai/fal ``fal_client``, and
huggingface/huggingface_hub ``_providers/fal_ai.py`` (names of inputs, forms of outputs).
"""

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from plugins.contract import AdapterError, FailureKind, InferenceCall, Usage
from plugins.fal.results import answer_of
from plugins.http.client import HttpRequest
from plugins.http.failures import DECODE_ERRORS
from plugins.queued import refusals
from plugins.queued.measures import NULL, ns_of_seconds
from plugins.queued.media import AUDIO_TYPE, IMAGE_TYPE, data_url
from plugins.queued.params import given
from plugins.queued.work import Answer, Further, Pending, Progress, Reply, Ticket, checked_id, place
from plugins.tasks import (
    IMAGE_TO_IMAGE,
    SPEECH_TO_TEXT,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    TEXT_TO_VIDEO,
    ImageRequest,
    Media,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)

_TIMEOUT_S_MIN = 2  # fal_client: more than one second
_AS_GIVEN = ("negative_prompt", "guidance_scale", "num_inference_steps", "seed")
_IMAGE = frozenset({*_AS_GIVEN, "n", "size", "output_format", "response_format"})
_FIELDS = {
    "prompt": "prompt",
    "text": "input",
    "image_size": "size",
    "num_images": "n",
    "image_url": "image",
    "image_urls": "image",
    "mask_url": "mask",
    "audio_url": "file",
    "duration": "seconds",
    **{
        name: name
        for name in (*_AS_GIVEN, "strength", "voice", "speed", "language", "output_format")
    },
}
_KINDS = {
    "request_timeout": (FailureKind.TIMEOUT, "the provider ran out of time"),
    "startup_timeout": (FailureKind.TIMEOUT, "the provider ran out of time"),
    "runner_scheduling_failure": (FailureKind.OVERLOADED, "the provider is overloaded"),
}


class _Metrics(msgspec.Struct):
    inference_time: Raw = NULL


class _Status(msgspec.Struct):
    status: str
    request_id: str | None = None
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None
    metrics: Raw = NULL


class _Error(msgspec.Struct):
    detail: Any = None
    error_type: str | None = None


_status = msgspec.json.Decoder(_Status)
_metrics = msgspec.json.Decoder(_Metrics | None)
_error = msgspec.json.Decoder(_Error)
_encoder = msgspec.json.Encoder()


class FalWire:
    """``upstream_id`` is the endpoint's id with its path, such as ``fal-ai/flux/dev``.

    ``direct`` speaks to the synchronous host: the reply to the submission is the result.
    """

    title = "fal"
    honours: Mapping[str, frozenset[str]] = {
        TEXT_TO_IMAGE: _IMAGE,
        IMAGE_TO_IMAGE: _IMAGE | {"image", "mask", "strength"},
        TEXT_TO_VIDEO: frozenset({*_AS_GIVEN, "num_frames", "seconds"}),
        TEXT_TO_SPEECH: frozenset({"voice", "speed"}),
        SPEECH_TO_TEXT: frozenset(
            {"language", "prompt", "response_format", "timestamp_granularities"}
        ),
    }

    def __init__(self, *, direct: bool) -> None:
        self._direct = direct

    def submission(self, call: InferenceCall) -> HttpRequest:
        """The provider gives up by itself what has not begun by the call's deadline."""
        timeout_s = max(_TIMEOUT_S_MIN, math.ceil(call.deadline_s))
        return HttpRequest(
            target="/" + quote(call.upstream_id, safe="/"),
            headers=(
                *_authorization(call.api_key),
                ("content-type", "application/json"),
                ("x-fal-request-timeout", str(timeout_s)),
            ),
            body=_encoder.encode(_input(call)),
        )

    def accepted(self, reply: Reply, call: InferenceCall) -> Ticket:
        """The queue's receipt, or the result itself."""
        headers = _authorization(call.api_key)
        if self._direct:
            known = reply.header("x-fal-request-id") or ""
            progress = answer_of(reply, call, Usage())
            return Ticket(known[:128], HttpRequest(target="/"), lambda _: Pending(), None, progress)
        receipt: _Status = refusals.decoded(_status, reply, call.api_key)
        known = checked_id(receipt.request_id)
        usual = f"/{_app(call.upstream_id)}/requests/{known}"
        ask = HttpRequest(
            method="GET", target=place(receipt.status_url, f"{usual}/status"), headers=headers
        )
        result = HttpRequest(
            method="GET", target=place(receipt.response_url, usual), headers=headers
        )
        cancel = HttpRequest(
            method="PUT", target=place(receipt.cancel_url, f"{usual}/cancel"), headers=headers
        )

        def read(later: Reply) -> Progress:
            found: _Status = refusals.decoded(_status, later, call.api_key)
            return _progress(found, result, call)

        return Ticket(known, ask, read, cancel, _progress(receipt, result, call))

    def refusal(self, reply: Reply, key: str | None) -> AdapterError:
        """Model errors are lists; request errors have an ``error_type``, in a header too."""
        if reply.status in (400, 422):
            found = refusals.of_validation(reply, key, _FIELDS)
            if found is not None:
                return found
        error = refusals.plain(reply, key)
        try:
            said = _error.decode(reply.body)
        except DECODE_ERRORS:
            said = _Error()
        kind = _KINDS.get(said.error_type or reply.header("x-fal-error-type") or "")
        if kind is not None:
            error.kind, error.message = kind
        elif reply.status == 403 and isinstance(said.detail, str) and _is_empty(said.detail):
            error.kind = FailureKind.NO_CREDIT
            error.message = "the appliance's account at the provider has no credit"
        return error


def _authorization(key: str | None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Key {key}"),) if key else ()


def _is_empty(words: str) -> bool:
    return "exhausted balance" in words.lower()


def _app(endpoint: str) -> str:
    """Owner and app of an endpoint's id: what the URLs of its requests begin with."""
    return quote("/".join(endpoint.split("/")[:2]), safe="/")


def _progress(found: _Status, result: HttpRequest, call: InferenceCall) -> Progress:
    if found.status != "COMPLETED":
        if found.status in ("FAILED", "CANCELED", "CANCELLED"):
            return refusals.ended(found.status)
        return Pending(running=found.status == "IN_PROGRESS")
    try:
        metrics = _metrics.decode(found.metrics) or _Metrics()
    except DECODE_ERRORS:
        metrics = _Metrics()
    usage = Usage(compute_ns=ns_of_seconds(metrics.inference_time))

    def read(reply: Reply) -> Answer | AdapterError:
        return answer_of(reply, call, usage)

    return Further(result, read, _is_outcome)


def _is_outcome(reply: Reply) -> bool:
    """A model's errors are the caller's or a list; those of the queue's own have a type."""
    if reply.status in (400, 422) or reply.header("x-fal-error-type"):
        return True
    try:
        said = _error.decode(reply.body)
    except DECODE_ERRORS:
        return False
    return bool(said.error_type) or isinstance(said.detail, list)


def _input(call: InferenceCall) -> dict[str, Any]:
    request = call.request
    if isinstance(request, ImageRequest):
        return _image_input(request)
    if isinstance(request, VideoRequest):
        found = {"prompt": request.prompt, **given(request, *_AS_GIVEN, "num_frames")}
        if isinstance(request.seconds, str):
            # Endpoints take a number or one of a list of strings; both read a string.
            found["duration"] = request.seconds
        return found
    if isinstance(request, SpeechRequest):
        return {"text": request.input, **given(request, "voice", "speed")}
    if isinstance(request, TranscriptionRequest):
        found = {"audio_url": data_url(request.file, AUDIO_TYPE)}
        found |= given(request, "language", "prompt")
        level = chunk_level(request)
        return found if level is None else {**found, "chunk_level": level}
    raise AdapterError(FailureKind.NOT_FOUND, "fal is not asked for this task")


def chunk_level(request: TranscriptionRequest) -> str | None:
    """Fal's whisper tells words or segments apart, not both in one answer."""
    levels = request.timestamp_granularities
    if not isinstance(levels, list) or not levels:
        return None
    if len(set(levels)) > 1:
        raise AdapterError(
            FailureKind.BAD_REQUEST,
            "timestamp_granularities: this provider tells words or segments apart, not both",
            param="timestamp_granularities",
        )
    return levels[0]


def _image_input(request: ImageRequest) -> dict[str, Any]:
    found: dict[str, Any] = {"prompt": request.prompt}
    found |= given(request, *_AS_GIVEN, "output_format")
    if isinstance(request.image, list) and request.image:
        pictures = [data_url(each, IMAGE_TYPE) for each in request.image]
        # Endpoints read one or the other.
        found |= {"image_url": pictures[0], "image_urls": pictures}
        found |= given(request, "strength")
        if isinstance(request.mask, Media):
            found["mask_url"] = data_url(request.mask, IMAGE_TYPE)
    pixels = request.pixels()
    if pixels is not None:
        found["image_size"] = {"width": pixels[0], "height": pixels[1]}
    if request.answers() > 1:
        found["num_images"] = request.answers()
    return found
