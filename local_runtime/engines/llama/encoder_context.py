"""llama.cpp as an encoder: a context that gives one pooled vector, or score, per sequence.

With ``native.py`` and what else lies in this folder, the only code that touches llama.cpp's C API
(llama-cpp-python's ``llama_cpp.llama_cpp``). Handles are freed by ``close``.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.llama.native import Model

MEAN, CLS, LAST, RANK = 1, 2, 3, 4  # llama.h, enum llama_pooling_type; 0 is "none"
_SIDE_BY_SIDE = 256  # llama.cpp's LLAMA_MAX_SEQ


class Span(NamedTuple):
    """Tokens of one text in a batch: its sequence, and the place of the first of them in it."""

    tokens: Sequence[int]
    sequence: int
    position: int


class EncoderContext:
    """One context and its batch. ``remembers``: tokens of earlier batches are seen by later ones of
    the same sequence, so that a text may come in parts (models with a KV cache).
    """

    def __init__(
        self,
        model: Model,
        *,
        batch_tokens: int,
        cells: int,
        texts_max: int,
        threads: int,
        flash_attention: bool | None = None,
    ) -> None:
        """Raises EngineLoadError."""
        assert texts_max <= _SIDE_BY_SIDE
        params = llama_cpp.llama_context_default_params()
        params.embeddings = True
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = texts_max
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.no_perf = True
        if flash_attention is not None:
            params.flash_attn_type = (
                llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
                if flash_attention
                else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            )
        self.handle: Any = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise EngineLoadError(
                f"there is not enough memory to read {batch_tokens} tokens at once; a lower"
                " context_length needs less"
            )
        self.pooling: int = llama_cpp.llama_pooling_type(self.handle)
        self._memory: Any = llama_cpp.llama_get_memory(self.handle)
        self.causal = bool(llama_cpp.llama_get_causal_attn(self.handle)) and bool(self._memory)
        self.remembers = bool(self._memory)
        self.size: int = (
            llama_cpp.llama_model_n_cls_out(model.handle)
            if self.pooling == RANK
            else llama_cpp.llama_model_n_embd_out(model.handle)
        )
        self.room = batch_tokens
        self._make_batch(batch_tokens)

    def _make_batch(self, room: int) -> None:
        """A batch over arrays of our own, which are filled a text at a time."""
        self._tokens: NDArray[np.int32] = np.zeros(room, np.int32)
        self._positions: NDArray[np.int32] = np.zeros(room, np.int32)
        self._sequences: NDArray[np.int32] = np.zeros(room, np.int32)
        self._ones: NDArray[np.int32] = np.ones(room, np.int32)
        self._outputs: NDArray[np.int8] = np.ones(room, np.int8)  # pooling reads every token
        number = ctypes.POINTER(ctypes.c_int32)
        start, width = self._sequences.ctypes.data, self._sequences.itemsize
        places = [ctypes.cast(start + at * width, number) for at in range(room)]
        self._places = (number * (room + 1))(*places)
        self._batch = llama_cpp.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token)),
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos)),
            n_seq_id=self._ones.ctypes.data_as(number),
            seq_id=ctypes.cast(self._places, ctypes.POINTER(number)),
            logits=self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def compute(self, spans: Sequence[Span]) -> int:
        """Run all spans as one batch. 0: done. Anything else: broken, as ``llama_decode`` says."""
        at = 0
        for span in spans:
            end = at + len(span.tokens)
            self._tokens[at:end] = span.tokens
            self._positions[at:end] = range(span.position, span.position + len(span.tokens))
            self._sequences[at:end] = span.sequence
            at = end
        self._batch.n_tokens = at
        run = llama_cpp.llama_decode if self.remembers else llama_cpp.llama_encode
        result: int = run(self.handle, self._batch)
        return result

    def pooled(self, sequence: int) -> NDArray[np.float32]:
        """A copy of what the last batch gave for a sequence, shape (``size``,)."""
        pointer = llama_cpp.llama_get_embeddings_seq(self.handle, sequence)
        return np.array(np.ctypeslib.as_array(pointer, shape=(self.size,)))

    def forget(self, sequence: int) -> None:
        """Free what is remembered of a sequence."""
        if self.remembers:
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def use_threads(self, threads: int) -> None:
        """For the batches from now on."""
        llama_cpp.llama_set_n_threads(self.handle, threads, threads)

    def close(self) -> None:
        llama_cpp.llama_free(self.handle)
        self.handle = None
