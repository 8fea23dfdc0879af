"""Forms with files (RFC 7578), read within bounds: as a stream, part by part.

The parser is ``multipart``, which Litestar brings. Text fields become the same tree that a JSON
body would be (``a[b][]`` is a list within an object, as OpenAI's clients write it), and go through
the same checks.
"""

import re
from collections.abc import AsyncIterator, Collection
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from litestar.types import HTTPScope, Receive
from multipart import (  # type: ignore[import-untyped]  # it ships no types
    MultipartError,
    PushMultipartParser,
    parse_options_header,
)

from app.api.body import decode
from app.errors import BodyTooLarge, InvalidRequest, WrongContentType
from plugins.tasks import Media

T = TypeVar("T")
PARTS_MAX = 32
PART_HEADERS_MAX = 8
PART_HEADER_BYTES_MAX = 4096
NAME_LENGTH_MAX = 128
FILE_NAME_LENGTH_MAX = 255
_FORM = "multipart/form-data"
_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_]*)((?:\[[A-Za-z0-9_]*\]){0,4})\Z")
_KEYS = re.compile(r"\[([A-Za-z0-9_]*)\]")
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}\Z")
_encode = msgspec.json.Encoder().encode


class Form(msgspec.Struct, kw_only=True):
    """What was sent: text fields as a tree, files by their fields' names, in order.

    ``digest`` is the same for the same fields and files, whatever the boundary was.
    """

    tree: dict[str, Any] = {}
    files: dict[str, list[Media]] = {}
    body_bytes: int = 0
    digest: bytes = b""


def is_form(scope: HTTPScope) -> bool:
    """Whether the request says that it is a form with files."""
    kind = _header(scope, b"content-type").partition(b";")[0].strip().lower()
    return kind == _FORM.encode()


async def read_form(
    scope: HTTPScope, receive: Receive, bytes_max: int, file_names: Collection[str]
) -> Form:
    """The whole form; fields in ``file_names`` are files, all others are text.

    Raises WrongContentType, BodyTooLarge (before reading past the limit), InvalidRequest.
    """
    reading = _Reading(file_names)
    try:
        parser = PushMultipartParser(
            _boundary(scope),
            max_header_count=PART_HEADERS_MAX,
            max_header_size=PART_HEADER_BYTES_MAX,
            max_segment_count=PARTS_MAX,
        )
        with parser:
            async for piece in _pieces(scope, receive, bytes_max):
                reading.form.body_bytes += len(piece)
                if parser.closed:
                    continue  # what comes after the last boundary means nothing
                for event in parser.parse(piece):
                    reading.take(event)
    except MultipartError as error:
        raise InvalidRequest(
            f"The form cannot be read: {_words(error)}.", code="invalid_form"
        ) from error
    return reading.finish()


