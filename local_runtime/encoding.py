"""One call to an embedding or reranking model: the engine's events as the contract's."""

import sys
from array import array
from collections.abc import Sequence

from local_runtime.engines.contract import Encoded, EncodeTask, EngineEvent, EngineRequest
from local_runtime.generation import Generation
from local_runtime.kinds import Kind
from plugins.contract import AdapterError, Event, FailureKind, Produced
from plugins.tasks import (
    FEATURE_EXTRACTION,
    TEXT_RANKING,
    EmbeddingRequest,
    Embeddings,
    Ranking,
    RerankRequest,
)

TASK_OF: dict[Kind, str] = {Kind.EMBEDDING: FEATURE_EXTRACTION, Kind.RERANK: TEXT_RANKING}
"""What is asked of a model that does not converse, in the Hub's words."""

# What these models honour; the gateway refuses everything else by name. ``encoding_format``,
# ``top_n`` and ``return_documents`` are about how the gateway writes the answer down.
SUPPORTED_PARAMS: dict[Kind, frozenset[str]] = {
    Kind.EMBEDDING: frozenset({"dimensions", "encoding_format", "truncate", "user"}),
    Kind.RERANK: frozenset({"return_documents", "top_n", "truncate", "user"}),
}


class Encoding(Generation):
    """Submits one call and translates what comes; see ``Generation``."""

    def _request(self) -> EngineRequest:
        call = self._call
        return EngineRequest(
            request_id=call.attempt_id,
            encode=task_of(call.request),
            compute_ns_max=call.compute_ns_max,
            fairness_key=call.fairness_key,
        )

    def _other(self, event: EngineEvent) -> Sequence[Event]:
        if not isinstance(event, Encoded):
            return super()._other(event)
        if isinstance(self._call.request, RerankRequest):
            return [Produced(Ranking(scores=event.scores))]
        return [Produced(Embeddings(vectors=[_numbers(data) for data in event.vectors]))]


def task_of(request: object) -> EncodeTask:
    """What the engine is to encode. Raises AdapterError for any other request."""
    if isinstance(request, RerankRequest):
        return EncodeTask(
            texts=list(request.texts()), query=request.query, truncate=request.truncate is True
        )
    if not isinstance(request, EmbeddingRequest):
        raise AdapterError(FailureKind.NOT_FOUND, "this model encodes texts, and does nothing else")
    return EncodeTask(
        texts=_texts(request),
        truncate=request.truncate is True,
        size=request.dimensions if isinstance(request.dimensions, int) else None,
    )


def _texts(request: EmbeddingRequest) -> list[str | list[int]]:
    """One entry per vector: numbers that stand in no list of their own are one text."""
    given = request.input
    if isinstance(given, str):
        return [given]
    bare = [each for each in given if isinstance(each, int)]
    return [bare] if bare else [each for each in given if not isinstance(each, int)]


def _numbers(data: bytes) -> list[float]:
    numbers = array("f", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
