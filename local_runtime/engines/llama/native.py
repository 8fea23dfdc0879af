"""The only file that touches llama.cpp's C API: a model, a context, a sampler chain, as objects.

Everything here runs on the engine's one thread. Handles are freed by ``close``; using one after
that is a bug of the caller. Bindings: llama-cpp-python's ``llama_cpp.llama_cpp`` (ctypes).
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import EngineLoadError

_log = logging.getLogger("local_runtime.llama")

_GGML_ERROR = 4  # ggml.h, enum ggml_log_level
TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes function type
def _to_logging(level: int, text: bytes, _user_data: Any) -> None:
    """llama.cpp talks a lot while loading: all of it is for debugging, except errors."""
    line = text.decode("utf-8", "replace").rstrip()
    if line and line != ".":
        _log.log(logging.WARNING if level == _GGML_ERROR else logging.DEBUG, "%s", line)


def start_backend() -> None:
    """Initialise llama.cpp (again is harmless) and send its log to ``logging``."""
    llama_cpp.llama_log_set(_to_logging, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


class Model:
    """Weights and vocabulary."""

    def __init__(self, path: str, progress: Callable[[float], None]) -> None:
        """Load a file; ``progress`` gets fractions. Raises EngineLoadError."""
        params = llama_cpp.llama_model_default_params()

        def report(fraction: float, _user_data: Any) -> bool:
            progress(fraction)
            return True

        self._progress = llama_cpp.llama_progress_callback(report)  # kept: C holds a pointer
        params.progress_callback = self._progress
        if not llama_cpp.llama_supports_gpu_offload():
            params.n_gpu_layers = 0
        self.handle: Any = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.handle:
            raise EngineLoadError("llama.cpp cannot load this file; the log has its reasons")
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.handle)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.trained_context: int = llama_cpp.llama_model_n_ctx_train(self.handle)
        self.add_bos: bool = llama_cpp.llama_vocab_get_add_bos(self.vocab)
        self.bos_text = self._text_of(llama_cpp.llama_vocab_bos(self.vocab))
        self.eos_text = self._text_of(llama_cpp.llama_vocab_eos(self.vocab))
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(1024)
        every = range(self.vocab_size)
        self.end_tokens = frozenset(
            token for token in every if llama_cpp.llama_vocab_is_eog(self.vocab, token)
        )
        control = [token for token in every if llama_cpp.llama_vocab_is_control(self.vocab, token)]
        self.control_texts = frozenset(filter(None, map(self._text_of, control)))
        self.piece_bytes_max = max(len(self.piece(token)) for token in every)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids. ``add_special``: put what the model wants at the start (BOS) there."""
        data = text.encode("utf-8")
        room = len(data) + 16
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self.vocab, data, len(data), tokens, room, add_special, parse_special
        )
        if count < 0:
            raise ValueError(f"llama_tokenize needs room for {-count} tokens, not {room}")
        return tokens[:count]

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; empty for control tokens."""
        found = self._pieces.get(token)
        if found is None:
            size = llama_cpp.llama_token_to_piece(
                self.vocab, token, self._buffer, len(self._buffer), 0, False
            )
            if size < 0:
                self._buffer = ctypes.create_string_buffer(-size)
                return self.piece(token)
            found = self._pieces[token] = self._buffer.raw[:size]
        return found

    def _text_of(self, token: int) -> str:
        if token < 0:
            return ""
        text = llama_cpp.llama_vocab_get_text(self.vocab, token)
        return text.decode("utf-8", "replace") if text else ""

    def close(self) -> None:
        llama_cpp.llama_model_free(self.handle)
        self.handle = None


class Context:
    """One KV cache, shared by ``sequences_max`` sequences, and the batch that feeds it."""

    def __init__(
        self, model: Model, *, cells: int, batch_tokens: int, sequences_max: int, threads: int
    ) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = sequences_max
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.no_perf = True
        self.handle: Any = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise EngineLoadError(f"there is not enough memory for a context of {cells} tokens")
        self.cells: int = llama_cpp.llama_n_ctx(self.handle)
        self._memory: Any = llama_cpp.llama_get_memory(self.handle)
        self._vocab_size = model.vocab_size
        self._room = batch_tokens
        self._batch: Any = llama_cpp.llama_batch_init(batch_tokens, 0, 1)
        self._batch.n_tokens = 0

    def add(self, tokens: Sequence[int], position: int, sequence: int, *, output: bool) -> int:
        """Put tokens of one sequence into the batch; with ``output`` the last one gives logits.

        Returns the batch index of the last token, by which its logits are found.
        """
        batch, at = self._batch, self._batch.n_tokens
        assert at + len(tokens) <= self._room
        for offset, token in enumerate(tokens):
            batch.token[at] = token
            batch.pos[at] = position + offset
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = sequence
            batch.logits[at] = False
            at += 1
        batch.logits[at - 1] = output
        batch.n_tokens = at
        return int(at - 1)

    def decode(self) -> int:
        """Compute the batch and empty it. 0: done. 1: no room in the cache. Negative: broken."""
        result: int = llama_cpp.llama_decode(self.handle, self._batch)
        self._batch.n_tokens = 0
        return result

    def use_threads(self, threads: int) -> None:
        """For the batches from now on."""
        llama_cpp.llama_set_n_threads(self.handle, threads, threads)

    def logits(self, index: int) -> NDArray[np.float32]:
        """Logits of a batch index, shape (vocabulary,): a view that the next ``decode`` ends."""
        pointer = llama_cpp.llama_get_logits_ith(self.handle, index)
        return np.ctypeslib.as_array(pointer, shape=(self._vocab_size,))

    def forget(self, sequence: int) -> None:
        """Free all cells of a sequence."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def share(self, source: int, target: int, tokens: int) -> None:
        """Let ``target`` use the first ``tokens`` cells of ``source`` as its own, uncopied."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, tokens)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self.handle)
        self.handle = None


class Candidates:
    """All tokens with their logits, as the C API's array: what samplers work on."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self._data = np.zeros(len(logits), dtype=TOKEN_DATA)
        self._data["id"] = np.arange(len(logits), dtype=np.int32)
        self._data["logit"] = logits
        self.array = llama_cpp.llama_token_data_array(
            data=self._data.ctypes.data_as(llama_cpp.llama_token_data_p),
            size=len(logits),
            selected=-1,
            sorted=False,
        )

    @classmethod
    def single(cls, token: int) -> "Candidates":
        """Only one token: a cheap question to a grammar."""
        candidates = cls(np.zeros(1, dtype=np.float32))
        candidates._data["id"] = token
        return candidates

    def ban(self, tokens: list[int]) -> None:
        """Rule tokens out. Only before a sampler that sorts was applied: index is token id."""
        self._data["logit"][tokens] = -np.inf

    @property
    def impossible(self) -> bool:
        """Whether every candidate has been ruled out."""
        return bool(np.isneginf(self._data["logit"][: self.array.size]).all())

    @property
    def selected(self) -> int:
        """The token that a chain chose."""
        return int(self.array.data[self.array.selected].id)  # a sampler may have moved `data`

    def apply(self, sampler: Any) -> None:
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(self.array))
