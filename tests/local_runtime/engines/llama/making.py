"""GGUF files made for tests: LoRA adapters and projectors with random weights, for SmolLM2-135M.

Which keys and tensors they need is llama.cpp's ``src/llama-adapter.cpp`` and
``tools/mtmd/clip.cpp``.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.local_runtime.gguf_writer import Value, write_gguf

WIDTH = 576  # SmolLM2-135M: the length of its vectors


def lora_file(
    path: Path,
    *,
    seed: int = 1,
    strength: float = 0.3,
    architecture: str = "llama",
    kind: str = "lora",
    width: int = WIDTH,
    layers: int = 10,
) -> Path:
    """A LoRA adapter of rank 4 on the queries and outputs of the first layers' attention."""
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}
    for layer in range(layers):
        for part, outputs in (("attn_q", width), ("attn_output", width)):
            name = f"blk.{layer}.{part}.weight"
            tensors[f"{name}.lora_a"] = random.normal(0, 0.1, (4, width)).astype(np.float32)
            tensors[f"{name}.lora_b"] = random.normal(0, strength, (outputs, 4)).astype(np.float32)
    metadata: dict[str, Value] = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "adapter.type": kind,
        "adapter.lora.alpha": 4.0,
    }
    write_gguf(path, metadata, tensors)
    return path


def projector_file(
    path: Path,
    *,
    seed: int = 1,
    kind: str = "mlp",
    width: int = WIDTH,
    architecture: str = "clip",
) -> Path:
    """Says each picture with 8 vectors or more. ``mlp`` is LLaVA's, ``gemma3`` one whose pictures
    see all of themselves, ``qwen2vl_merger`` one of rows and columns, of any size.
    """
    random = np.random.default_rng(seed)
    inner, layers = 32, 3 if kind == "mlp" else 2

    def some(*shape: int, scale: float = 0.2) -> NDArray[np.float32]:
        return random.normal(0, scale, shape).astype(np.float32)

    patch, side = (14, 56) if kind == "mlp" else (14, 112)
    patches = (side // patch) ** 2
    tensors = {
        "v.patch_embd.weight": some(inner, 3, patch, patch, scale=0.5),
        "v.position_embd.weight": some(patches, inner),
    }
    for layer in range(layers):
        block = f"v.blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors[f"{block}.{name}.weight"] = some(inner, inner)
            tensors[f"{block}.{name}.bias"] = some(inner)
        for name in ("ln1", "ln2"):
            tensors[f"{block}.{name}.weight"] = 1 + some(inner)
            tensors[f"{block}.{name}.bias"] = some(inner)
        tensors[f"{block}.ffn_up.weight"] = some(2 * inner, inner)
        tensors[f"{block}.ffn_up.bias"] = some(2 * inner)
        tensors[f"{block}.ffn_down.weight"] = some(inner, 2 * inner)
        tensors[f"{block}.ffn_down.bias"] = some(inner)
    if kind == "qwen2vl_merger":
        del tensors["v.position_embd.weight"]
        tensors["v.patch_embd.weight.1"] = some(inner, 3, patch, patch, scale=0.5)
        tensors["v.post_ln.weight"], tensors["v.post_ln.bias"] = 1 + some(inner), some(inner)
        merged = 4 * inner
        tensors["mm.0.weight"], tensors["mm.0.bias"] = some(merged, merged), some(merged)
        tensors["mm.2.weight"], tensors["mm.2.bias"] = some(width, merged), some(width)
    elif kind == "mlp":
        tensors["mm.0.weight"], tensors["mm.0.bias"] = some(width, inner), some(width)
        tensors["mm.2.weight"], tensors["mm.2.bias"] = some(width, width, scale=0.05), some(width)
    else:
        tensors["mm.input_projection.weight"] = some(inner, width)
        tensors["mm.soft_emb_norm.weight"] = 1 + some(inner)
        tensors["v.post_ln.weight"], tensors["v.post_ln.bias"] = 1 + some(inner), some(inner)
    metadata: dict[str, Value] = {
        "general.architecture": architecture,
        "clip.has_vision_encoder": True,
        "clip.projector_type": kind,
        "clip.use_gelu": True,
        "clip.vision.image_size": side,
        "clip.vision.patch_size": patch,
        "clip.vision.embedding_length": inner,
        "clip.vision.feed_forward_length": 2 * inner,
        "clip.vision.block_count": layers,
        "clip.vision.projection_dim": width,
        "clip.vision.attention.head_count": 2,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    if kind == "gemma3":
        metadata["clip.vision.projector.scale_factor"] = 2
    write_gguf(path, metadata, tensors)
    return path


def rows_and_columns_file(path: Path, *, width: int = 64) -> Path:
    """A text model that numbers the cells of pictures in rows and columns (M-RoPE): Qwen2-VL's
    architecture with random weights, and an alphabet for a vocabulary."""
    random = np.random.default_rng(3)
    inner, layers, heads = 128, 2, 2

    def some(*shape: int, scale: float = 0.2) -> NDArray[np.float32]:
        return random.normal(0, scale, shape).astype(np.float32)

    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + number) for number in range(256 - len(letters))]
    tokens = [*letters, "\u0120t", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tensors = {
        "token_embd.weight": some(len(tokens), width, scale=1.0),
        "output.weight": some(len(tokens), width),
        "output_norm.weight": 1 + some(width),
    }
    for layer in range(layers):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}.{name}.weight"] = some(width, width)
        for name in ("attn_q", "attn_k", "attn_v"):
            tensors[f"{block}.{name}.bias"] = some(width)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"{block}.{name}.weight"] = 1 + some(width)
        for name in ("ffn_gate", "ffn_up"):
            tensors[f"{block}.{name}.weight"] = some(inner, width)
        tensors[f"{block}.ffn_down.weight"] = some(width, inner)
    metadata: dict[str, Value] = {
        "general.architecture": "qwen2vl",
        "qwen2vl.block_count": layers,
        "qwen2vl.context_length": 2048,
        "qwen2vl.embedding_length": width,
        "qwen2vl.feed_forward_length": inner,
        "qwen2vl.attention.head_count": heads,
        "qwen2vl.attention.head_count_kv": heads,
        "qwen2vl.attention.layer_norm_rms_epsilon": 1e-5,
        "qwen2vl.rope.freq_base": 10000.0,
        "qwen2vl.rope.dimension_sections": [4, 6, 6, 0],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*[1] * (len(tokens) - 3), 3, 3, 3],
        "tokenizer.ggml.merges": ["\u0120 t"],
        "tokenizer.ggml.bos_token_id": len(tokens) - 3,
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
        "tokenizer.chat_template": (
            "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
            "<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"
        ),
    }
    write_gguf(path, metadata, tensors)
    return path
