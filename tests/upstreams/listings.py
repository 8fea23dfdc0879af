"""Listings of models as providers give them, and what they say.

The forms are those of the providers' API references, by way of the sources named in
``plugins.openai_compatible.presets_clouds``.
"""

from typing import Any

from plugins.contract import Price

Json = dict[str, Any]


def _usd(per_input: float, per_output: float) -> Json:
    return {"input": per_input, "output": per_output}


# One model of each form, as the sources in `presets` show it.
LISTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "openai": (
        {"object": "list", "data": [{"id": "gpt-5", "object": "model", "owned_by": "openai"}]},
        {"price": Price()},
    ),
    "together": (
        [
            {
                "id": "acme/tiny",
                "type": "chat",
                "context_length": 8192,
                "config": {"max_output_length": None},
                "pricing": {"hourly": 0, "input": 0.18, "output": 0.59, "cached_input": 0.05},
            }
        ],
        {
            "price": Price(input=180_000_000, output=590_000_000, cache_read=50_000_000),
            "context_length": 8192,
        },
    ),
    "groq": (
        {
            "data": [
                {
                    "id": "acme/tiny",
                    "active": True,
                    "context_window": 131072,
                    "max_completion_tokens": 32768,
                    "supported_features": ["tools", "json_mode"],
                    "pricing": {"prompt": "0.00000005", "completion": "0.00000008"},
                },
                {"id": "acme/old", "active": False},
            ]
        },
        {
            "price": Price(input=50_000_000, output=80_000_000),
            "context_length": 131072,
            "output_tokens_max": 32768,
        },
    ),
    "openrouter": (
        {
            "data": [
                {
                    "id": "acme/tiny",
                    "context_length": 200000,
                    "architecture": {
                        "input_modalities": ["text", "image", "hologram"],
                        "output_modalities": ["text"],
                    },
                    "top_provider": {"context_length": 131072, "max_completion_tokens": 4096},
                    "pricing": {
                        "prompt": "0.0000002",
                        "completion": "0.0000006",
                        "request": "0.001",
                        "image": "0",
                        "input_cache_read": "0.00000002",
                        "input_cache_write": "0.00000025",
                        "internal_reasoning": "0",
                        "audio": "0.000001",
                    },
                    "supported_parameters": ["tools", "top_k", "reasoning", "top_a"],
                }
            ]
        },
        {
            "price": Price(
                input=200_000_000,
                output=600_000_000,
                cache_read=20_000_000,
                cache_write=250_000_000,
                audio_input=1_000_000_000,
                per_request=1_000_000,
            ),
            "context_length": 131072,
            "output_tokens_max": 4096,
            "input_modalities": frozenset({"text", "image"}),
            "output_modalities": frozenset({"text"}),
        },
    ),
    "baseten": (
        {
            "data": [
                {
                    "id": "acme/tiny",
                    "context_length": 262144,
                    "max_completion_tokens": 16384,
                    "quantization": "fp8",
                    "supported_features": ["tools", "structured_outputs"],
                    "pricing": {"prompt": "0.00000095", "completion": "0.000004"},
                }
            ]
        },
        {
            "price": Price(input=950_000_000, output=4_000_000_000),
            "quantization": "fp8",
            "output_tokens_max": 16384,
        },
    ),
    "deepinfra": (
        {
            "data": [
                {
                    "id": "acme/tiny",
                    "metadata": {
                        "context_length": 131072,
                        "max_tokens": 65536,
                        "pricing": {
                            "input_tokens": 3,
                            "output_tokens": 15.0,
                            "cache_read_tokens": 0.3,
                        },
                    },
                }
            ]
        },
        {
            "price": Price(input=3 * 10**9, output=15 * 10**9, cache_read=3 * 10**8),
            "context_length": 131072,
            "output_tokens_max": 65536,
        },
    ),
    "novita": (
        {
            "data": [
                {
                    "id": "acme/tiny",
                    "context_size": 131072,
                    "input_token_price_per_m": 3900,
                    "output_token_price_per_m": 3900,
                }
            ]
        },
        {"price": Price(input=390_000_000, output=390_000_000), "context_length": 131072},
    ),
    "xai": (
        {
            "models": [
                {
                    "id": "grok-4",
                    "input_modalities": ["text", "image"],
                    "output_modalities": ["text"],
                    "prompt_text_token_price": 30000,
                    "cached_prompt_text_token_price": 7500,
                    "completion_text_token_price": 150000,
                }
            ]
        },
        {"price": Price(input=3 * 10**9, output=15 * 10**9, cache_read=750_000_000)},
    ),
    "mistral": (
        {
            "data": [
                {
                    "id": "mistral-small-latest",
                    "max_context_length": 131072,
                    "capabilities": {"completion_chat": True},
                    "type": "base",
                }
            ]
        },
        {"price": Price(), "context_length": 131072},
    ),
    "vllm": (
        {"data": [{"id": "acme/tiny", "max_model_len": 4096, "root": "acme/tiny"}]},
        {"price": Price(), "context_length": 4096},
    ),
    "llama_server": (
        {"models": [], "data": [{"id": "tiny.gguf", "meta": {"n_ctx_train": 32768}}]},
        {"price": Price(), "context_length": 32768},
    ),
    "hf_router": (
        {
            "data": [
                {
                    "id": "acme/tiny",
                    "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
                    "providers": [
                        {
                            "provider": "a",
                            "status": "error",
                            "pricing": {"input": 0.01, "output": 0.01},
                        },
                        {
                            "provider": "b",
                            "status": "live",
                            "pricing": {"input": 0.5, "output": 0.9},
                        },
                        {
                            "provider": "c",
                            "status": "live",
                            "pricing": _usd(0.2, 0.6),
                            "context_length": 65536,
                            "supports_tools": False,
                            "is_model_author": True,
                        },
                    ],
                },
                {"id": "acme/dead", "providers": [{"provider": "a", "status": "error"}]},
            ]
        },
        {
            "upstream_id": "acme/tiny:cheapest",
            "price": Price(input=200_000_000, output=600_000_000),
            "context_length": 65536,
            "is_model_author": True,
        },
    ),
    "turnpike": (
        {
            "data": [
                {
                    "id": "acme/tiny",
                    "providers": [
                        {"provider": "x", "pricing": _usd(0.2, 0.6)},
                        {
                            "provider": "local",
                            "is_free": True,
                            "pricing": {"input": 0, "output": 0},
                        },
                    ],
                }
            ]
        },
        {"upstream_id": "acme/tiny:cheapest", "price": Price(free=True)},
    ),
}
"""By the plugin's name: the answer, and fields of the one entry that it comes to."""
