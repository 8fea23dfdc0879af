"""From a conversation to token ids.

The rendered prompt is tokenised with its control tokens (``<|im_start|>`` and the like) understood,
because the template writes them. A client's own text must not be able to: where a message, a tool
or a tool's result contains the text of a control token, that text is tokenised apart, as plain
text.
"""

import re
import secrets
from typing import Any

import msgspec

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.chat_template import ChatTemplate
from local_runtime.engines.llama.conversation import conversation_of
from local_runtime.engines.llama.manner import Manner, manner_of
from local_runtime.engines.llama.native import Model
from local_runtime.engines.llama.placing import Placing
from local_runtime.engines.llama.template_traits import speech_of
from local_runtime.engines.llama.thinking import variables_of
from local_runtime.engines.llama.tools import tool_use_of
from plugins.chat import ChatRequest


class PromptBuilder:
    """Renders and tokenises for one model. ``speech`` is how that model speaks."""

    def __init__(self, model: Model, template: ChatTemplate) -> None:
        self._model = model
        self._template = template
        self.speech = speech_of(template)
        texts = sorted(model.control_texts, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts))) if texts else None

    def text(self, request: ChatRequest) -> "PromptText":
        """The rendered prompt. Raises RequestRefused."""
        variables = variables_of(request, self._template.reads, reasons=bool(self.speech.reasoning))
        use = tool_use_of(request)
        messages, tools = conversation_of(request, use, self.speech.traits)
        mask = _Mask(self._control)
        try:
            given = mask.masked({"messages": messages, "tools": tools, "variables": variables})
        except RecursionError:
            raise RequestRefused(
                "Arguments or schemas are nested too deeply.", param="messages"
            ) from None
        rendered = self._template.render(**given)
        return PromptText(
            mask.split(rendered), manner_of(request, use, self.speech, rendered[-80:])
        )

    def tokens(self, text: "PromptText", pictures: Placing | None = None) -> list[int]:
        """The prompt's token ids, with the model's first token (BOS) where it wants one, and
        numbers below zero for the cells of pictures."""
        begins = self._model.bos_text
        add_bos = self._model.add_bos and not (begins and text.parts[0].startswith(begins))
        tokens: list[int] = []
        for number, part in enumerate(text.parts):
            written = number % 2 == 0
            pieces = pictures.split(part) if pictures is not None and written else [part]
            for at, piece in enumerate(pieces):
                if pictures is not None and at % 2:
                    pictures.place(int(piece), tokens)
                    continue
                first = number == 0 and at == 0
                tokens += self._model.tokenize(
                    piece, add_special=add_bos and first, parse_special=written
                )
        return tokens


class PromptText(msgspec.Struct, frozen=True):
    """A rendered prompt, and how the answer to it is to be read.

    Parts at odd places are clients' text that looks like control tokens.
    """

    parts: list[str]
    manner: Manner

    @property
    def size_bytes(self) -> int:
        return sum(len(part.encode()) for part in self.parts)


class _Mask:
    """Stand-ins for control text. They hold a fresh random number, so that no text can fake one."""

    def __init__(self, control: re.Pattern[str] | None) -> None:
        self._control = control
        self._nonce = secrets.token_hex(8)
        self._texts: list[str] = []

    def masked(self, value: Any) -> Any:
        """The value with control text replaced in all of its texts, names of members included."""
        if self._control is None:
            return value
        if isinstance(value, str):
            return self._control.sub(self._stand_in, value)
        if isinstance(value, list):
            return [self.masked(item) for item in value]
        if isinstance(value, dict):
            return {self.masked(key): self.masked(item) for key, item in value.items()}
        return value

    def split(self, prompt: str) -> list[str]:
        """The prompt in parts: text, masked text, text, and so on."""
        if not self._texts:
            return [prompt]
        # A template may write JSON with everything beyond ASCII escaped.
        parts = re.split(rf"(?:\ue000|\\ue000){self._nonce}:([0-9]+)(?:\ue001|\\ue001)", prompt)
        parts[1::2] = [self._texts[int(number)] for number in parts[1::2]]
        return parts

    def _stand_in(self, match: re.Match[str]) -> str:
        self._texts.append(match[0])
        return f"\ue000{self._nonce}:{len(self._texts) - 1}\ue001"
