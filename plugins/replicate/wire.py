"""Replicate's predictions.

Facts: Replicate's HTTP API reference and the prediction life cycle (statuses, ``Prefer: wait``,
``Cancel-After``), replicate/replicate-python (``prediction.py``, recorded replies, RFC 7807),
huggingface/huggingface_hub ``_providers/replicate.py`` (names of inputs, forms of outputs), cog's
billing metrics (``video_output_duration_seconds``).
"""

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from plugins.contract import AdapterError, FailureKind, InferenceCall, Usage
from plugins.http.client import HttpRequest
from plugins.http.failures import DECODE_ERRORS, RETRY_AFTER_S_MAX
from plugins.queued import refusals
from plugins.queued.measures import NULL, ms_of_seconds, ns_of_seconds
from plugins.queued.media import AUDIO_TYPE, IMAGE_TYPE, data_url, result
from plugins.queued.params import given
from plugins.queued.transcripts import heard_ms, transcript
from plugins.queued.work import (
    Answer,
    Pending,
    Progress,
    Reply,
    Ticket,
    checked_id,
    place,
    unreadable,
)
from plugins.tasks import (
    IMAGE_TO_IMAGE,
    SPEECH_TO_TEXT,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    TEXT_TO_VIDEO,
    ImageRequest,
    Images,
    Media,
    Speech,
    SpeechRequest,
    TranscriptionRequest,
    Video,
    VideoRequest,
)

# Until then the provider holds the reply back for a result. It could be 60 s, but work can only be
# cancelled once its id is known.
WAIT_S_MAX = 5
_CANCEL_AFTER_S_MIN = 5
_AS_GIVEN = ("negative_prompt", "guidance_scale", "num_inference_steps", "seed")
_IMAGE = frozenset({*_AS_GIVEN, "n", "size", "output_format", "output_compression"})
_NO_VERSION = "Invalid version or not permitted"
_RESETS_IN = re.compile(r"resets in ~?(\d{1,4})s")


class _Metrics(msgspec.Struct):
    predict_time: Raw = NULL
    video_output_duration_seconds: Raw = NULL


class _Urls(msgspec.Struct):
    get: str | None = None
    cancel: str | None = None


class _Prediction(msgspec.Struct):
    status: str
    id: str | None = None
    output: Raw = NULL
    error: Any = None
    metrics: Raw = NULL
    urls: _Urls | None = None


class _Whisper(msgspec.Struct):
    transcription: str | None = None
    translation: str | None = None
    text: str | None = None
    txt_file: str | None = None
    detected_language: str | None = None
    segments: Raw = NULL
    chunks: Raw = NULL


class _Problem(msgspec.Struct):
    title: Any = None
    detail: Any = None
    retry_after: Any = None


_prediction = msgspec.json.Decoder(_Prediction)
_metrics = msgspec.json.Decoder(_Metrics | None)
_whisper = msgspec.json.Decoder(_Whisper)
_problem = msgspec.json.Decoder(_Problem)
_anything = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


