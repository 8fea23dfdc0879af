"""A task's request as the provider wants it."""

from typing import Any
from urllib.parse import quote

import msgspec

from plugins.contract import AdapterError, FailureKind, Fetch, InferenceCall
from plugins.http.client import HttpRequest
from plugins.openai_compatible.tasks.dialects import Dialect, Images
from plugins.openai_compatible.tasks.forms import Field, encode_form
from plugins.openai_compatible.tasks.media import data_url, with_data
from plugins.preferences import ROUTING_FIELDS
from plugins.tasks import (
    EmbeddingRequest,
    ImageRequest,
    Media,
    SpeechRequest,
    TaskRequest,
    TranscriptionRequest,
)

Headers = tuple[tuple[str, str], ...]
_encode = msgspec.json.Encoder().encode
_JSON = ("content-type", "application/json")
_UPLOADED = frozenset({"image", "mask", "file", "input_reference"})


async def request_of(
    call: InferenceCall, dialect: Dialect, headers: Headers, fetch: Fetch
) -> HttpRequest:
    """What to send; ``headers`` are the provider's own. Reads the caller's URLs where the provider
    must have bytes. Raises AdapterError (BAD_REQUEST).
    """
    request = call.request
    if isinstance(request, EmbeddingRequest):
        return json_request(
            dialect.embeddings_target, headers, _embedding_body(request, call.upstream_id, dialect)
        )
    if isinstance(request, ImageRequest):
        return await _image_request(request, call.upstream_id, dialect.images, headers, fetch)
    if isinstance(request, SpeechRequest):
        body = {"model": call.upstream_id, "input": request.input, **given(request)}
        return json_request(dialect.speech_target, headers, body, accept="audio/*, */*")
    if isinstance(request, TranscriptionRequest):
        return await _transcription_request(request, call.upstream_id, dialect, headers, fetch)
    raise AdapterError(FailureKind.NOT_FOUND, "this provider does not serve this task")


def json_request(
    target: str, headers: Headers, body: dict[str, Any], accept: str = "application/json"
) -> HttpRequest:
    """A POST of JSON."""
    return HttpRequest(
        target=target, headers=(*headers, _JSON, ("accept", accept)), body=_encode(body)
    )


def form_request(target: str, headers: Headers, fields: list[Field]) -> HttpRequest:
    """A POST of a form with files."""
    body, kind = encode_form(fields)
    return HttpRequest(
        target=target,
        headers=(*headers, ("content-type", kind), ("accept", "application/json")),
        body=body,
    )


def given(request: TaskRequest) -> dict[str, Any]:
    """The optional parameters that carry a value, without uploads and what routing is told."""
    return {
        name: getattr(request, name)
        for name in request.given_params()
        if name not in _UPLOADED and name not in ROUTING_FIELDS
    }


def inputs_of(request: EmbeddingRequest) -> int:
    """How many vectors are asked for: a list of token numbers is one text."""
    if isinstance(request.input, str) or isinstance(request.input[0], int):
        return 1
    return len(request.input)


def with_model(target: str, model: str) -> tuple[str, bool]:
    """The target with the model's name in its place, and whether it has one."""
    named = "{model}" in target
    return target.replace("{model}", quote(model, safe="/")), named


def rename(body: dict[str, Any], renames: Any) -> dict[str, Any]:
    """The body with the provider's names for its fields."""
    return {renames.get(name, name): value for name, value in body.items()}


def size_to_pixels(body: dict[str, Any], default: tuple[int, int] | None = None) -> None:
    """Put width and height in place of ``size``, in place; ``auto`` leaves the choice to them."""
    size = body.pop("size", "auto")
    if size != "auto":
        width, _, height = size.partition("x")
        default = int(width), int(height)
    if default is not None:
        body["width"], body["height"] = default


def _embedding_body(request: EmbeddingRequest, model: str, dialect: Dialect) -> dict[str, Any]:
    body = {"model": model, "input": request.input, **given(request)}
    body.pop("encoding_format", None)  # the caller's choice is made when its answer is written
    if dialect.embeddings_base64:
        body["encoding_format"] = "base64"
    return rename(body, dialect.embeddings_renames)


async def _image_request(
    request: ImageRequest, model: str, ways: Images, headers: Headers, fetch: Fetch
) -> HttpRequest:
    body: dict[str, Any] = {"model": model, "prompt": request.prompt, **given(request)}
    target, named = with_model(ways.target, model)
    if named:
        del body["model"]
    if ways.pixels:
        size_to_pixels(body, ways.pixels_default)
    wanted = ways.format_names.get(body.pop("response_format", ""), ways.format_default)
    if wanted is not None:
        body["response_format"] = wanted
    if "output_format" in body:
        asked = body["output_format"]
        body["output_format"] = ways.output_format_names.get(asked, asked)
    pictures = request.image or []
    if not pictures:
        return json_request(target, headers, rename(body, ways.renames), accept="*/*")
    if ways.edits == "none":
        raise AdapterError(
            FailureKind.BAD_REQUEST, "This provider does not take pictures.", param="image"
        )
    if ways.edits == "form":
        return await _edit_form(request, body, pictures, ways, headers, fetch)
    if request.mask:
        raise AdapterError(
            FailureKind.BAD_REQUEST, "This provider does not take masks.", param="mask"
        )
    body.update(_reference(pictures, model))
    return json_request(target, headers, rename(body, ways.renames))


def _reference(pictures: list[Media], model: str) -> dict[str, Any]:
    """Together's two fields for pictures: FLUX.1 Kontext knows only the one, the rest the other."""
    lowered = model.lower()
    if "kontext" in lowered and "flux.1" in lowered:
        if len(pictures) > 1:
            raise AdapterError(
                FailureKind.BAD_REQUEST, "This model takes one picture.", param="image"
            )
        return {"image_url": data_url(pictures[0])}
    return {"reference_images": [data_url(each) for each in pictures]}


async def _edit_form(
    request: ImageRequest,
    body: dict[str, Any],
    pictures: list[Media],
    ways: Images,
    headers: Headers,
    fetch: Fetch,
) -> HttpRequest:
    fields = text_fields(rename(body, ways.renames))
    name = "image" if len(pictures) == 1 else "image[]"
    for picture in pictures:
        fields.append((name, await with_data(picture, fetch)))
    if request.mask:
        fields.append(("mask", await with_data(request.mask, fetch)))
    return form_request(ways.edits_target, headers, fields)


async def _transcription_request(
    request: TranscriptionRequest, model: str, dialect: Dialect, headers: Headers, fetch: Fetch
) -> HttpRequest:
    body = {"model": model, **given(request)}
    timed = request.response_format in ("verbose_json", "srt", "vtt")
    verbose = timed or dialect.transcripts_verbose
    # The other forms are made from the answer here, so that a call can go to any provider.
    body["response_format"] = "verbose_json" if verbose else "json"
    fields = text_fields(body)
    fields.append(("file", await with_data(request.file, fetch)))
    return form_request(dialect.transcriptions_target, headers, fields)


def text_fields(body: dict[str, Any]) -> list[Field]:
    """A flat body as the text fields of a form; lists are repeated fields with ``[]``."""
    fields: list[Field] = []
    for name, value in body.items():
        if isinstance(value, list):
            fields += [(f"{name}[]", _text(each)) for each in value]
        else:
            fields.append((name, _text(value)))
    return fields


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _encode(value).decode()
