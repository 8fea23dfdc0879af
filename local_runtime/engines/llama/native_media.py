"""The only file that touches libmtmd, llama.cpp's library for pictures: a projector as an object.

A projector is a second model that turns a picture into vectors, which the language model reads in
the place of tokens. Loaded only where one is configured. Everything here runs on the engine's one
thread; handles are freed by ``close``. Reference: ``tools/mtmd/mtmd.h`` and ``mtmd-helper.h``.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp
from numpy.typing import NDArray

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.llama import native
from local_runtime.engines.llama.pictures import BadPicture

Vectors = NDArray[np.float32]
# What is no picture libmtmd hands to ffmpeg, as a video; nothing of a client's goes to a program.
_NO_PROGRAMS = b"/dev/null"


class Slice:
    """A picture, or a part of one, that is read as ``tokens`` cells and moves on ``positions``.

    The two differ for models that number cells in rows and columns (M-RoPE). It holds the pixels,
    or, where these are known already, the ``vectors`` that the projector made of them.
    """

    def __init__(self, chunk: Any, vectors: Vectors | None = None) -> None:
        """A copy of libmtmd's; ``chunk`` stays the caller's."""
        self.chunk = mtmd_cpp.mtmd_input_chunk_copy(chunk)
        self.tokens: int = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
        self.positions: int = mtmd_cpp.mtmd_input_chunk_get_n_pos(chunk)
        self.vectors = vectors

    def outline(self) -> "Slice":
        """The same without the pixels."""
        chunk = mtmd_cpp.mtmd_input_chunk_get_placeholder(self.chunk)
        try:
            return Slice(chunk)
        finally:
            mtmd_cpp.mtmd_input_chunk_free(chunk)

    def close(self) -> None:
        """Free it; again is harmless."""
        if self.chunk is not None:
            mtmd_cpp.mtmd_input_chunk_free(self.chunk)
            self.chunk = None


class Projector:
    """A loaded projector, for one model."""

    def __init__(self, path: str, model: native.Model, *, threads: int) -> None:
        """Load a file that was checked before. Raises EngineLoadError."""
        mtmd_cpp.mtmd_helper_log_set(native._to_logging, ctypes.c_void_p(0))
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = llama_cpp.llama_supports_gpu_offload()
        params.print_timings = False
        params.warmup = False  # whoever measures it warms it up
        params.n_threads = threads
        self._handle: Any = mtmd_cpp.mtmd_init_from_file(path.encode(), model.handle, params)
        if not self._handle:
            raise EngineLoadError(
                "the projector does not fit this model, or is of a kind that llama.cpp does not "
                "know; the log has its reasons"
            )
        if not mtmd_cpp.mtmd_support_vision(self._handle):
            self.close()
            raise EngineLoadError("the projector reads no pictures")
        self.width: int = llama_cpp.llama_model_n_embd_inp(model.handle)
        self.rows_and_columns: bool = mtmd_cpp.mtmd_decode_use_mrope(self._handle)
        # Whether the cells of a picture see each other in both directions: then it is one batch.
        self.whole: bool = mtmd_cpp.mtmd_decode_use_non_causal(self._handle, None)

    def read(self, data: bytes) -> list[list[int] | Slice]:
        """A picture, as tokens of text that stand around its slices, and its slices.

        ``data`` was looked at by ``pictures.examine``. Raises BadPicture where it still is damaged.
        """
        options = mtmd_cpp.mtmd_helper_init_opt_default()
        options.video_params.ffmpeg_bin_dir = _NO_PROGRAMS
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        found = mtmd_cpp.mtmd_helper_bitmap_init_from_buf_wrapper(
            self._handle, buffer, len(data), False, options
        )
        if found.video_ctx:
            mtmd_cpp.mtmd_helper_video_free(found.video_ctx)
        if not found.bitmap:
            raise BadPicture("the picture is damaged.")
        try:
            return self._slices(found.bitmap)
        finally:
            mtmd_cpp.mtmd_bitmap_free(found.bitmap)

    def blank(self, side: int) -> list[list[int] | Slice]:
        """A grey square of so many pixels a side."""
        pixels = (ctypes.c_uint8 * (side * side * 3))(*([128] * (side * side * 3)))
        bitmap = mtmd_cpp.mtmd_bitmap_init(side, side, pixels)
        try:
            return self._slices(bitmap)
        finally:
            mtmd_cpp.mtmd_bitmap_free(bitmap)

    def _slices(self, bitmap: Any) -> list[list[int] | Slice]:
        part = mtmd_cpp.mtmd_input_part(bitmap=bitmap)
        parts = (ctypes.POINTER(mtmd_cpp.mtmd_input_part) * 1)(ctypes.pointer(part))
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        try:
            if mtmd_cpp.mtmd_tokenize_from_parts(self._handle, chunks, parts, 1, False) != 0:
                raise BadPicture("the model cannot take a picture of this size or shape.")
            return list(_pieces(chunks))
        finally:
            mtmd_cpp.mtmd_input_chunks_free(chunks)

    def encode(self, part: Slice) -> Vectors:
        """Its vectors, shape (tokens, width): the projector's whole work, not to be interrupted.

        Raises BadPicture where the projector fails on it.
        """
        if mtmd_cpp.mtmd_encode_chunk(self._handle, part.chunk) != 0:
            raise BadPicture("the model cannot read this picture.")
        found = mtmd_cpp.mtmd_get_output_embd(self._handle)
        return np.ctypeslib.as_array(found, shape=(part.tokens, self.width)).copy()

    def decode(
        self,
        context: native.Context,
        part: Slice,
        vectors: Vectors,
        *,
        begin: int,
        position: int,
        sequence: int,
    ) -> int:
        """Put vectors into the cache, as cells ``begin`` and on of a slice that stands at
        ``position`` of a sequence. Returns what ``llama_decode`` does. No logits come of it.
        """
        count = len(vectors)
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        places = self._places(part, begin, count, position)
        ones = np.ones(count, dtype=np.int32)
        silent = np.zeros(count, dtype=np.int8)
        of = (llama_cpp.llama_seq_id * 1)(sequence)
        pointer = ctypes.cast(of, ctypes.POINTER(llama_cpp.llama_seq_id))
        batch = llama_cpp.llama_batch(
            n_tokens=count,
            embd=rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            pos=places.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos)),
            n_seq_id=ones.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=(ctypes.POINTER(llama_cpp.llama_seq_id) * count)(*([pointer] * count)),
            logits=silent.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        if self.whole:
            llama_cpp.llama_set_causal_attn(context.handle, False)
        try:
            result: int = llama_cpp.llama_decode(context.handle, batch)
        finally:
            if self.whole:
                llama_cpp.llama_set_causal_attn(context.handle, True)
        return result

    def _places(self, part: Slice, begin: int, count: int, position: int) -> NDArray[np.int32]:
        """Positions as the batch wants them: four of each cell, kind by kind, where the model
        numbers rows and columns."""
        if not self.rows_and_columns:
            return np.arange(position + begin, position + begin + count, dtype=np.int32)
        places = np.zeros((4, count), dtype=np.int32)
        tokens = mtmd_cpp.mtmd_input_chunk_get_tokens_image(part.chunk)
        for at in range(count):
            place = mtmd_cpp.mtmd_image_tokens_get_decoder_pos(tokens, position, begin + at)
            places[:, at] = place.t, place.y, place.x, place.z
        return places.reshape(-1)

    def close(self) -> None:
        """Free it; again is harmless."""
        if self._handle:
            mtmd_cpp.mtmd_free(self._handle)
            self._handle = None


def _pieces(chunks: Any) -> Iterator[list[int] | Slice]:
    for at in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
        chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, at)
        if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t()
            tokens = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            yield tokens[: count.value]
        else:
            yield Slice(chunk)
