"""A canonical chat as turns of blocks: the form that Anthropic's Messages API and Amazon's Converse
API share.

Both keep instructions apart from the turns, want turns of user and assistant to alternate, want
results of tools in the user's turn before anything else, and refuse blank text. Thoughts come back
as OpenRouter's ``reasoning_details``: ``reasoning.text`` with a signature, ``reasoning.encrypted``
with data, both with the format ``anthropic-claude-v1``; Claude checks them, so others are left out.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from plugins.anthropic import media
from plugins.anthropic.media import Fetch, refused
from plugins.chat import Message, Object
from plugins.http.failures import DECODE_ERRORS
from plugins.tasks import Media

THOUGHT_FORMAT = "anthropic-claude-v1"
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Text(msgspec.Struct, kw_only=True):
    """Text; ``cache`` is the caller's ``cache_control``, as with all blocks."""

    text: str
    cache: Object | None = None


class Picture(msgspec.Struct, kw_only=True):
    """A picture: its bytes with their media type, or an https URL."""

    media: Media
    cache: Object | None = None


class Document(msgspec.Struct, kw_only=True):
    """A file: its bytes with the media type that the caller gave, or an https URL."""

    media: Media
    name: str = ""
    cache: Object | None = None


class Call(msgspec.Struct, kw_only=True):
    """The assistant called a tool."""

    id: str
    name: str
    arguments: Object


class Result(msgspec.Struct, kw_only=True):
    """What a tool answered."""

    id: str
    blocks: list["Text | Picture | Document"]


class Thought(msgspec.Struct, kw_only=True):
    """What the model thought, signed by it."""

    text: str
    signature: str


class Sealed(msgspec.Struct, kw_only=True):
    """What the model thought, encrypted by it."""

    data: str


Block = Text | Picture | Document | Call | Result | Thought | Sealed


class Turn(msgspec.Struct, kw_only=True):
    """Everything that one side says before the other does; never empty."""

    role: Literal["user", "assistant"]
    blocks: list[Block]


class Conversation(msgspec.Struct, kw_only=True):
    """``turns`` alternate and begin with the user's."""

    system: list[Text]
    turns: list[Turn]

    def tool_names(self) -> list[str]:
        """The tools that were called in it, each once, in order."""
        blocks = (block for turn in self.turns for block in turn.blocks)
        return list(dict.fromkeys(block.name for block in blocks if isinstance(block, Call)))

    def has_results(self) -> bool:
        """Whether any tool was called or has answered."""
        return any(isinstance(b, Call | Result) for turn in self.turns for b in turn.blocks)

    def calls_without_thoughts(self) -> bool:
        """Whether the assistant's last turn calls tools and does not begin with a thought."""
        for turn in reversed(self.turns):
            if turn.role == "assistant":
                calls = any(isinstance(block, Call) for block in turn.blocks)
                return calls and not isinstance(turn.blocks[0], Thought | Sealed)
        return False


def call_id(given: str) -> str:
    """An id that both providers take: the given one, or where it has other characters (another
    provider made it) one that is made from it, always the same."""
    if _CALL_ID.fullmatch(given):
        return given
    return "call_" + hashlib.sha256(given.encode()).hexdigest()[:32]


async def read(messages: Sequence[Message], fetch: Fetch, *, leave_https: bool) -> Conversation:
    """Raises AdapterError (BAD_REQUEST), with the way to the part that cannot be sent on."""
    found = Conversation(system=[], turns=[])
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if message.role in ("system", "developer"):
            for block in await _parts(message.content, where, fetch, leave_https):
                if not isinstance(block, Text):
                    raise refused(where, "instructions are text only")
                found.system.append(block)
        elif message.role == "user":
            said: list[Block] = list(await _parts(message.content, where, fetch, leave_https))
            _append(found, "user", said)
        elif message.role == "assistant":
            _append(found, "assistant", await _answer(message, where, fetch))
        elif message.role == "tool":
            if not isinstance(message.tool_call_id, str):
                raise refused(f"{where}.tool_call_id", "missing")
            blocks = await _parts(message.content, where, fetch, leave_https)
            _append(found, "user", [Result(id=call_id(message.tool_call_id), blocks=blocks)])
        else:
            raise refused(where, "functions are called tools here: use the role tool")
    if not found.turns or found.turns[0].role != "user":
        raise refused("messages", "the first after the instructions must be the user's")
    for turn in found.turns:
        if turn.role == "user":
            turn.blocks.sort(key=lambda block: not isinstance(block, Result))
    return found