class ReplicateWire:
    """``upstream_id`` is ``owner/name``, or ``owner/name:version`` for models that are not kept
    warm by Replicate itself."""

    title = "Replicate"
    honours: Mapping[str, frozenset[str]] = {
        TEXT_TO_IMAGE: _IMAGE | {"response_format"},
        IMAGE_TO_IMAGE: _IMAGE | {"response_format", "image", "mask", "strength"},
        TEXT_TO_VIDEO: frozenset({*_AS_GIVEN, "num_frames", "seconds"}),
        TEXT_TO_SPEECH: frozenset({"voice", "speed"}),
        SPEECH_TO_TEXT: frozenset({"language", "prompt", "temperature", "response_format"}),
    }

    def submission(self, call: InferenceCall) -> HttpRequest:
        """``Cancel-After`` ends at the provider what nobody here can cancel any more."""
        model, _, version = call.upstream_id.partition(":")
        payload: dict[str, Any] = {"input": _input(call)}
        target = f"/v1/models/{quote(model, safe='/')}/predictions"
        if version:
            payload["version"], target = version, "/v1/predictions"
        wait_s = max(1, min(WAIT_S_MAX, int(call.deadline_s / 2), int(call.first_event_s / 2)))
        lifetime_s = max(_CANCEL_AFTER_S_MIN, math.ceil(call.deadline_s))
        headers = (
            *_authorization(call.api_key),
            ("content-type", "application/json"),
            ("prefer", f"wait={wait_s}"),
            ("cancel-after", f"{lifetime_s}s"),
        )
        return HttpRequest(target=target, headers=headers, body=_encoder.encode(payload))

    def accepted(self, reply: Reply, call: InferenceCall) -> Ticket:
        """A prediction, which may have ended already."""
        prediction: _Prediction = refusals.decoded(_prediction, reply, call.api_key)
        known = checked_id(prediction.id)
        urls = prediction.urls or _Urls()
        headers = _authorization(call.api_key)
        ask = HttpRequest(
            method="GET", target=place(urls.get, f"/v1/predictions/{known}"), headers=headers
        )
        cancel = HttpRequest(
            target=place(urls.cancel, f"/v1/predictions/{known}/cancel"), headers=headers
        )

        def read(later: Reply) -> Progress:
            found: _Prediction = refusals.decoded(_prediction, later, call.api_key)
            if found.id != known:
                raise unreadable("a reply about other work")
            return _progress(found, call)

        return Ticket(known, ask, read, cancel, _progress(prediction, call))

    def refusal(self, reply: Reply, key: str | None) -> AdapterError:
        """Problem details (RFC 7807). A rate limit says in words how long it lasts."""
        error = refusals.plain(reply, key)
        try:
            said = _problem.decode(reply.body)
        except DECODE_ERRORS:
            return error
        if error.kind is FailureKind.RATE_LIMITED and error.retry_after_s is None:
            error.retry_after_s = _wait_s(said)
        if (
            error.kind is FailureKind.BAD_REQUEST
            and said.title == "Invalid version or not permitted"
        ):
            return AdapterError(
                FailureKind.NOT_FOUND,
                "the provider does not know the model",
                detail=error.detail,
                status=reply.status,
            )
        return error


def _authorization(key: str | None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),) if key else ()


def _wait_s(said: _Problem) -> float | None:
    told = said.retry_after
    if isinstance(told, int | float) and 0 <= told < math.inf:
        return min(float(told), RETRY_AFTER_S_MAX)
    found = _RESETS_IN.search(said.detail) if isinstance(said.detail, str) else None
    return None if found is None else min(float(found[1]), RETRY_AFTER_S_MAX)


def _input(call: InferenceCall) -> dict[str, Any]:
    request = call.request
    if isinstance(request, ImageRequest):
        return _image_input(request)
    if isinstance(request, VideoRequest):
        found = {"prompt": request.prompt, **given(request, *_AS_GIVEN, "num_frames")}
        if isinstance(request.seconds, str):
            found["duration"] = int(request.seconds)
        return found
    if isinstance(request, SpeechRequest):
        return {"text": request.input, **given(request, "voice", "speed")}
    if isinstance(request, TranscriptionRequest):
        found = {"audio": data_url(request.file, AUDIO_TYPE)}
        found |= given(request, "language", "temperature")
        if isinstance(request.prompt, str):
            found["initial_prompt"] = request.prompt
        return found
    raise AdapterError(FailureKind.NOT_FOUND, "Replicate is not asked for this task")


