"""The only file that touches llama.cpp's C API: a model, a context, a sampler chain, as objects.

Everything here runs on the engine's one thread. Handles are freed by ``close``; using one after
that is a bug of the caller. Bindings: llama-cpp-python's ``llama_cpp.llama_cpp`` (ctypes).
"""

import ctypes
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.llama import hugepages
from local_runtime.engines.llama.backends import load_backends
from local_runtime.engines.llama.sizing import Size

_log = logging.getLogger("local_runtime.llama")

GGML_ERROR = 4  # ggml.h, enum ggml_log_level


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes function type
def _to_logging(level: int, text: bytes, _user_data: Any) -> None:
    """llama.cpp talks a lot while loading: all of it is for debugging, except errors."""
    line = text.decode("utf-8", "replace").rstrip()
    if line and line != ".":
        _log.log(logging.WARNING if level == GGML_ERROR else logging.DEBUG, "%s", line)


def start_backend(processor_library: str = "") -> None:
    """Initialise llama.cpp (again is harmless) and send its log to ``logging``.

    ``processor_library`` is what ``variants.choose`` found. Raises EngineLoadError.
    """
    llama_cpp.llama_log_set(_to_logging, ctypes.c_void_p(0))
    try:
        load_backends(processor_library)
    except OSError as error:
        raise EngineLoadError(str(error)) from error
    llama_cpp.llama_backend_init()


class Model:
    """Weights and vocabulary."""

    def __init__(
        self,
        path: str,
        progress: Callable[[float], None],
        *,
        gpu_layers: int = 0,
        copied: bool = False,
    ) -> None:
        """Load a file; ``progress`` gets fractions. Raises EngineLoadError.

        ``copied``: there is memory enough for weights that are not mapped from the file.
        """
        params = llama_cpp.llama_model_default_params()
        on_huge_pages = copied and hugepages.offered()
        if on_huge_pages:
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE

        def report(fraction: float, _user_data: Any) -> bool:
            if on_huge_pages and not fraction:  # memory is taken, and nothing read into it yet
                hugepages.ask()
            progress(fraction)
            return True

        self._progress = llama_cpp.llama_progress_callback(report)  # kept: C holds a pointer
        params.progress_callback = self._progress
        params.n_gpu_layers = gpu_layers if llama_cpp.llama_supports_gpu_offload() else 0
        self.handle: Any = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.handle:
            raise EngineLoadError("llama.cpp cannot load this file; the log has its reasons")
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.handle)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        # A recurrent state cannot be cut back to an earlier position.
        self.goes_back = not (
            llama_cpp.llama_model_is_recurrent(self.handle)
            or llama_cpp.llama_model_is_hybrid(self.handle)
        )
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


_logits_at = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ctypes.cast(llama_cpp.llama_get_logits_ith, ctypes.c_void_p).value or 0
)
"""The same function, that gives the address as a number: making a pointer takes longer."""


class State:
    """A sequence's cells, outside of the cache.

    llama.cpp writes a mark and the sequence's id, then how many caches the context has, then for
    each of them how many of its cells the sequence has, and those (``llama_kv_cache`` has this in
    ``state_write``).
    What is kept is the one that is not empty; around it is room for what a context of another
    layout wants to read.
    """

    _HEAD, _COUNT = 8, 4  # bytes

    def __init__(self, context: Any, sequence: int, streams: int) -> None:
        size: int = llama_cpp.llama_state_seq_get_size(context, sequence)
        before = sequence if streams > 1 else 0
        self._margin = self._HEAD + self._COUNT * (llama_cpp.llama_max_parallel_sequences() + 1)
        begin = self._margin - self._COUNT * (before + 1) - self._HEAD
        self._bytes = bytearray(begin + size + self._margin)
        llama_cpp.llama_state_seq_get_data(context, self._at(begin), size, sequence)
        self._head = bytes(self._bytes[begin : begin + self._HEAD])
        self._length = size - self._HEAD - self._COUNT * streams
        self._streams = streams if streams == 1 else 0  # the layout it can be read by as it is

    def _at(self, offset: int) -> Any:
        return (ctypes.c_uint8 * (len(self._bytes) - offset)).from_buffer(self._bytes, offset)

    def __len__(self) -> int:
        return self._length

    @property
    def body(self) -> bytes:
        """The count of cells, their positions, keys and values."""
        return bytes(self._bytes[self._margin : self._margin + self._length])

    def put(self, context: Any, sequence: int, streams: int) -> bool:
        """Give it to an empty sequence; False where there is no room."""
        begin, end = self._margin - self._COUNT - self._HEAD, self._margin + self._length
        empty = self._COUNT * (streams - 1)
        if self._streams != streams:
            count = streams.to_bytes(self._COUNT, sys.byteorder)
            self._bytes[begin : self._margin] = self._head + count
            self._bytes[end : end + empty] = bytes(empty)
            self._streams = streams
        size = end + empty - begin
        return bool(llama_cpp.llama_state_seq_set_data(context, self._at(begin), size, sequence))


