"""The llama engine with the real starter model, driven by hand: one process, one thread."""

from typing import Any

from local_runtime.engines.contract import EngineEvent, EngineRequest, Failed
from local_runtime.engines.llama.engine import LlamaEngine
from tests.local_runtime.calls import engine_request

SEQUENCES_MAX = 4
CONTEXT_LENGTH = 512


def run(engine: LlamaEngine, *requests: EngineRequest) -> dict[str, list[EngineEvent]]:
    for request in requests:
        engine.submit(request)
    events: dict[str, list[EngineEvent]] = {request.request_id: [] for request in requests}
    while engine.has_work:
        for event in engine.step():
            events[event.request_id].append(event)
    return events


def one(engine: LlamaEngine, text: str = "Say hello.", **params: Any) -> list[EngineEvent]:
    request = engine_request(text, **params)
    return run(engine, request)[request.request_id]


def failure(events: list[EngineEvent]) -> Failed:
    assert len(events) == 1
    assert isinstance(events[0], Failed)
    return events[0]


def prompt_tokens(events: list[EngineEvent]) -> int:
    """Tokens of the prompt, read or found."""
    usage = events[-1].usage
    return usage.input_tokens + usage.cache_read_tokens