def decode_tree(tree: dict[str, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """The tree as a request. ``decoder`` is lax where numbers came as text.

    Raises InvalidRequest whose ``param`` is the path to what is wrong.
    """
    if tree.get("stream") in (False, "false"):  # clients say so where they need not
        tree = {name: value for name, value in tree.items() if name != "stream"}
    return decode(_encode(tree), decoder, ())


def the_file(form: Form, name: str) -> Media | None:
    """The one file of a field, None where there is none. Raises InvalidRequest for several."""
    found = form.files.get(name, [])
    if len(found) > 1:
        raise InvalidRequest(f"Send one file as {name!r}.", param=name)
    return found[0] if found else None


class _Reading:
    """The parser's events, put together."""

    def __init__(self, file_names: Collection[str]) -> None:
        self.form = Form()
        self._file_names = file_names
        self._hash = sha256()
        self._part: Any = None
        self._pieces: list[bytes] = []

    def take(self, event: Any) -> None:
        """A part's head, a piece of its content, or None: its end."""
        if event is None:
            self._end(b"".join(self._pieces))
            self._part, self._pieces = None, []
        elif isinstance(event, bytes | bytearray):
            self._pieces.append(bytes(event))
        else:
            self._part = event

    def finish(self) -> Form:
        self.form.digest = self._hash.digest()
        return self.form

    def _end(self, content: bytes) -> None:
        part = self._part
        name: str = part.name
        match = _NAME.match(name) if len(name) <= NAME_LENGTH_MAX else None
        if match is None:
            raise InvalidRequest(
                "A field of the form has no name, or one that no parameter has.",
                code="invalid_form",
            )
        media = Media(
            data=content,
            media_type=_media_type(part.header("Content-Type") or ""),
            name=_file_name(part.filename or ""),
        )
        for each in (name, media.name, media.media_type):
            self._hash.update(each.encode("utf-8", "replace") + b"\0")
        self._hash.update(len(content).to_bytes(8, "big") + content)
        stem = match[1]
        if stem in self._file_names and match[2] in ("", "[]"):
            self.form.files.setdefault(stem, []).append(media)
            return
        if part.filename is not None:
            raise InvalidRequest(
                f"Unknown parameter: {stem!r} is no file here.",
                param=stem,
                code="unknown_parameter",
            )
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{name!r} is not text in UTF-8.", param=stem) from error
        _put(self.form.tree, [stem, *_KEYS.findall(match[2])], text)


def _put(tree: Any, keys: list[str], text: str) -> None:
    """Put a field where its name says. Raises InvalidRequest where another is already there."""
    for at, key in enumerate(keys):
        last = at == len(keys) - 1
        below: Any = text if last else [] if keys[at + 1] == "" else {}
        if isinstance(tree, list):
            if key:
                break
            tree.append(below)
            tree = tree[-1]
            continue
        if not isinstance(tree, dict) or not key:
            break
        if last and key not in tree:
            tree[key] = text
            return
        if last:
            break
        tree = tree.setdefault(key, below)
        if type(tree) is not type(below):
            break
    else:
        return
    raise InvalidRequest(
        f"The field {keys[0]!r} appears twice.", param=keys[0], code="duplicate_key"
    )


def _header(scope: HTTPScope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _boundary(scope: HTTPScope) -> str:
    """Raises WrongContentType, or InvalidRequest for a form without a usable boundary."""
    if _header(scope, b"content-encoding").lower() not in (b"", b"identity"):
        raise WrongContentType("Compressed request bodies are not accepted.")
    text = _header(scope, b"content-type").decode("latin-1")
    kind, options = parse_options_header(text)
    if kind != _FORM:
        raise WrongContentType(f"Send the body as a form, with Content-Type: {_FORM}.")
    boundary: str = options.get("boundary", "")
    if not 0 < len(boundary) <= 200 or not boundary.isascii() or not boundary.isprintable():
        raise InvalidRequest(
            "The form's Content-Type has no boundary, or none that can be used.",
            code="invalid_form",
        )
    return boundary


async def _pieces(scope: HTTPScope, receive: Receive, bytes_max: int) -> AsyncIterator[bytes]:
    length, size = _header(scope, b"content-length"), 0
    if length.isdigit() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    more = True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The client left before the body was complete.")
        piece = message.get("body", b"")
        size += len(piece)
        if size > bytes_max:
            raise _too_large(bytes_max)
        more = message.get("more_body", False)
        if piece:
            yield piece


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request's body is larger than {bytes_max} bytes.")


def _words(error: MultipartError) -> str:
    """The parser's own words, which repeat nothing of what was sent but header values."""
    text = str(error.args[0]) if error.args else "it is not multipart/form-data"
    return f"{text[0].lower()}{text[1:100]}".rstrip(".")


def _media_type(text: str) -> str:
    kind = text.partition(";")[0].strip().lower()
    return kind if _MEDIA_TYPE.match(kind) else ""


def _file_name(text: str) -> str:
    """The name alone, without the folders that some clients send, and printable."""
    name = re.split(r"[/\\]", text)[-1]
    return "".join(char for char in name if char.isprintable())[-FILE_NAME_LENGTH_MAX:]