def _image_input(request: ImageRequest) -> dict[str, Any]:
    found: dict[str, Any] = {"prompt": request.prompt, **given(request, *_AS_GIVEN)}
    if isinstance(request.image, list) and request.image:
        pictures = [data_url(each, IMAGE_TYPE) for each in request.image]
        # Models differ in the name of this input, and ignore those that they do not know.
        found |= {"image": pictures[0], "images": pictures}
        found |= {"input_image": pictures[0], "input_images": pictures}
        found |= given(request, "strength")
        if isinstance(request.mask, Media):
            found["mask"] = data_url(request.mask, IMAGE_TYPE)
    pixels = request.pixels()
    if pixels is not None:
        found["width"], found["height"] = pixels
    if request.answers() > 1:
        found["num_outputs"] = request.answers()
    if isinstance(request.output_format, str):
        found["output_format"] = {"jpeg": "jpg"}.get(request.output_format, request.output_format)
    if isinstance(request.output_compression, int):
        found["output_quality"] = request.output_compression
    return found


def _progress(prediction: _Prediction, call: InferenceCall) -> Progress:
    status = prediction.status
    if status == "succeeded":
        return _answer(prediction, call)
    usage = _usage(prediction)
    if status == "failed":
        return refusals.failed(prediction.error, call.api_key, usage)
    if status in ("canceled", "aborted"):
        return refusals.ended(status, usage)
    return Pending(running=status == "processing")


def _usage(prediction: _Prediction) -> Usage:
    metrics = _read_metrics(prediction.metrics)
    return Usage(compute_ns=ns_of_seconds(metrics.predict_time))


def _read_metrics(raw: Raw) -> _Metrics:
    try:
        return _metrics.decode(raw) or _Metrics()
    except DECODE_ERRORS:
        return _Metrics()


def _answer(prediction: _Prediction, call: InferenceCall) -> Answer | AdapterError:
    request, usage = call.request, _usage(prediction)
    if isinstance(request, TranscriptionRequest):
        return _transcribed(prediction.output, usage)
    found = _outputs(prediction.output)
    if not found:
        return refusals.failed("it succeeded without an output", call.api_key, usage)
    if isinstance(request, ImageRequest):
        pictures = [result(each) for each in found[: request.answers()]]
        usage = msgspec.structs.replace(usage, images=len(pictures))
        return Answer(Images(images=pictures), usage)
    if isinstance(request, SpeechRequest):
        usage = msgspec.structs.replace(usage, characters=len(request.input))
        return Answer(Speech(audio=result(found[0])), usage)
    length_ms = ms_of_seconds(_read_metrics(prediction.metrics).video_output_duration_seconds)
    if not length_ms and isinstance(request, VideoRequest) and isinstance(request.seconds, str):
        length_ms = int(request.seconds) * 1000
    usage = msgspec.structs.replace(usage, video_ms=length_ms)
    return Answer(Video(video=result(found[0])), usage)


def _outputs(raw: Raw) -> list[Any]:
    """URLs or data URLs: one, or a list of them."""
    try:
        found = _anything.decode(raw)
    except DECODE_ERRORS as error:
        raise unreadable(error) from error
    if isinstance(found, list):
        return found
    return [] if found is None else [found]


def _transcribed(raw: Raw, usage: Usage) -> Answer:
    """Text, whole or in pieces; or one of the forms of whisper."""
    found = _outputs(raw)
    if found and all(isinstance(piece, str) for piece in found):
        return Answer(transcript("".join(found)), usage)
    first = found[0] if found else None
    try:
        told = _whisper.decode(_encoder.encode(first))
    except DECODE_ERRORS as error:
        raise unreadable(error) from error
    text = told.translation or told.transcription or told.text or ""
    parts = told.chunks if len(told.segments) <= len(NULL) else told.segments
    output = transcript(text, parts, language=told.detected_language)
    usage = msgspec.structs.replace(usage, audio_ms=heard_ms(output))
    silent = told.transcription is None and told.text is None and told.translation is None
    if not output.text and silent and not told.txt_file:
        raise unreadable("a transcript without text")
    return Answer(output, usage, text_url="" if output.text or not silent else told.txt_file or "")
