"""What a GGUF model is for, told from its header alone: conversations, vectors, or scores.

llama.cpp's converter writes ``pooling_type`` into the files of embedding and reranking models, and
into no others, whatever the architecture (Qwen3-Embedding is a ``qwen3``). Architectures that only
encode are no chat models even without it.
"""

from enum import StrEnum

from local_runtime.store.gguf import GgufHeader

CONTEXT_DEFAULT_MAX = 8192
# llama.cpp keeps a row as wide as the vocabulary for each token of a batch, also for encoders
# (src/llama-context.cpp, output_reserve), and a batch must hold the longest text.
_OUTPUT_BYTES_MAX = 1024 * 1024 * 1024
_BYTES_PER_LOGIT = 4
_LAST, _RANK = 3, 4
_POOLINGS = {1: "mean", 2: "cls", _LAST: "last", _RANK: "rank"}

_ENCODERS = frozenset(
    {
        "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert",
        "jina-bert-v2", "jina-bert-v3", "gemma-embedding", "t5encoder",
    }
)  # fmt: skip


class Kind(StrEnum):
    """The values of ``task`` in ``[[local.models]]``."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"


class KindError(Exception):
    """The model cannot do what it is configured for; the text says why, and what to do."""


def kind_of(header: GgufHeader, configured: str = "auto") -> Kind:
    """What the model does, or, where ``configured`` says more than "auto", whether it can do that.

    Raises KindError.
    """
    pooling = pooling_of(header)
    if configured == "auto":
        if pooling is None and not only_encodes(header):
            return Kind.CHAT
        configured = Kind.RERANK if pooling == _RANK else Kind.EMBEDDING
    kind = Kind(configured)
    if kind is Kind.CHAT:
        if only_encodes(header):
            raise KindError(
                f'task = "chat", but a model of the architecture {header.architecture} cannot'
                " write. Leave task out."
            )
        return kind
    if pooling not in _POOLINGS:
        raise KindError(
            f"the file does not say how the model's output is pooled into one vector"
            f" ({header.architecture}.pooling_type is {_told(pooling)}), so it cannot serve"
            " embeddings or rerank. Convert the model again with llama.cpp's converter from a"
            " folder that has its pooling configuration, or take another file."
        )
    if (kind is Kind.RERANK) != (pooling == _RANK):
        does = "scores" if pooling == _RANK else "vectors"
        raise KindError(
            f'task = "{kind}", but the file pools by "{_POOLINGS[pooling]}", which makes {does}.'
            " Leave task out, or take another model."
        )
    return kind


def pooling_of(header: GgufHeader) -> int | None:
    """llama.cpp's number for how the output is pooled; None where the file does not say."""
    value = header.metadata.get(f"{header.architecture}.pooling_type")
    return value if isinstance(value, int) else None


def encoder_context_length(header: GgufHeader) -> int:
    """The longest text, in tokens, where the configuration is silent: the model's own length, as
    far as a batch of it takes no more than about a gibibyte."""
    length = min(header.context_length or CONTEXT_DEFAULT_MAX, CONTEXT_DEFAULT_MAX)
    words = header.array_lengths.get("tokenizer.ggml.tokens", 0)
    if reads_in_parts(header) or not words:
        return length
    affordable = _OUTPUT_BYTES_MAX // (_BYTES_PER_LOGIT * words)
    return max(512, min(length, affordable)) if length > 512 else length


def only_encodes(header: GgufHeader) -> bool:
    """Whether the architecture has no memory and cannot write."""
    return header.architecture in _ENCODERS


def reads_in_parts(header: GgufHeader) -> bool:
    """Whether a long text may come in several batches: only what remembers, looks back, and takes
    the last token for the whole can go on where it was.
    """
    causal = header.metadata.get(f"{header.architecture}.attention.causal", True) is not False
    return causal and not only_encodes(header) and pooling_of(header) in {_LAST, _RANK}


def _told(pooling: int | None) -> str:
    return "not there" if pooling is None else f"{pooling}, none" if not pooling else str(pooling)
