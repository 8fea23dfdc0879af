"""Requests with pictures for the llama engine, and engines that can read them."""

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from local_runtime.engines.contract import EngineEvent, EngineRequest, EngineSpec
from local_runtime.engines.llama.engine import LlamaEngine
from tests.local_runtime.calls import engine_request, smollm_path
from tests.local_runtime.engines.llama.driving import run

SEQUENCES_MAX = 4
CONTEXT_LENGTH = 512
CELLS = 8  # of a picture at least, for the projectors made here
SYSTEM = "You are a patient clerk who looks at pictures all day long and says what is in them."


def spec(projector: Path, **changes: Any) -> EngineSpec:
    whole = EngineSpec(
        engine="llama",
        path=str(smollm_path()),
        context_length=CONTEXT_LENGTH,
        threads=1,
        sequences_max=SEQUENCES_MAX,
        projector_path=str(projector),
    )
    return replace(whole, **changes)


def parts(*pieces: str | bytes) -> tuple[list[dict[str, Any]], list[bytes]]:
    """A message's parts as the adapter leaves them, and its pictures."""
    content = [
        {"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image_url"}
        for piece in pieces
    ]
    return content, [piece for piece in pieces if isinstance(piece, bytes)]


def asked(*pieces: str | bytes, scope: str | None = None, **params: Any) -> EngineRequest:
    content, media = parts(*pieces)
    params = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, **params}
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    limit = params.pop("compute_ns_max", None)
    request = engine_request(messages=messages, compute_ns_max=limit, **params)
    return replace(request, media=media, cache_scope=scope)


def answer(engine: LlamaEngine, request: EngineRequest) -> list[EngineEvent]:
    return run(engine, request)[request.request_id]
