"""What llama.cpp's own helper makes of a prompt with a picture: the engine must say the same."""

import ctypes

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp

from local_runtime.engines.llama.engine import LlamaEngine


def as_llama_cpp_reads_it(
    engine: LlamaEngine, system: str, before: str, picture: bytes, after: str
) -> str:
    """Twelve greedy tokens, the prompt read by ``mtmd_helper_eval_chunks`` in its own context."""
    assert engine._looking is not None
    model, handle = engine._model, engine._looking._reader._projector._handle
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 512, 1, 1
    context = llama_cpp.llama_init_from_model(model.handle, params)
    buffer = (ctypes.c_uint8 * len(picture)).from_buffer_copy(picture)
    bitmap = mtmd_cpp.mtmd_helper_bitmap_init_from_buf(handle, buffer, len(picture), False)
    prompt = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{before}"
    prompt += mtmd_cpp.mtmd_default_marker().decode()
    prompt += f"{after}<|im_end|>\n<|im_start|>assistant\n"
    text = mtmd_cpp.mtmd_input_text(prompt.encode(), len(prompt.encode()), False, True)
    chunks = mtmd_cpp.mtmd_input_chunks_init()
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    assert mtmd_cpp.mtmd_tokenize(handle, chunks, ctypes.byref(text), bitmaps, 1) == 0
    position = llama_cpp.llama_pos(0)
    failed = mtmd_cpp.mtmd_helper_eval_chunks(
        handle, context, chunks, 0, 0, 512, True, ctypes.byref(position)
    )
    assert failed == 0
    said = b""
    at = position.value
    for _ in range(12):
        logits = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(context, -1), shape=(model.vocab_size,)
        )
        token = int(logits.argmax())
        said += model.piece(token)
        batch = llama_cpp.llama_batch_init(1, 0, 1)
        batch.n_tokens, batch.token[0], batch.pos[0] = 1, token, at
        batch.n_seq_id[0], batch.seq_id[0][0], batch.logits[0] = 1, 0, True
        assert llama_cpp.llama_decode(context, batch) == 0
        llama_cpp.llama_batch_free(batch)
        at += 1
    mtmd_cpp.mtmd_input_chunks_free(chunks)
    mtmd_cpp.mtmd_bitmap_free(bitmap)
    llama_cpp.llama_free(context)
    return said.decode("utf-8", "replace")
