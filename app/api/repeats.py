"""``Idempotency-Key`` (I4): a request that comes again under the same key is carried out once.

The same request gets the stored answer, another one 422, one whose first is still running 409.
What charged nothing leaves the key free: refusals and failures may be tried again. Here the stored
answers are read; who may work on a key is decided in the transaction that places the hold.
"""

from hashlib import sha256

import msgspec
from litestar.types import HTTPScope

from app.clock import Clock
from app.errors import InvalidRequest
from app.ledger.entries import IdempotencyKey, StoredAnswer
from app.ledger.idempotency import LIVES_MS, InFlight, refuse_another
from app.storage.database import Database

KEY_LENGTH_MAX = 255
HEADER = b"idempotency-key"
BILL_TO = b"x-hf-bill-to"


_decode = msgspec.json.Decoder(dict).decode


class Repeats:
    """The stored answers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find(self, user_id: str, key: IdempotencyKey) -> StoredAnswer | None:
        """The answer that this request got before; None for a key that is free.

        Raises InFlight, or Unprocessable for another request under the same key.
        """
        rows = await self._database.read(
            "SELECT request_hash, status, answer FROM idempotency"
            " WHERE user_id = ? AND key = ? AND (status IS NULL OR created_at_ms > ?)",
            (user_id, key.key, self._clock.now_ms() - LIVES_MS),
        )
        if not rows:
            return None
        request_hash, status, answer = rows[0]
        refuse_another(request_hash, key)
        if status is None:
            raise InFlight
        return StoredAnswer(status=status, body=answer)


def key_of(scope: HTTPScope, body: bytes) -> IdempotencyKey | None:
    """The request's key, if it has one. Raises InvalidRequest for one that cannot be used."""
    values = [value for name, value in scope["headers"] if name == HEADER]
    if not values:
        return None
    try:
        text = values[0].decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if len(values) > 1 or not 0 < len(text) <= KEY_LENGTH_MAX or not text.isprintable():
        raise InvalidRequest(
            f"Send one Idempotency-Key of 1 to {KEY_LENGTH_MAX} printable ASCII characters, such"
            " as a UUID.",
            param="Idempotency-Key",
        )
    digest = sha256(scope["path"].encode() + b"\0" + _payer(scope) + b"\0" + body).digest()
    return IdempotencyKey(key=text, request_hash=digest)


def _payer(scope: HTTPScope) -> bytes:
    return next((value for name, value in scope["headers"] if name == BILL_TO), b"")


def bill_to(scope: HTTPScope) -> str | None:
    """Whom ``X-HF-Bill-To`` names as the payer: an org's name or a resource group's id.

    Raises InvalidRequest for a header that cannot be a name.
    """
    values = [value for name, value in scope["headers"] if name == BILL_TO]
    if not values:
        return None
    text = values[0].decode("latin-1").strip()
    if len(values) > 1 or not 0 < len(text) <= 128 or not (text.isascii() and text.isprintable()):
        raise InvalidRequest(
            "X-HF-Bill-To names one organisation, or the id of a resource group.",
            param="X-HF-Bill-To",
        )
    return text


def as_stream(body: bytes, *, with_usage: bool) -> bytes:
    """A stored whole answer as the frames of a stream: one chunk per choice, then the end."""
    whole = _decode(body)
    head = {
        "id": whole["id"],
        "object": "chat.completion.chunk",
        "created": whole["created"],
        "model": whole["model"],
    }
    frames = []
    for choice in whole["choices"]:
        message = choice["message"]
        calls = message.get("tool_calls")
        if calls:
            message["tool_calls"] = [{"index": n, **call} for n, call in enumerate(calls)]
        delta = {key: value for key, value in message.items() if value is not None}
        chunk = {
            "index": choice["index"],
            "delta": delta,
            "finish_reason": choice["finish_reason"],
        }
        if choice.get("logprobs"):
            chunk["logprobs"] = choice["logprobs"]
        frames.append({**head, "choices": [chunk]})
    if with_usage:
        frames.append({**head, "choices": [], "usage": whole["usage"]})
    encoded = b"".join(b"data: " + msgspec.json.encode(frame) + b"\n\n" for frame in frames)
    return encoded + b"data: [DONE]\n\n"
