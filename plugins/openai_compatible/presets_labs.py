"""Presets: companies that serve models of their own. For the sources see ``presets_clouds``."""

from plugins.openai_compatible.preset import (
    LOGPROBS,
    PENALTIES,
    PLAIN_FIELDS,
    STANDARD_RESETS,
    STRUCTURED_OUTPUTS,
    Listing,
    Preset,
    PriceForm,
    SchemaForm,
    TextOnly,
    Thoughts,
    params,
)

# openai/openai-openapi, ChatCompletionRequestMessage: an unknown field is refused with 400.
_OPENAI_FIELDS = PLAIN_FIELDS | {"name", "refusal", "audio", "function_call"}

LABS: tuple[Preset, ...] = (
    # openai/openai-openapi (max_tokens is deprecated and refused by reasoning models); aborts;
    # platform.openai.com docs/guides/rate-limits (headers).
    Preset(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        limit_name="max_completion_tokens",
        developer_role=True,
        message_fields=_OPENAI_FIELDS,
        thoughts=Thoughts.DROPPED,
        abort_stops_billing=True,
        resets=STANDARD_RESETS,
    ),
    # vercel azure (`api-key`; {base}/openai/v1, or deployments with an api-version); aborts. Its
    # /models lists what could be deployed, not what is.
    Preset(
        name="azure_openai",
        title="Azure OpenAI",
        key_header="api-key",
        listing=None,
        limit_name="max_completion_tokens",
        developer_role=True,
        message_fields=_OPENAI_FIELDS,
        thoughts=Thoughts.DROPPED,
        abort_stops_billing=True,
        resets=STANDARD_RESETS,
    ),
    # litellm mistral (parameters; no name, no null fields: 422 "extra_forbidden"), vercel mistral
    # (random_seed; parts of `thinking`; num_cached_tokens; usage unasked with the last chunk, no
    # index on tool calls; "model_length"), genai (errors under `object`, `detail` and `message`).
    Preset(
        name="mistral",
        title="Mistral AI",
        base_url="https://api.mistral.ai/v1",
        params=params(
            *PENALTIES,
            *("n", "seed", "parallel_tool_calls", "prediction", "reasoning_effort", "metadata"),
            STRUCTURED_OUTPUTS,
        ),
        renamed=(("seed", "random_seed"),),
        limit_name="max_tokens",
        stream_options=False,
        message_fields=PLAIN_FIELDS,
        thoughts=Thoughts.DROPPED,
    ),
    # api-docs.deepseek.com create-chat-completion and guides/thinking_mode (reasoning must be sent
    # back); litellm (text as a string), genai (prompt_cache_hit_tokens,
    # "insufficient_system_resource"); aborts. No JSON schema, only json_object.
    Preset(
        name="deepseek",
        title="DeepSeek",
        base_url="https://api.deepseek.com/v1",
        params=params(*PENALTIES, *LOGPROBS, "reasoning_effort"),
        limit_name="max_tokens",
        text_only=TextOnly.ALL,
        thoughts=Thoughts.REASONING_CONTENT,
        abort_stops_billing=True,
    ),
    # litellm xai (parameters, finish "" with tools, no name), vercel xai (reasoning on top of
    # completion_tokens, two forms of errors); docs.x.ai developers/cost-tracking
    # (cost_in_usd_ticks) and rest-api-reference language-models (prices); aborts.
    Preset(
        name="xai",
        title="xAI",
        base_url="https://api.x.ai/v1",
        params=params(
            *LOGPROBS,
            *("n", "seed", "user", "logit_bias", "parallel_tool_calls", "reasoning_effort"),
            STRUCTURED_OUTPUTS,
        )
        - {"stop"},
        limit_name="max_completion_tokens",
        message_fields=PLAIN_FIELDS | {"reasoning_content"},
        thoughts=Thoughts.REASONING_CONTENT,
        reasoning_apart=True,
        listing=Listing(path="/language-models", prices=PriceForm.XAI),
        abort_stops_billing=True,
    ),
    # docs.cohere.com docs/compatibility-api (both lists of parameters, reasoning_effort); hub
    # (schema as json_object); aborts.
    Preset(
        name="cohere",
        title="Cohere",
        base_url="https://api.cohere.ai/compatibility/v1",
        params=params(*PENALTIES, "seed", "reasoning_effort", STRUCTURED_OUTPUTS) - {"tool_choice"},
        values=(("reasoning_effort", ("none", "high")),),
        limit_name="max_tokens",
        schema_form=SchemaForm.JSON_OBJECT,
        abort_stops_billing=True,
    ),
    # hub zai_org (URL, Accept-Language); litellm zai (parameters; lists in the content of tools and
    # assistants are dropped in silence). finish "sensitive" and "network_error": docs.z.ai.
    Preset(
        name="zai",
        title="Z.ai",
        base_url="https://api.z.ai/api/paas/v4",
        headers=(("accept-language", "en-US,en"),),
        params=params(),
        limit_name="max_tokens",
        text_only=TextOnly.ALL_BUT_USER,
        thoughts=Thoughts.REASONING_CONTENT,
    ),
)
