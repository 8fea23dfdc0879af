"""A canonical chat as Gemini's ``contents`` and ``systemInstruction``.

Signatures of thoughts travel in two places, and come back from either: on the call of a tool as
``extra_content.google.thought_signature`` (Google's own OpenAI-compatible API) and in the message's
``reasoning_details`` as ``reasoning.encrypted`` with the format ``google-gemini-v1``, where ``id``
names the call (OpenRouter's form). Those without an ``id`` belong to the message's text.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from plugins.chat import Message, Object
from plugins.contract import Fetch
from plugins.gemini import media
from plugins.gemini.media import refused
from plugins.gemini.models import Abilities
from plugins.http.failures import DECODE_ERRORS

THOUGHT_FORMAT = "google-gemini-v1"
UNSIGNED = "skip_thought_signature_validator"
"""Google's word for a call whose signature is not there: another provider made it, or the client
dropped it (Google's page on thought signatures)."""


class Contents(msgspec.Struct, kw_only=True):
    """``system`` are parts of text; ``turns`` have a role, ``user`` or ``model``, and parts."""

    system: list[Object]
    turns: list[Object]


async def read(messages: Sequence[Message], can: Abilities, fetch: Fetch) -> Contents:
    """Raises AdapterError (BAD_REQUEST), with the way to the part that cannot be sent on."""
    return await _Reading(can, fetch).read(messages)


class _Reading:
    def __init__(self, can: Abilities, fetch: Fetch) -> None:
        self._can = can
        self._fetch = fetch
        self._found = Contents(system=[], turns=[])
        self._names: dict[str, str] = {}
        self._results: list[Object] | None = None

    async def read(self, messages: Sequence[Message]) -> Contents:
        for number, message in enumerate(messages):
            where = f"messages[{number}]"
            if message.role in ("system", "developer"):
                self._found.system += await self._instructions(message, where)
            elif message.role == "user":
                self._append("user", await self._parts(message.content, where))
            elif message.role == "assistant":
                self._append("model", await self._answer(message, where))
            elif message.role == "tool":
                await self._result(message, where)
            else:
                raise refused(where, "functions are called tools here: use the role tool")
        if not self._can.instructions and self._found.system:
            self._found.turns.insert(0, {"role": "user", "parts": self._found.system})
            self._found.system = []
        if not self._found.turns:
            raise refused("messages", "expected a message that is no instruction")
        return self._found

    async def _instructions(self, message: Message, where: str) -> list[Object]:
        parts = await self._parts(message.content, where)
        if not all("text" in part for part in parts):
            raise refused(where, "instructions are text only")
        return parts

    def _append(self, role: str, parts: list[Object]) -> None:
        """Texts that follow each other from one side are one turn; results of tools are one of
        their own, since their number is held against that of the calls."""
        if not parts:
            return
        turns = self._found.turns
        if turns and turns[-1]["role"] == role and turns[-1]["parts"] is not self._results:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
        self._results = None

    async def _result(self, message: Message, where: str) -> None:
        given = message.tool_call_id
        if not isinstance(given, str):
            raise refused(f"{where}.tool_call_id", "missing")
        name = self._names.get(given) or message.name
        if not isinstance(name, str) or not name:
            raise refused(f"{where}.tool_call_id", "no call before it has this id")
        parts = await self._parts(message.content, where)
        text = "".join(part["text"] for part in parts if "text" in part)
        others = [part for part in parts if "text" not in part]
        result: Object = {"id": given, "name": name, "response": {"output": text}}
        if others and self._can.signs:
            result["parts"] = others
            others = []
        if self._results is None:
            self._results = []
            self._found.turns.append({"role": "user", "parts": self._results})
        self._results += [{"functionResponse": result}, *others]

    async def _answer(self, message: Message, where: str) -> list[Object]:
        """An assistant's message: signed thoughts, then text, then calls, as it was answered."""
        signatures = _Signatures(message.reasoning_details)
        texts = await self._parts(message.content, where)
        if not texts and isinstance(message.refusal, str) and message.refusal:
            texts = [{"text": message.refusal}]
        if not all("text" in part for part in texts):
            raise refused(where, "the assistant's messages are text only")
        if texts and signatures.of_text:
            texts[-1]["thoughtSignature"] = signatures.of_text
        calls = [
            self._call(call, f"{where}.tool_calls[{n}]", signatures)
            for n, call in enumerate(message.tool_calls or ())
        ]
        if calls and self._can.signs:
            calls[0].setdefault("thoughtSignature", UNSIGNED)
        return [*signatures.thoughts, *texts, *calls]

    def _call(self, call: Object, where: str, signatures: "_Signatures") -> Object:
        function, given = call.get("function"), call.get("id")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise refused(where, "expected a function's name and arguments")
        if not isinstance(given, str) or not given:
            raise refused(f"{where}.id", "missing")
        self._names[given] = function["name"]
        args = _arguments(function.get("arguments"), f"{where}.function.arguments")
        part: Object = {"functionCall": {"id": given, "name": function["name"], "args": args}}
        signature = _signature_on(call) or signatures.of_calls.get(given)
        if signature:
            part["thoughtSignature"] = signature
        return part

    async def _parts(self, content: Any, where: str) -> list[Object]:
        """A message's content without its empty texts, which the API refuses."""
        if isinstance(content, str):
            return [{"text": content}] if content else []
        parts: list[Object] = []
        for number, part in enumerate(content if isinstance(content, list) else ()):
            place = f"{where}.content[{number}]"
            kind = part.get("type")
            if kind in ("text", "refusal"):
                if not isinstance(text := part.get(kind), str):
                    raise refused(place, "expected text")
                parts += [{"text": text}] if text else []
            else:
                parts.append(await media.part_of(part, place, self._fetch))
        return parts


class _Signatures:
    """Signatures in a message's ``reasoning_details``. ``thoughts`` are parts of their own."""

    def __init__(self, details: Any) -> None:
        self.of_calls: dict[str, str] = {}
        self.of_text = ""
        self.thoughts: list[Object] = []
        for detail in details if isinstance(details, list) else ():
            if detail.get("format") != THOUGHT_FORMAT:
                continue
            data, signature, text = (detail.get(key) for key in ("data", "signature", "text"))
            if detail.get("type") == "reasoning.encrypted" and isinstance(data, str) and data:
                if isinstance(named := detail.get("id"), str):
                    self.of_calls[named] = data
                else:
                    self.of_text = data
            elif detail.get("type") == "reasoning.text" and _said(text) and _said(signature):
                part = {"text": text, "thought": True, "thoughtSignature": signature}
                self.thoughts.append(part)


def _said(found: Any) -> bool:
    return isinstance(found, str) and found != ""


def _signature_on(call: Object) -> str:
    found: Any = call
    for name in ("extra_content", "google", "thought_signature"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _arguments(text: Any, where: str) -> Object:
    try:
        found = msgspec.json.decode(text or "{}") if isinstance(text or "", str) else None
    except DECODE_ERRORS as error:
        raise refused(where, "not JSON") from error
    if not isinstance(found, dict):
        raise refused(where, "not a JSON object")
    return found
