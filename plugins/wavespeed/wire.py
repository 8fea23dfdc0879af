"""WaveSpeed's predictions.

Facts: WaveSpeed's documentation (submit task, get result, delete task, error codes, errors and
retries, the models' own parameters), huggingface/huggingface_hub ``_providers/wavespeed.py``.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from plugins.contract import AdapterError, FailureKind, InferenceCall, Usage
from plugins.http import failures
from plugins.http.client import HttpRequest
from plugins.queued import refusals
from plugins.queued.measures import NULL, ns_of_ms
from plugins.queued.media import IMAGE_TYPE, data_url, result
from plugins.queued.params import given
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
    TEXT_TO_IMAGE,
    TEXT_TO_VIDEO,
    ImageRequest,
    Images,
    Media,
    Video,
    VideoRequest,
)

_AS_GIVEN = ("negative_prompt", "guidance_scale", "num_inference_steps", "seed")
_IMAGE = frozenset({*_AS_GIVEN, "n", "size", "output_format", "response_format"})
_MODERATED = 1200
_BAD_INPUT = frozenset({1400, 1401, 1402})
_GIVEN_UP = frozenset({"cancelled", "canceled", "timeout", "deleted"})


class _Timings(msgspec.Struct):
    inference: Raw = NULL


class _Urls(msgspec.Struct):
    get: str | None = None


class _Data(msgspec.Struct):
    id: str | None = None
    status: str = ""
    outputs: list[Any] | None = None
    urls: _Urls | None = None
    error: Any = None
    code: Any = None
    has_nsfw_contents: Any = None
    timings: Raw = NULL


class _Envelope(msgspec.Struct):
    """Every reply; ``code`` is the HTTP status once more, or an error's own."""

    data: _Data | None = None
    code: Any = None
    message: Any = None


_envelope = msgspec.json.Decoder(_Envelope)
_timings = msgspec.json.Decoder(_Timings | None)
_encoder = msgspec.json.Encoder()


class WaveSpeedWire:
    """``upstream_id`` is the model's path, such as ``wavespeed-ai/flux-dev``."""

    title = "WaveSpeed"
    honours: Mapping[str, frozenset[str]] = {
        TEXT_TO_IMAGE: _IMAGE,
        IMAGE_TO_IMAGE: _IMAGE | {"image", "mask", "strength"},
        TEXT_TO_VIDEO: frozenset({*_AS_GIVEN, "num_frames", "seconds", "size"}),
    }

    def submission(self, call: InferenceCall) -> HttpRequest:
        """Results are asked for as URLs, which are small."""
        return HttpRequest(
            target="/api/v3/" + quote(call.upstream_id, safe="/"),
            headers=(*_authorization(call.api_key), ("content-type", "application/json")),
            body=_encoder.encode(_input(call)),
        )

    def accepted(self, reply: Reply, call: InferenceCall) -> Ticket:
        """A prediction. An error may come with status 200."""
        data = _data(reply, call.api_key)
        known = checked_id(data.id)
        headers = _authorization(call.api_key)
        usual = f"/api/v3/predictions/{known}"
        told = data.urls.get if data.urls is not None else None
        ask = HttpRequest(method="GET", target=place(told, f"{usual}/result"), headers=headers)
        cancel = HttpRequest(method="DELETE", target=usual, headers=headers)

        def read(later: Reply) -> Progress:
            found = _data(later, call.api_key)
            if found.id != known:
                raise unreadable("a reply about other work")
            return _progress(found, call)

        return Ticket(known, ask, read, cancel, _progress(data, call))

    def refusal(self, reply: Reply, key: str | None) -> AdapterError:
        """An envelope's ``message``, by the HTTP status."""
        return refusals.plain(reply, key)


def _authorization(key: str | None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),) if key else ()


def _data(reply: Reply, key: str | None) -> _Data:
    found: _Envelope = refusals.decoded(_envelope, reply, key)
    if found.data is None:
        raise failures.error_in_answer({"message": found.message, "code": found.code}, key)
    return found.data


def _input(call: InferenceCall) -> dict[str, Any]:
    request = call.request
    if not isinstance(request, ImageRequest | VideoRequest):
        raise AdapterError(FailureKind.NOT_FOUND, "WaveSpeed is not asked for this task")
    found: dict[str, Any] = {"prompt": request.prompt, **given(request, *_AS_GIVEN)}
    if isinstance(request.size, str) and request.size != "auto":
        found["size"] = request.size.replace("x", "*")
    if isinstance(request, VideoRequest):
        found |= given(request, "num_frames")
        if isinstance(request.seconds, str):
            found["duration"] = int(request.seconds)
        return found
    found |= given(request, "output_format")
    if isinstance(request.image, list) and request.image:
        if len(request.image) > 1:
            raise AdapterError(
                FailureKind.BAD_REQUEST, "image: this provider takes one picture", param="image"
            )
        found["image"] = data_url(request.image[0], IMAGE_TYPE)
        found |= given(request, "strength")
        if isinstance(request.mask, Media):
            found["mask_image"] = data_url(request.mask, IMAGE_TYPE)
    if request.answers() > 1:
        found["num_images"] = request.answers()
    return found


def _progress(data: _Data, call: InferenceCall) -> Progress:
    if data.status == "completed":
        return _answer(data, call)
    if data.status == "failed":
        said = data.error if isinstance(data.error, str) else ""
        if data.code == _MODERATED:
            return refusals.moderated(said, call.api_key)
        if data.code in _BAD_INPUT:
            return refusals.bad_input(said, call.api_key)
        return refusals.failed(said, call.api_key)
    if data.status in _GIVEN_UP:
        return refusals.ended(data.status)
    return Pending(running=data.status == "processing")


def _answer(data: _Data, call: InferenceCall) -> Answer | AdapterError:
    """Outputs without those that were flagged; those cost all the same."""
    request, outputs = call.request, data.outputs or []
    usage = Usage(compute_ns=_timed_ns(data.timings))
    if not outputs:
        return refusals.failed("it completed without an output", call.api_key, usage)
    flags = data.has_nsfw_contents if isinstance(data.has_nsfw_contents, list) else []
    good = [each for n, each in enumerate(outputs) if n >= len(flags) or flags[n] is not True]
    if isinstance(request, VideoRequest):
        length_ms = int(request.seconds) * 1000 if isinstance(request.seconds, str) else 0
        usage = replace(usage, video_ms=length_ms)
    else:
        usage = replace(usage, images=min(len(outputs), request.answers()))
    if not good:
        return refusals.moderated("the result was found unsafe", call.api_key, usage)
    if isinstance(request, VideoRequest):
        return Answer(Video(video=result(good[0])), usage)
    return Answer(Images(images=[result(each) for each in good[: request.answers()]]), usage)


def _timed_ns(timings: Raw) -> int:
    try:
        found = _timings.decode(timings)
    except failures.DECODE_ERRORS:
        return 0
    return 0 if found is None else ns_of_ms(found.inference)
