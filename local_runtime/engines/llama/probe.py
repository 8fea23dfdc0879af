"""Does this build of llama.cpp run on this processor? Run in a child: the answer may be its death.

A tiny model of random weights is made in a temporary folder, and computed in every layout that has
kernels of its own: a prompt, which uses the matrix kernels, and one more token, which uses the
vector kernels. Each must agree with the plain 32-bit one, since a wrongly compiled kernel can also
answer nonsense. The last line on standard output is the verdict.
"""

import ctypes
import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUNS, NOT_SUPPORTED, WRONG = 0, 3, 4
# llama.h, enum llama_ftype
_LAYOUTS = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K_M": 15}
_AGREEMENT_MIN = 0.7  # cosine; 4-bit layouts of random weights reach 0.95, nonsense 0.1
_WIDTH, _INNER, _VOCABULARY, _LAYERS, _PROMPT = 256, 512, 256, 2, 48
_U32, _F32, _STRING = 4, 6, 8
_ALIGNMENT = 32


def answer(order: str) -> int:
    """What ``variants.py`` asks, as JSON: try one library, or print the merits of several; or
    what ``fitting.py`` does.
    """
    asked = json.loads(order)
    if "scores" in asked:
        for path in asked["scores"]:
            print(path, _score(path), sep="\t", flush=True)
        return RUNS
    if "do" in asked:
        from local_runtime.engines.llama import requantize

        return requantize.answer(asked)
    return main(asked["library"])


def _score(path: str) -> int:
    """llama.cpp's own measure: 0 where the processor lacks something that this one needs."""
    try:
        return max(0, int(ctypes.CDLL(path).ggml_backend_score()))
    except (OSError, AttributeError):
        return 0


def main(library: str) -> int:
    """The exit status: RUNS, NOT_SUPPORTED or WRONG; or whatever the processor makes of it.

    ``library`` is the processor's backend to load first, empty where it is built in.
    """
    import llama_cpp

    from local_runtime.engines.llama.backends import load_backend

    if library and not load_backend(Path(library)):
        print(f"{Path(library).name}: llama.cpp says that it is not for this processor")
        return NOT_SUPPORTED
    llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    with tempfile.TemporaryDirectory(prefix="turnpike-probe-") as folder:
        plain = Path(folder, "plain.gguf")
        write_tiny_model(plain)
        wanted = _logits(llama_cpp, plain)
        for name, number in _LAYOUTS.items():
            found = _logits(llama_cpp, _quantised(llama_cpp, plain, name, number))
            agreement = float(
                found @ wanted / (np.linalg.norm(found) * np.linalg.norm(wanted) + 1e-9)
            )
            if not agreement >= _AGREEMENT_MIN:  # also when it is not a number
                print(f"{name} computes something else than it should (agreement {agreement:.2f})")
                return WRONG
    print("runs")
    return RUNS


def _quantised(llama_cpp: Any, plain: Path, name: str, number: int) -> Path:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = number, 1
    target = plain.with_name(f"{name}.gguf")
    status = llama_cpp.llama_model_quantize(
        str(plain).encode(), str(target).encode(), ctypes.byref(params)
    )
    if status:
        raise RuntimeError(f"the tiny model cannot be made in {name}")
    return target


def _logits(llama_cpp: Any, path: Path) -> NDArray[np.float32]:
    """Of the last prompt token and of one more, one behind the other."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise RuntimeError(f"{path.name} of the probe cannot be loaded")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 64, 1, 1
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        raise RuntimeError("no context for the tiny model")
    found = []
    for tokens in ([token * 7 % _VOCABULARY for token in range(_PROMPT)], [5]):
        array = (ctypes.c_int32 * len(tokens))(*tokens)  # kept: the batch only points to it
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        if llama_cpp.llama_decode(context, batch):
            raise RuntimeError("the tiny model cannot be computed")
        pointer = llama_cpp.llama_get_logits_ith(context, -1)
        found.append(np.ctypeslib.as_array(pointer, shape=(_VOCABULARY,)).copy())
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return np.concatenate(found)


def write_tiny_model(path: Path) -> None:
    """A GGUF file (ggml-org/ggml, ``docs/gguf.md``) of the architecture ``llama``, half a million
    weights, without a vocabulary.
    """
    random = np.random.default_rng(1)
    shapes = {"token_embd": (_VOCABULARY, _WIDTH), "output": (_VOCABULARY, _WIDTH)}
    for layer in range(_LAYERS):
        shapes |= {f"blk.{layer}.attn_{part}": (_WIDTH, _WIDTH) for part in ("q", "output")}
        shapes |= {f"blk.{layer}.attn_{part}": (_WIDTH // 2, _WIDTH) for part in ("k", "v")}
        shapes |= {f"blk.{layer}.ffn_{part}": (_INNER, _WIDTH) for part in ("gate", "up")}
        shapes[f"blk.{layer}.ffn_down"] = (_WIDTH, _INNER)
    tensors = {
        f"{name}.weight": random.normal(0, 0.06, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    norms = ["output_norm"] + [
        f"blk.{layer}.{part}_norm" for layer in range(_LAYERS) for part in ("attn", "ffn")
    ]
    tensors |= {f"{name}.weight": np.ones(_WIDTH, dtype=np.float32) for name in norms}
    numbers = {
        "context_length": 64, "embedding_length": _WIDTH, "block_count": _LAYERS,
        "feed_forward_length": _INNER, "attention.head_count": 4, "attention.head_count_kv": 2,
        "vocab_size": _VOCABULARY,
    }  # fmt: skip
    entries = [
        _text("general.architecture") + struct.pack("<I", _STRING) + _text("llama"),
        _text("tokenizer.ggml.model") + struct.pack("<I", _STRING) + _text("no_vocab"),
        _text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", _F32, 1e-5),
    ]
    entries += [_text(f"llama.{k}") + struct.pack("<II", _U32, v) for k, v in numbers.items()]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries)
    offset = 0
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]  # the innermost first
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", 0, offset)
        offset += tensor.nbytes  # all are multiples of the alignment
    head += b"\0" * (-len(head) % _ALIGNMENT)
    path.write_bytes(head + b"".join(tensor.tobytes() for tensor in tensors.values()))


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _quiet(_level: int, _text: bytes, _user_data: Any) -> None:
    """What llama.cpp says about a model of random weights interests nobody."""


_silence = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_quiet)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
