"""``POST /v1/images/generations`` and ``POST /v1/images/edits``: a prompt, and pictures to start
from, to pictures.

Edits come as a form with files (``image`` or ``image[]``, and ``mask``), or as JSON whose
``images`` and ``mask`` are references.
"""

from functools import partial
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.body import decode, read_json
from app.api.openai.references import picture_of
from app.api.openai.task_calls import Asked, TaskCalls
from app.api.openai.task_wire import images_body
from app.api.openai.uploads import decode_tree, is_form, read_form, the_file
from app.api.repeats import key_of
from app.errors import InvalidRequest
from app.identity.principal import Principal
from plugins.tasks import ImageRequest, Images, Media

PICTURES_MAX = 16
_DECISIVE = (b'"model"', b'"n"', b'"size"', b'"quality"')
_EDITS_DECISIVE = (*_DECISIVE, b'"images"')


class _Route:
    """What both routes share: the call and its answer."""

    def __init__(self, tasks: TaskCalls, body_bytes_max: int) -> None:
        self._tasks = tasks
        self._body_bytes_max = body_bytes_max

    async def _answer(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal, asked: Asked
    ) -> None:
        form = getattr(asked.request, "response_format", None)

        async def complete(output: Images) -> None:
            """Where bytes are wanted and the adapter gave a URL."""
            if form == "b64_json":
                output.images = [await self._tasks.with_data(each) for each in output.images]

        await self._tasks.answer(
            scope,
            receive,
            send,
            principal,
            asked,
            Images,
            partial(images_body, as_url=form == "url"),
            complete=complete,
        )


class ImageGenerations(_Route):
    """The handler of generations."""

    _decoder = msgspec.json.Decoder(ImageRequest)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        body = await read_json(scope, receive, self._body_bytes_max)
        request = decode(body, self._decoder, _DECISIVE)
        for name in ("image", "mask"):
            if getattr(request, name) is not msgspec.UNSET:
                raise InvalidRequest(
                    f"Unknown parameter: {name!r}. Pictures to start from go to /v1/images/edits.",
                    param=name,
                    code="unknown_parameter",
                )
        asked = Asked(request=request, body_bytes=len(body), key=key_of(scope, body))
        await self._answer(scope, receive, send, principal, asked)


class ImageEdits(_Route):
    """The handler of edits."""

    _objects = msgspec.json.Decoder(dict[str, Any])
    _decoder = msgspec.json.Decoder(ImageRequest)
    _lax = msgspec.json.Decoder(ImageRequest, strict=False)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        if is_form(scope):
            asked = await self._read_form(scope, receive)
        else:
            asked = await self._read_json(scope, receive)
        await self._answer(scope, receive, send, principal, asked)

    async def _read_form(self, scope: HTTPScope, receive: Receive) -> Asked:
        form = await read_form(scope, receive, self._body_bytes_max, ("image", "mask"))
        request = decode_tree(_without(form.tree), self._lax)
        _give(request, form.files.get("image", []), the_file(form, "mask"))
        key = key_of(scope, form.digest)
        return Asked(request=request, body_bytes=form.body_bytes, key=key)

    async def _read_json(self, scope: HTTPScope, receive: Receive) -> Asked:
        body = await read_json(scope, receive, self._body_bytes_max)
        tree = decode(body, self._objects, _EDITS_DECISIVE)
        found, mask = tree.pop("images", []), tree.pop("mask", None)
        if not isinstance(found, list):
            raise InvalidRequest("'images' is a list of pictures.", param="images")
        request = decode_tree(_without(tree), self._decoder)
        if len(found) > PICTURES_MAX:
            raise _too_many()
        pictures = [picture_of(each, f"images[{at}]") for at, each in enumerate(found)]
        _give(request, pictures, None if mask is None else picture_of(mask, "mask"))
        return Asked(request=request, body_bytes=len(body), key=key_of(scope, body))


def _give(request: ImageRequest, pictures: list[Media], mask: Media | None) -> None:
    if not pictures:
        raise InvalidRequest(
            "Missing required parameter: 'image'. Send at least one picture.",
            param="image",
            code="missing_required_parameter",
        )
    if len(pictures) > PICTURES_MAX:
        raise _too_many()
    for picture in (*pictures, *([mask] if mask else [])):
        if picture.data == b"":
            raise InvalidRequest("A picture is empty.", param="image")
    request.image = pictures
    if mask is not None:
        request.mask = mask


def _too_many() -> InvalidRequest:
    return InvalidRequest(f"Send at most {PICTURES_MAX} pictures.", param="image")


def _without(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree, in which nothing can pass for an upload. Raises InvalidRequest."""
    for name in ("image", "mask"):
        if name in tree:
            raise InvalidRequest(
                f"{name!r} is sent as a file of a form, or as an object with an 'image_url' in"
                " 'images' or 'mask'.",
                param=name,
            )
    return tree
