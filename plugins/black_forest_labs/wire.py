"""Black Forest Labs' API.

Facts: BFL's documentation (quick start, integration guidelines: always the ``polling_url``, on a
region's host; statuses; ``cost`` in credits of a US cent), black-forest-labs/skills (``bfl-api``:
parameters, limits), huggingface/huggingface_hub up to 1.0 ``_providers/black_forest_labs.py``.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from plugins.contract import AdapterError, FailureKind, InferenceCall, Usage
from plugins.http.client import HttpRequest
from plugins.queued import refusals
from plugins.queued.measures import NULL, nano_usd_of_cents
from plugins.queued.media import base64_of, result
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
from plugins.tasks import IMAGE_TO_IMAGE, TEXT_TO_IMAGE, ImageRequest, Images

HOSTS = ("*.bfl.ai",)
"""Where results may be asked for: the region that took the work in."""
PICTURES_MAX = 8
_NAMES = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
_IMAGE = frozenset({"size", "seed", "output_format", "response_format", *_NAMES})
_FIELDS = {
    "prompt": "prompt",
    "width": "size",
    "height": "size",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "seed": "seed",
    "output_format": "output_format",
    "input_image": "image",
}
_MODERATED = frozenset({"Request Moderated", "Content Moderated"})


class _Receipt(msgspec.Struct):
    id: str | None = None
    polling_url: str | None = None
    cost: Raw = NULL


class _Sample(msgspec.Struct):
    sample: str | None = None


class _Task(msgspec.Struct):
    status: str
    id: str | None = None
    result: _Sample | None = None
    details: Any = None
    error: Any = None


_receipt = msgspec.json.Decoder(_Receipt)
_task = msgspec.json.Decoder(_Task)
_encoder = msgspec.json.Encoder()


class BlackForestLabsWire:
    """``upstream_id`` is the endpoint's name, such as ``flux-2-pro``. Work cannot be cancelled."""

    title = "Black Forest Labs"
    honours: Mapping[str, frozenset[str]] = {
        TEXT_TO_IMAGE: _IMAGE,
        IMAGE_TO_IMAGE: _IMAGE | {"image"},
    }

    def submission(self, call: InferenceCall) -> HttpRequest:
        """One picture per request: that is what an endpoint makes."""
        return HttpRequest(
            target="/v1/" + quote(call.upstream_id, safe="/"),
            headers=(*_authorization(call.api_key), ("content-type", "application/json")),
            body=_encoder.encode(_input(call)),
        )

    def accepted(self, reply: Reply, call: InferenceCall) -> Ticket:
        """The receipt, with the bill."""
        receipt: _Receipt = refusals.decoded(_receipt, reply, call.api_key)
        known = checked_id(receipt.id)
        ask = HttpRequest(
            method="GET",
            target=place(receipt.polling_url, f"/v1/get_result?id={known}"),
            headers=_authorization(call.api_key),
        )
        usage = Usage(cost_nano_usd=nano_usd_of_cents(receipt.cost))

        def read(later: Reply) -> Progress:
            found: _Task = refusals.decoded(_task, later, call.api_key)
            if found.id is not None and found.id != known:
                raise unreadable("a reply about other work")
            return _progress(found, call.api_key, usage)

        return Ticket(known, ask, read)

    def refusal(self, reply: Reply, key: str | None) -> AdapterError:
        """FastAPI's validation errors; anything else by its status."""
        found = refusals.of_validation(reply, key, _FIELDS) if reply.status == 422 else None
        return found or refusals.plain(reply, key)


def _authorization(key: str | None) -> tuple[tuple[str, str], ...]:
    return (("x-key", key),) if key else ()


def _input(call: InferenceCall) -> dict[str, Any]:
    request = call.request
    if not isinstance(request, ImageRequest):
        raise AdapterError(FailureKind.NOT_FOUND, "Black Forest Labs makes pictures only")
    if request.answers() > 1:
        raise AdapterError(
            FailureKind.BAD_REQUEST, "n: this provider makes one picture per call", param="n"
        )
    if request.output_format == "webp":
        raise AdapterError(
            FailureKind.BAD_REQUEST,
            "output_format: this provider makes png and jpeg",
            param="output_format",
        )
    found: dict[str, Any] = {"prompt": request.prompt, **given(request, "seed", "output_format")}
    found |= {_NAMES[name]: value for name, value in given(request, *_NAMES).items()}
    pixels = request.pixels()
    if pixels is not None:
        found["width"], found["height"] = pixels
    pictures = request.image if isinstance(request.image, list) else []
    if len(pictures) > PICTURES_MAX:
        raise AdapterError(
            FailureKind.BAD_REQUEST,
            f"image: this provider takes at most {PICTURES_MAX} pictures",
            param="image",
        )
    for number, picture in enumerate(pictures, 1):
        found["input_image" if number == 1 else f"input_image_{number}"] = base64_of(picture)
    return found


def _progress(found: _Task, key: str | None, usage: Usage) -> Progress:
    status = found.status
    if status == "Ready":
        sample = None if found.result is None else found.result.sample
        if not sample:
            raise unreadable("a result without a picture")
        return Answer(Images(images=[result(sample)]), replace(usage, images=1))
    if status in _MODERATED:
        return refusals.moderated(_reasons(found.details), key)
    if status in ("Error", "Failed"):
        return refusals.failed(found.error or found.details, key)
    if status == "Task not found":
        return refusals.ended(status)
    return Pending()


def _reasons(details: Any) -> str:
    reasons = details.get("Moderation Reasons") if isinstance(details, dict) else None
    if not isinstance(reasons, list):
        return ""
    return ", ".join(each for each in reasons[:8] if isinstance(each, str))