class Context:
    """The KV cache of ``sequences`` sequence ids, and the batch that feeds it. It is a unified one
    at first; see ``arrange``.
    """

    def __init__(self, model: Model, size: Size, *, sequences: int) -> None:
        self._model = model
        self._size = size
        self._sequences = sequences
        self.handle: Any = None
        self.streams = 1
        self._row = ctypes.c_float * model.vocab_size
        self._make(1, size.cells)
        self._batch = Batch(size.batch_tokens)

    def arrange(self, streams: int, cells: int) -> None:
        """A new and empty cache of so many cells: for all together (``streams`` 1), or for so many
        sequences (ids from 0 on) an equal part each. Raises EngineLoadError."""
        llama_cpp.llama_free(self.handle)
        self._make(streams, cells)

    def _make(self, streams: int, cells: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = self._size.batch_tokens
        params.type_k, params.type_v = self._size.type_k, self._size.type_v
        params.flash_attn_type = self._size.flash_attn_type
        params.n_seq_max = self._sequences if streams == 1 else streams
        params.n_threads = params.n_threads_batch = self._size.threads[-1]
        params.kv_unified = streams == 1
        params.no_perf = True
        self.handle = llama_cpp.llama_init_from_model(self._model.handle, params)
        if not self.handle:
            raise EngineLoadError(
                f"llama.cpp cannot make a context of {cells} tokens, most likely for want of "
                "memory; the log has its reasons. Lower context_length or sequences_max"
            )
        self.streams = streams
        self.cells: int = llama_cpp.llama_n_ctx(self.handle)
        self._memory: Any = llama_cpp.llama_get_memory(self.handle)
        self._threads: int = self._size.threads[-1]
        self._rows: dict[int, NDArray[np.float32]] = {}  # address → logits that lie there

    @property
    def room(self) -> int:
        """Cells that one sequence may have at most."""
        return self.cells // self.streams

    def add(self, tokens: Sequence[int], position: int, sequence: int, *, outputs: int) -> int:
        """Put tokens of one sequence into the batch; the last ``outputs`` of them give logits.

        Returns the batch index of the last token, by which its logits are found.
        """
        return self._batch.add(tokens, position, sequence, outputs)

    def decode(self) -> int:
        """Compute the batch and empty it. 0: done. 1: no room in the cache. Negative: broken."""
        result: int = llama_cpp.llama_decode(self.handle, self._batch.filled())
        self._batch.clear()
        return result

    def use_threads(self, threads: int) -> None:
        """For the batches from now on."""
        if threads != self._threads:
            llama_cpp.llama_set_n_threads(self.handle, threads, threads)
            self._threads = threads

    def logits(self, index: int) -> NDArray[np.float32]:
        """Logits of a batch index, shape (vocabulary,): a view that the next ``decode`` ends."""
        address = _logits_at(self.handle, index)
        if address is None:
            raise ValueError(f"batch index {index} has no logits")
        found = self._rows.get(address)
        if found is None:
            # What numpy.ctypeslib makes of a pointer is the same, and takes ten times as long.
            row: Any = self._row.from_address(address)
            found = self._rows[address] = np.frombuffer(row, dtype=np.float32)
        return found

    def forget(self, sequence: int) -> None:
        """Free all cells of a sequence."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def truncate(self, sequence: int, length: int) -> None:
        """Free the cells behind the first ``length`` positions of a sequence."""
        if not llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise ValueError(f"this model's memory cannot go back to position {length}")

    def share(self, source: int, target: int, tokens: int) -> None:
        """Let ``target``, which is empty, have the first ``tokens`` cells of ``source`` as its own:
        the same ones, or, where each sequence has a cache, copies.
        """
        if self.streams == 1:
            llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, tokens)
        elif self.restore(target, self.save(source)):
            self.truncate(target, tokens)
        else:
            raise ValueError(f"sequence {target} has no room for what {source} has")

    def save(self, sequence: int) -> State:
        """All cells of a sequence that has any, copied into ordinary memory."""
        return State(self.handle, sequence, self.streams)

    def restore(self, sequence: int, state: State) -> bool:
        """Give an empty sequence the cells that were saved; False where there is no room."""
        return state.put(self.handle, sequence, self.streams)

    def length(self, sequence: int) -> int:
        """Positions of a sequence that have cells, as llama.cpp has it: none for an id that no
        cache is for, about which llama.cpp may not be asked (it ends the process)."""
        if 1 < self.streams <= sequence:
            return 0
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def close(self) -> None:
        llama_cpp.llama_free(self.handle)
        self.handle = None


class Batch:
    """``llama_batch`` over arrays of our own, so that many tokens are written at once."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._token = np.zeros(room, dtype=np.int32)
        self._position = np.zeros(room, dtype=np.int32)
        self._sequence = np.zeros(room, dtype=np.int32)
        self._output = np.zeros(room, dtype=np.int8)
        self._one = np.ones(room, dtype=np.int32)
        first = self._sequence.ctypes.data
        width = self._sequence.itemsize
        self._pointers = np.array([first + width * at for at in range(room)], dtype=np.uintp)
        self._struct = llama_cpp.llama_batch(n_tokens=0, embd=None)
        for name, array in (
            ("token", self._token),
            ("pos", self._position),
            ("n_seq_id", self._one),
            ("seq_id", self._pointers),
            ("logits", self._output),
        ):
            kind: Any = type(getattr(self._struct, name))
            setattr(self._struct, name, ctypes.cast(array.ctypes.data, kind))
        self._count = 0

    def add(self, tokens: Sequence[int], position: int, sequence: int, outputs: int) -> int:
        """See ``Context.add``."""
        begin, end = self._count, self._count + len(tokens)
        if end == begin + 1 <= self._room:  # as for every answer in every step
            self._token[begin], self._position[begin] = tokens[0], position
            self._sequence[begin], self._output[begin] = sequence, outputs
            self._count = end
            return begin
        assert end <= self._room
        self._token[begin:end] = tokens
        self._position[begin:end] = np.arange(position, position + len(tokens))
        self._sequence[begin:end] = sequence
        self._output[begin:end] = 0
        self._output[end - outputs : end] = 1
        self._count = end
        return end - 1

    def filled(self) -> Any:
        """The struct that llama.cpp reads."""
        self._struct.n_tokens = self._count
        return self._struct

    def clear(self) -> None:
        self._count = 0
