"""The llama.cpp engine for vectors and scores. ``contract.py`` has its rules.

A GGUF file says itself how its model pools what it read: into the mean, the first or the last
token's vector, or through a head into a score. Batches and bills are those of ``text_encoder.py``.
"""

import time
from collections.abc import Callable

from local_runtime.engines.contract import EngineInfo, EngineLoadError, EngineSpec
from local_runtime.engines.llama.encoder_context import EncoderContext, Span
from local_runtime.engines.llama.encoder_load import Encoder, load_encoder
from local_runtime.engines.llama.encoder_size import BATCH_TOKENS
from local_runtime.engines.text_batch import Row, Text
from local_runtime.engines.text_encoder import BATCH_TEXTS, TextEncoder
from local_runtime.lifecycle.memory import memory_now


class EncoderBroken(Exception):
    """llama.cpp failed in a way that leaves its state unknown."""


class LlamaEncoder(TextEncoder):
    """One embedding or reranking model of a GGUF file."""

    def load(self, spec: EngineSpec, progress: Callable[[float], None]) -> EngineInfo:
        """Check the header, load the weights, make the context, and measure what a batch costs."""
        started_ns = time.monotonic_ns()
        taken_before = memory_now()
        self._encoder: Encoder = load_encoder(
            spec, lambda fraction: progress(0.9 * fraction), BATCH_TOKENS, BATCH_TEXTS
        )
        self._context: EncoderContext = self._encoder.context
        self._places = list(range(BATCH_TEXTS))
        self._open(
            self._encoder.intake,
            self._encoder.threads,
            batch_tokens=BATCH_TOKENS,
            whole=not self._encoder.in_parts,
            gives_probability=self._encoder.gives_probability,
        )
        self._calibrate()
        progress(1.0)
        is_rank = self._encoder.is_rank
        return EngineInfo(
            context_length=self._encoder.context_length,
            sequences_max=BATCH_TEXTS,
            threads=self._tuner.settled,
            load_ms=(time.monotonic_ns() - started_ns) // 1_000_000,
            memory_bytes=self._memory_bytes(memory_now() - taken_before),
            output_size=0 if is_rank else self._context.size,
        )

    def _memory_bytes(self, taken: int) -> int:
        """What it took, or what it will take once it has read its longest text, if that is more:
        llama.cpp makes most of it only then.
        """
        return max(taken, self._encoder.bytes_expected) if taken else 0

    def _calibrate(self) -> None:
        """Two small batches: the first warms up, the second is the first guess of the cost."""
        tokens = [min(100, self._encoder.model.vocab_size - 1)] * 16
        for _ in range(2):
            begun_ns = time.monotonic_ns()
            if self._context.compute([Span(tokens, place, 0) for place in range(2)]) != 0:
                raise EngineLoadError("the model was loaded, but its first computation failed")
            self._context.pooled(0)  # waits for what a device may still be doing
            cost_ns = (time.monotonic_ns() - begun_ns) // 32
            for place in range(2):
                self._context.forget(place)
        self._costs.append(max(1, cost_ns))

    def _compute(self, rows: list[Row]) -> None:
        """Run the batch, and take down the pooled output of each text that is at its end."""
        spans = []
        for row in rows:
            text = row.text
            if text.place is None:
                text.place = self._places.pop()
            tokens = text.tokens[text.computed : text.computed + row.tokens]
            spans.append(Span(tokens, text.place, text.computed))
        self._context.use_threads(self._threads(sum(row.tokens for row in rows)))
        result = self._context.compute(spans)
        if result != 0:
            tokens_all = sum(row.tokens for row in rows)
            raise EncoderBroken(f"llama.cpp returned {result} for {tokens_all} tokens")
        for row in rows:
            text = row.text
            text.computed += row.tokens
            if not text.left:
                assert text.place is not None
                self._found(text, self._context.pooled(text.place))

    def _leave(self, text: Text) -> None:
        if text.place is not None:
            self._context.forget(text.place)
            self._places.append(text.place)
            text.place = None

    def unload(self) -> None:
        self._context.close()
        self._encoder.model.close()
