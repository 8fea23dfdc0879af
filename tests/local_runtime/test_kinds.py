"""What a model is for, by its header."""

from pathlib import Path
from typing import Any

import pytest

from local_runtime.kinds import Kind, KindError, encoder_context_length, kind_of
from local_runtime.store.gguf import GgufHeader, read_header
from tests.local_runtime.calls import smollm_path


def header(architecture: str = "bert", words: int = 0, **metadata: Any) -> GgufHeader:
    return GgufHeader(
        version=3,
        architecture=architecture,
        tensor_count=1,
        file_bytes=100,
        metadata={f"{architecture}.{name}": value for name, value in metadata.items()},
        array_lengths={"tokenizer.ggml.tokens": words} if words else {},
    )


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (header("llama"), Kind.CHAT),
        (header("qwen3"), Kind.CHAT),
        (header("qwen3", pooling_type=3), Kind.EMBEDDING),
        (header("qwen3", pooling_type=4), Kind.RERANK),
        (header("bert", pooling_type=1), Kind.EMBEDDING),
        (header("nomic-bert", pooling_type=1), Kind.EMBEDDING),
        (header("bert", pooling_type=4), Kind.RERANK),
    ],
)
def test_the_file_says_what_it_is_for(model: GgufHeader, kind: Kind) -> None:
    assert kind_of(model) is kind
    assert kind_of(model, kind) is kind


def test_real_files(minilm_file: Path, reranker_file: Path) -> None:
    assert kind_of(read_header(smollm_path())) is Kind.CHAT
    assert kind_of(read_header(minilm_file)) is Kind.EMBEDDING
    assert kind_of(read_header(reranker_file)) is Kind.RERANK


def test_a_pooled_decoder_may_be_told_to_chat() -> None:
    assert kind_of(header("qwen3", pooling_type=3), "chat") is Kind.CHAT


@pytest.mark.parametrize(
    ("model", "configured", "reason"),
    [
        (header("bert"), "auto", "not there"),
        (header("bert", pooling_type=0), "auto", "0, none"),
        (header("qwen3", pooling_type=7), "auto", "is 7"),
        (header("llama"), "embedding", "does not say how"),
        (header("bert", pooling_type=1), "rerank", "makes vectors"),
        (header("bert", pooling_type=4), "embedding", "makes scores"),
        (header("bert", pooling_type=1), "chat", "cannot write"),
    ],
)
def test_what_cannot_be_is_refused(model: GgufHeader, configured: str, reason: str) -> None:
    with pytest.raises(KindError, match=reason):
        kind_of(model, configured)


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        (header(words=30_522, context_length=512, pooling_type=1), 512),
        (header(words=30_522, context_length=8192, pooling_type=1), 8192),
        # A batch of the longest text keeps a row as wide as the vocabulary for each token.
        (header(words=250_002, context_length=8194, pooling_type=2), 1073),
        (header("qwen3", words=151_669, context_length=32_768, pooling_type=3), 8192),
        (header("qwen3", words=151_669, context_length=32_768, pooling_type=1), 1769),
        (header(pooling_type=1), 8192),
    ],
)
def test_how_long_a_text_may_be(model: GgufHeader, tokens: int) -> None:
    assert encoder_context_length(model) == tokens
