"""From a conversation to token ids.

The rendered prompt is tokenised with its control tokens (``<|im_start|>`` and the like) understood,
because the template writes them. A client's own text must not be able to: where a message contains
the text of a control token, that text is tokenised apart, as plain text.
"""

import re
import secrets
from typing import Any

import msgspec
from msgspec.structs import replace

from local_runtime.engines.llama.chat_template import ChatTemplate
from local_runtime.engines.llama.native import Model
from plugins.chat import ChatRequest, Message


class PromptBuilder:
    """Renders and tokenises for one model."""

    def __init__(self, model: Model, template: ChatTemplate) -> None:
        self._model = model
        self._template = template
        texts = sorted(model.control_texts, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts))) if texts else None

    def text(self, request: ChatRequest) -> "PromptText":
        """The rendered prompt. Raises RequestRefused."""
        mask = _Mask()
        masked = request
        if self._control is not None:
            messages = [mask.message(message, self._control) for message in request.messages]
            masked = replace(request, messages=messages)
        return PromptText(mask.split(self._template.render(masked)))

    def tokens(self, text: "PromptText") -> list[int]:
        """The prompt's token ids, with the model's first token (BOS) where it wants one."""
        begins = self._model.bos_text
        add_bos = self._model.add_bos and not (begins and text.parts[0].startswith(begins))
        tokens: list[int] = []
        for number, part in enumerate(text.parts):
            tokens += self._model.tokenize(
                part, add_special=add_bos and number == 0, parse_special=number % 2 == 0
            )
        return tokens


class PromptText(msgspec.Struct, frozen=True):
    """A rendered prompt. Parts at odd places are clients' text that looks like control tokens."""

    parts: list[str]

    @property
    def size_bytes(self) -> int:
        return sum(len(part.encode()) for part in self.parts)


class _Mask:
    """Stand-ins for control text. They hold a fresh random number, so that no text can fake one."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(8)
        self._texts: list[str] = []

    def message(self, message: Message, control: re.Pattern[str]) -> Message:
        """The message with control text replaced; the same object where there is none."""
        changes: dict[str, Any] = {}
        for name in ("content", "name", "refusal", "reasoning", "reasoning_content"):
            value = getattr(message, name)
            if isinstance(value, str) and control.search(value):
                changes[name] = control.sub(self._stand_in, value)
        if isinstance(message.content, list):
            changes["content"] = [
                {
                    key: control.sub(self._stand_in, value) if isinstance(value, str) else value
                    for key, value in part.items()
                }
                for part in message.content
            ]
        return replace(message, **changes) if changes else message

    def split(self, prompt: str) -> list[str]:
        """The prompt in parts: text, masked text, text, and so on."""
        if not self._texts:
            return [prompt]
        parts = re.split(f"\ue000{self._nonce}:([0-9]+)\ue001", prompt)
        parts[1::2] = [self._texts[int(number)] for number in parts[1::2]]
        return parts

    def _stand_in(self, match: re.Match[str]) -> str:
        self._texts.append(match[0])
        return f"\ue000{self._nonce}:{len(self._texts) - 1}\ue001"
