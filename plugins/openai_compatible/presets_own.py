"""Presets: servers of one's own, and routers. For the sources see ``presets_clouds``."""

from plugins.openai_compatible.preset import (
    LOGPROBS,
    PENALTIES,
    SAMPLING,
    STRUCTURED_OUTPUTS,
    Listing,
    Preset,
    PriceForm,
    params,
)

_ENGINE = (
    *PENALTIES,
    *LOGPROBS,
    *SAMPLING,
    *("n", "seed", "user", "logit_bias", "parallel_tool_calls", "reasoning_effort"),
    *("chat_template_kwargs", "ignore_eos", "min_tokens", STRUCTURED_OUTPUTS),
)

ROUTERS: tuple[Preset, ...] = (
    # huggingface/hub-docs inference-providers (listing, `:cheapest`); genai. X-HF-Bill-To and a
    # provider's own path go into the configuration.
    Preset(
        name="hf_router",
        title="Hugging Face",
        base_url="https://router.huggingface.co/v1",
        developer_role=True,
        listing=Listing(prices=PriceForm.ROUTER, complete=True),
    ),
    # OpenRouterTeam/docs api_reference/parameters, /streaming (finish said twice, usage in a chunk
    # with a choice), /limits (reset in ms), guides/overview/models (listing). Attribution headers
    # are optional: give HTTP-Referer and X-Title in the configuration.
    Preset(
        name="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        params=params(
            *PENALTIES,
            *LOGPROBS,
            *SAMPLING,
            *("seed", "user", "logit_bias", "parallel_tool_calls", "prediction", "modalities"),
            *("metadata", "verbosity", "reasoning", "reasoning_effort", "web_search_options"),
            STRUCTURED_OUTPUTS,
        ),
        developer_role=True,
        listing=Listing(prices=PriceForm.EACH, complete=True),
        resets=(("x-ratelimit-remaining", "x-ratelimit-reset"),),
    ),
    # This program's own API. No URL is usual: give that of the other one, with /v1.
    Preset(
        name="turnpike",
        title="Turnpike",
        developer_role=True,
        listing=Listing(prices=PriceForm.ROUTER),
    ),
)

OWN: tuple[Preset, ...] = (
    # ollama/ollama docs/openai.md (parameters; no tool_choice, n, logit_bias or user).
    Preset(
        name="ollama",
        title="Ollama",
        base_url="http://127.0.0.1:11434/v1",
        needs_key=False,
        inlines=True,
        params=params(*PENALTIES, "seed", "reasoning_effort", STRUCTURED_OUTPUTS) - {"tool_choice"},
        limit_name="max_tokens",
        abort_stops_billing=True,
    ),
    # vllm-project/vllm entrypoints/openai/protocol.py; max_model_len in the listing.
    Preset(
        name="vllm",
        title="vLLM",
        base_url="http://127.0.0.1:8000/v1",
        needs_key=False,
        inlines=True,
        params=params(*_ENGINE),
        abort_stops_billing=True,
    ),
    # ggml-org/llama.cpp tools/server/README.md; genai llamacpp (meta.n_ctx in the listing).
    Preset(
        name="llama_server",
        title="llama-server",
        base_url="http://127.0.0.1:8080/v1",
        needs_key=False,
        inlines=True,
        params=params(
            *PENALTIES,
            *LOGPROBS,
            *SAMPLING,
            *("seed", "user", "logit_bias", "typical_p", "parallel_tool_calls", "ignore_eos"),
            *("chat_template_kwargs", "grammar", STRUCTURED_OUTPUTS),
            *("mirostat", "mirostat_eta", "mirostat_tau", "top_n_sigma"),
            *("dry_allowed_length", "dry_base", "dry_multiplier"),
            *("xtc_probability", "xtc_threshold"),
        ),
        renamed=(("repetition_penalty", "repeat_penalty"),),
        limit_name="max_tokens",
        abort_stops_billing=True,
    ),
    # lmstudio.ai docs/app/api/endpoints/openai (parameters).
    Preset(
        name="lm_studio",
        title="LM Studio",
        base_url="http://127.0.0.1:1234/v1",
        needs_key=False,
        inlines=True,
        params=params(
            *PENALTIES, *("top_k", "repetition_penalty", "seed", "logit_bias", STRUCTURED_OUTPUTS)
        ),
        renamed=(("repetition_penalty", "repeat_penalty"),),
        limit_name="max_tokens",
        abort_stops_billing=True,
    ),
    # sgl-project/sglang srt/entrypoints/openai/protocol.py; max_model_len in the listing.
    Preset(
        name="sglang",
        title="SGLang",
        base_url="http://127.0.0.1:30000/v1",
        needs_key=False,
        inlines=True,
        params=params(*_ENGINE),
        abort_stops_billing=True,
    ),
    # huggingface/text-generation-inference docs/openapi.json, ChatRequest: n and logit_bias are
    # documented as ignored; errors are strings with an error_type.
    Preset(
        name="tgi",
        title="Text Generation Inference",
        base_url="http://127.0.0.1:3000/v1",
        needs_key=False,
        inlines=True,
        params=params(*PENALTIES, *LOGPROBS, "seed", STRUCTURED_OUTPUTS),
        limit_name="max_tokens",
        abort_stops_billing=True,
    ),
)
