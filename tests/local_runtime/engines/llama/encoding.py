"""Encoders driven by hand: one process, one thread."""

import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import (
    Encoded,
    EncodeTask,
    EngineEvent,
    EngineInfo,
    EngineRequest,
    EngineSpec,
    Failed,
)
from local_runtime.engines.llama.encoder import LlamaEncoder
from tests.local_runtime.calls import smollm_path

_numbers = itertools.count()


def load(path: Path, **spec: Any) -> tuple[LlamaEncoder, EngineInfo]:
    engine = LlamaEncoder()
    spec = {"threads": 1, **spec}
    info = engine.load(
        EngineSpec(engine="llama_encoder", path=str(path), **spec), lambda _fraction: None
    )
    return engine, info


def ask(
    *texts: str | list[int], key: str = "", compute_ns_max: int | None = None, **task: Any
) -> EngineRequest:
    return EngineRequest(
        request_id=f"encode-{next(_numbers)}",
        encode=EncodeTask(texts=list(texts), **task),
        fairness_key=key,
        compute_ns_max=compute_ns_max,
    )


def run(engine: LlamaEncoder, *requests: EngineRequest) -> dict[str, list[EngineEvent]]:
    events: dict[str, list[EngineEvent]] = {each.request_id: [] for each in requests}
    for each in requests:
        engine.submit(each)
    while engine.has_work:
        for event in engine.step():
            events[event.request_id].append(event)
    return events


def vectors(engine: LlamaEncoder, *texts: str | list[int], **task: Any) -> list[NDArray[Any]]:
    request = ask(*texts, **task)
    return vectors_of(run(engine, request)[request.request_id])


def vectors_of(events: list[EngineEvent]) -> list[NDArray[Any]]:
    (encoded,) = [event for event in events if isinstance(event, Encoded)]
    return [np.frombuffer(each, dtype="<f4") for each in encoded.vectors]


def scores(engine: LlamaEncoder, query: str, *documents: str, **task: Any) -> list[float]:
    request = ask(*documents, query=query, **task)
    events = run(engine, request)[request.request_id]
    (encoded,) = [event for event in events if isinstance(event, Encoded)]
    return encoded.scores


def refused(engine: LlamaEncoder, request: EngineRequest) -> Failed:
    (event,) = run(engine, request)[request.request_id]
    assert isinstance(event, Failed)
    return event


def pooled_smollm(folder: Path, pooling: int) -> Path:
    """The starter model with a ``pooling_type`` in its header: a decoder that encodes.

    What is put in is a multiple of 32 bytes long, so that the weights stay aligned.
    """
    data = smollm_path().read_bytes()
    key = _text("llama.pooling_type") + struct.pack("<II", 4, pooling)
    filler = _text("filler") + struct.pack("<I", 8)
    filler += _text("x" * (-(len(key) + len(filler) + 8) % 32))
    magic, version, tensors, keys = struct.unpack_from("<4sIQQ", data)
    path = folder / f"pooled-{pooling}.gguf"
    path.write_bytes(
        struct.pack("<4sIQQ", magic, version, tensors, keys + 2) + key + filler + data[24:]
    )
    return path


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()
