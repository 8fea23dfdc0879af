"""Pictures of a chat at their places in its prompt.

A template writes text only. So each picture is, while the template runs, a mark in the text around
it: a fresh random number between two characters of private use, which no client can guess. In the
rendered prompt the marks become what the model reads for the pictures. llama.cpp's own marker is
not used, so that text which looks like it is nothing but text.
"""

import re
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.views import Read, View, Views, close
from plugins.chat import ChatRequest, Message

if TYPE_CHECKING:  # libmtmd is loaded only where a projector is
    from local_runtime.engines.llama.media import PictureReader


class Placing:
    """One chat's pictures on their way into its prompt. ``chat`` is the one to render."""

    def __init__(self, chat: ChatRequest) -> None:
        """Raises RequestRefused for a picture where none can be."""
        self._nonce = secrets.token_hex(8)
        self._places: list[str] = []
        self._read: list[Read] = []
        self._placed: set[int] = set()
        self._views: list[View] = []
        self.took_ns = 0
        self.chat = replace(
            chat, messages=[self._marked(each, at) for at, each in enumerate(chat.messages)]
        )

    def _marked(self, message: Message, at: int) -> Message:
        content = message.content
        if not isinstance(content, list):
            return message
        if not any(part.get("type") == "image_url" for part in content):
            return message
        if message.role != "user":
            raise RequestRefused(
                f"messages[{at}].content: only user messages can hold pictures.", param="messages"
            )
        parts: list[dict[str, Any]] = []
        after_picture = True
        for number, part in enumerate(content):
            if part.get("type") == "image_url":
                self._places.append(f"messages[{at}].content[{number}]")
                mark = f"\ue000{self._nonce}-{len(self._places) - 1}\ue001"
                parts.append({"type": "text", "text": mark})
                after_picture = True
            elif part.get("type") == "text" and isinstance(part.get("text"), str):
                # Texts are joined by line breaks, but a picture stands in its line.
                text = part["text"] if after_picture else "\n" + part["text"]
                parts.append({"type": "text", "text": text})
                after_picture = False
            else:
                parts.append(part)
        if all(part.get("type") == "text" for part in parts):
            return replace(message, content="".join(part["text"] for part in parts))
        return replace(message, content=parts)

    def read(self, reader: "PictureReader", media: Sequence[bytes]) -> None:
        """Decode the pictures. Raises RequestRefused, which names the one at fault."""
        if len(media) != len(self._places):
            raise RequestRefused("messages: a picture's data is missing.", param="messages")
        begun_ns = time.monotonic_ns()
        self._read = reader.read(media, self._places)
        self.took_ns = time.monotonic_ns() - begun_ns

    def split(self, text: str) -> list[str]:
        """Rendered text in parts: text, the number of a picture, text, and so on."""
        return re.split(rf"(?:\ue000|\\ue000){self._nonce}-([0-9]+)(?:\ue001|\\ue001)", text)

    def place(self, number: int, tokens: list[int]) -> None:
        """Put what stands for a picture behind the prompt's tokens so far."""
        self._placed.add(number)
        for piece in self._read[number]:
            if isinstance(piece, View):
                view = View(piece.part, len(tokens), piece.first_token)
                self._views.append(view)
                tokens += view.tokens
            else:
                tokens.append(piece)

    def views(self, tokens: Sequence[int]) -> Views:
        """The views of the whole prompt. Raises RequestRefused where the template lost a picture,
        or ends with one, so that there is nothing to answer."""
        lost = [place for at, place in enumerate(self._places) if at not in self._placed]
        if lost:
            raise RequestRefused(
                f"{lost[0]}: the model's chat template leaves this picture out.", param="messages"
            )
        if tokens and tokens[-1] < 0:
            raise RequestRefused(
                "The model's chat template ends with a picture, which it cannot go on from.",
                param="messages",
            )
        return Views(self._views)

    def close(self) -> None:
        """Free the pictures: nothing comes of the request. Again is harmless."""
        close(self._read)
