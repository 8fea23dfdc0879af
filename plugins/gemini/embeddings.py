"""Texts → vectors, with ``batchEmbedContents``.

Source: googleapis/python-genai, ``types.py``; Google's page on embeddings (task types). The API
counts no tokens for most models, so that usage is mostly an estimate.
"""

import math

import msgspec
from msgspec import Raw

from plugins.chat import Object
from plugins.contract import AdapterError, FailureKind, Usage
from plugins.gemini import wire
from plugins.gemini.request import path_of
from plugins.http import failures
from plugins.openai_compatible.tasks.usage import tokens_of
from plugins.tasks import EmbeddingRequest, Embeddings

SUPPORTED_PARAMS = frozenset({"dimensions", "encoding_format", "input_type"})
TEXTS_MAX = 100
# Other providers' words for what a text is embedded for.
_KINDS = {
    "query": "RETRIEVAL_QUERY",
    "search_query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "passage": "RETRIEVAL_DOCUMENT",
    "search_document": "RETRIEVAL_DOCUMENT",
    **{
        name.lower(): name
        for name in (
            *("RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION"),
            *("CLUSTERING", "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY"),
        )
    },
}


class _Vector(msgspec.Struct):
    values: list[float]


class _Reply(msgspec.Struct, rename="camel"):
    embeddings: list[_Vector]
    usage_metadata: Raw = wire.NULL


_decoder = msgspec.json.Decoder(_Reply)
_encoder = msgspec.json.Encoder()


def encode(request: EmbeddingRequest, model: str) -> bytes:
    """The body. Raises AdapterError (BAD_REQUEST) that names what cannot be sent."""
    texts = request.texts()
    if len(texts) != inputs_of(request):
        raise _refused("input", "input: this provider takes texts, not tokens")
    if len(texts) > TEXTS_MAX:
        raise _refused("input", f"input: this provider takes at most {TEXTS_MAX} texts")
    more: Object = {}
    if isinstance(request.dimensions, int):
        more["outputDimensionality"] = request.dimensions
    if isinstance(request.input_type, str):
        kind = _KINDS.get(request.input_type.lower())
        if kind is None:
            raise _refused("input_type", f"input_type: expected one of {', '.join(_KINDS)}")
        more["taskType"] = kind
    name = path_of(model)[1:]
    requests = [{"model": name, "content": {"parts": [{"text": text}]}, **more} for text in texts]
    return _encoder.encode({"requests": requests})


def inputs_of(request: EmbeddingRequest) -> int:
    """How many vectors are asked for."""
    said = request.input
    if isinstance(said, str) or (said and all(isinstance(each, int) for each in said)):
        return 1
    return len(said)


def read(body: bytes, request: EmbeddingRequest, key: str | None) -> tuple[Embeddings, Usage]:
    """One vector per text, all of one length, of finite numbers. Raises AdapterError (PROTOCOL)."""
    try:
        reply = _decoder.decode(body)
    except failures.DECODE_ERRORS as error:
        said = failures.clean(body[:512].decode("utf-8", "replace"), key)
        raise _unreadable(f"{str(error)[:120]}: {said}") from error
    vectors = [each.values for each in reply.embeddings]
    if len(vectors) != inputs_of(request):
        raise _unreadable(f"{len(vectors)} vectors for {inputs_of(request)} texts")
    if len({len(each) for each in vectors}) != 1 or not vectors[0]:
        raise _unreadable("the vectors differ in length, or are empty")
    if not all(math.isfinite(number) for each in vectors for number in each):
        raise _unreadable("a vector has numbers that are not finite")
    counted = wire.buckets_of(wire.usage_of(reply.usage_metadata))
    if counted is None:
        counted = Usage(input_tokens=tokens_of(request.text_bytes()), estimated=True)
    return Embeddings(vectors=vectors), counted


def _unreadable(why: str) -> AdapterError:
    return AdapterError(
        FailureKind.PROTOCOL, "the provider's answer cannot be read", detail=why[:300]
    )


def _refused(param: str, message: str) -> AdapterError:
    return AdapterError(FailureKind.BAD_REQUEST, message[:512], param=param)