def _append(found: Conversation, role: Literal["user", "assistant"], blocks: list[Block]) -> None:
    if not blocks:
        return
    if found.turns and found.turns[-1].role == role:
        found.turns[-1].blocks += blocks
    else:
        found.turns.append(Turn(role=role, blocks=blocks))


async def _answer(message: Message, where: str, fetch: Fetch) -> list[Block]:
    """An assistant's message: thoughts, then text, then calls, as it was answered."""
    blocks: list[Block] = list(_thoughts(message.reasoning_details))
    texts = await _parts(message.content, where, fetch, leave_https=False)
    if not texts and isinstance(message.refusal, str) and message.refusal.strip():
        texts = [Text(text=message.refusal)]
    for text in texts:
        if not isinstance(text, Text):
            raise refused(where, "the assistant's messages are text only")
        blocks.append(text)
    for number, call in enumerate(message.tool_calls or ()):
        blocks.append(_call(call, f"{where}.tool_calls[{number}]"))
    return blocks


def _thoughts(details: Any) -> list[Block]:
    """The thoughts that Claude can check. Pieces of a text, as other gateways stream them, are put
    together until the one that brings the signature."""
    blocks: list[Block] = []
    text = ""
    for detail in details if isinstance(details, list) else ():
        if detail.get("format", THOUGHT_FORMAT) not in (THOUGHT_FORMAT, None):
            continue
        if detail.get("type") == "reasoning.text":
            text += detail["text"] if isinstance(detail.get("text"), str) else ""
            if isinstance(signature := detail.get("signature"), str) and signature:
                blocks.append(Thought(text=text, signature=signature))
                text = ""
        data = detail.get("data")
        if detail.get("type") == "reasoning.encrypted" and isinstance(data, str) and data:
            blocks.append(Sealed(data=data))
    return blocks


def _call(call: Object, where: str) -> Call:
    function, given = call.get("function"), call.get("id")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise refused(where, "expected a function's name and arguments")
    if not isinstance(given, str) or not given:
        raise refused(f"{where}.id", "missing")
    text = function.get("arguments") or "{}"
    try:
        arguments = msgspec.json.decode(text) if isinstance(text, str) else None
    except DECODE_ERRORS as error:
        raise refused(f"{where}.function.arguments", "not JSON") from error
    if not isinstance(arguments, dict):
        raise refused(f"{where}.function.arguments", "not a JSON object")
    return Call(id=call_id(given), name=function["name"], arguments=arguments)


async def _parts(
    content: Any, where: str, fetch: Fetch, leave_https: bool
) -> list[Text | Picture | Document]:
    """A message's content without its blank texts, which providers refuse."""
    if isinstance(content, str):
        return [Text(text=content)] if content.strip() else []
    blocks: list[Text | Picture | Document] = []
    for number, part in enumerate(content if isinstance(content, list) else ()):
        block = await _part(part, f"{where}.content[{number}]", fetch, leave_https)
        if block is not None:
            blocks.append(block)
    return blocks


async def _part(
    part: Object, where: str, fetch: Fetch, leave_https: bool
) -> Text | Picture | Document | None:
    kind, cache = part.get("type"), cache_control(part, where)
    if kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            raise refused(where, "expected text")
        return Text(text=text, cache=cache) if text.strip() else None
    if kind == "image_url":
        said = part.get("image_url")
        url = said.get("url") if isinstance(said, dict) else said
        found = await media.read(url, where, fetch, leave_https=leave_https)
        return Picture(media=media.as_picture(found, where), cache=cache)
    if kind == "file":
        file = part.get("file")
        if not isinstance(file, dict) or "file_data" not in file:
            raise refused(where, "expected file.file_data: files are not kept here")
        found = await media.read(file["file_data"], where, fetch, leave_https=leave_https)
        if found.media_type.startswith("image/"):
            return Picture(media=media.as_picture(found, where), cache=cache)
        name = file.get("filename")
        return Document(media=found, name=name if isinstance(name, str) else "", cache=cache)
    raise refused(where, f"parts of type {str(kind)[:64]!r} are not read by this provider")


def cache_control(holder: Object, where: str) -> Object | None:
    """The ``cache_control`` of a part or a tool (Anthropic's prompt caching), checked."""
    found = holder.get("cache_control")
    if found is None:
        return None
    good = isinstance(found, dict) and found.get("type") == "ephemeral"
    if not good or set(found) - {"type", "ttl"} or found.get("ttl", "5m") not in ("5m", "1h"):
        raise refused(f"{where}.cache_control", 'expected {"type": "ephemeral"}, or with a ttl')
    return dict(found)
