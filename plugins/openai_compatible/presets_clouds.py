"""Presets: companies that serve open weights. The comment over each row says where its facts stand.

``hub`` is huggingface/huggingface_hub ``inference/_providers``, ``litellm`` BerriAI/litellm
``llms/<provider>/chat``, ``vercel`` vercel/ai ``packages/<provider>``, ``genai`` maruel/genai
``providers/<provider>/dto.go``, ``portkey`` Portkey-AI/gateway ``src/providers``, and ``aborts``
the list of providers that stop billing in OpenRouterTeam/docs ``api_reference/streaming``.
"""

from plugins.openai_compatible.preset import (
    LOGPROBS,
    PENALTIES,
    PLAIN_FIELDS,
    SAMPLING,
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

# What vLLM takes (its protocol.py), which several of these run.
_VLLM = params(
    *PENALTIES,
    *LOGPROBS,
    *SAMPLING,
    *("n", "seed", "user", "logit_bias", "parallel_tool_calls", "reasoning_effort"),
    *("chat_template_kwargs", "ignore_eos", "min_tokens", STRUCTURED_OUTPUTS),
)

CLOUDS: tuple[Preset, ...] = (
    # hub; genai (parameters, `reasoning` as its one name, error forms); inference-docs.cerebras.ai
    # resources/openai: no developer role, 400 for penalties and logit_bias; vercel (reasoning sent
    # back).
    Preset(
        name="cerebras",
        title="Cerebras",
        base_url="https://api.cerebras.ai/v1",
        params=params(
            *LOGPROBS,
            *("seed", "user", "parallel_tool_calls", "prediction", "reasoning_effort"),
            *("service_tier", STRUCTURED_OUTPUTS),
        ),
        thoughts=Thoughts.REASONING,
        limit_name="max_completion_tokens",
    ),
    # hub; docs.together.ai reference; genai (a bare list, logprobs as a number, finish "eos",
    # reasoning_tokens and cached_tokens beside the others); aborts. Models that are not serverless
    # are listed at a price of 0, so zero is no price here.
    Preset(
        name="together",
        title="Together AI",
        base_url="https://api.together.xyz/v1",
        params=params(
            *PENALTIES,
            *SAMPLING,
            *("n", "seed", "logit_bias", "reasoning_effort", "reasoning"),
            *("chat_template_kwargs", STRUCTURED_OUTPUTS),
        ),
        limit_name="max_tokens",
        schema_form=SchemaForm.FLAT,
        listing=Listing(prices=PriceForm.PER_MILLION),
        abort_stops_billing=True,
    ),
    # console.groq.com docs/openai: 400 for logprobs, logit_bias, top_logprobs, messages[].name and
    # n > 1; genai and vercel (`reasoning`, x_groq.usage, listing); docs/rate-limits (headers).
    Preset(
        name="groq",
        title="Groq",
        base_url="https://api.groq.com/openai/v1",
        params=params(
            *PENALTIES,
            *("seed", "user", "parallel_tool_calls", "reasoning_effort", "service_tier"),
            STRUCTURED_OUTPUTS,
        ),
        message_fields=PLAIN_FIELDS | {"reasoning"},
        thoughts=Thoughts.REASONING,
        listing=Listing(prices=PriceForm.EACH),
        resets=STANDARD_RESETS,
    ),
    # hub and litellm (schema as json_object); docs.fireworks.ai api-reference; vercel (errors that
    # are strings); aborts.
    Preset(
        name="fireworks",
        title="Fireworks AI",
        base_url="https://api.fireworks.ai/inference/v1",
        params=params(
            *PENALTIES,
            *LOGPROBS,
            *SAMPLING,
            *("n", "seed", "user", "logit_bias", "typical_p", "reasoning_effort"),
            *("parallel_tool_calls", "prediction", STRUCTURED_OUTPUTS),
        ),
        limit_name="max_tokens",
        schema_form=SchemaForm.JSON_OBJECT,
        abort_stops_billing=True,
    ),
    # litellm (parameters; content as a string only). It listed prices per token when last read.
    Preset(
        name="sambanova",
        title="SambaNova",
        base_url="https://api.sambanova.ai/v1",
        params=params("top_k", "parallel_tool_calls", STRUCTURED_OUTPUTS),
        limit_name="max_tokens",
        text_only=TextOnly.ALL,
        listing=Listing(prices=PriceForm.EACH),
    ),
    # novita.ai docs api-reference model-apis-llm-list-models (its /openai/v1 is the current form of
    # hub's /v3/openai; prices in 1/10,000 USD); docs.litellm.ai providers/novita (parameters);
    # portkey (errors that are strings); aborts.
    Preset(
        name="novita",
        title="Novita AI",
        base_url="https://api.novita.ai/openai/v1",
        params=params(
            *PENALTIES,
            *LOGPROBS,
            *SAMPLING,
            *("n", "seed", "logit_bias", STRUCTURED_OUTPUTS),
        ),
        limit_name="max_tokens",
        listing=Listing(prices=PriceForm.NOVITA, complete=True),
        abort_stops_billing=True,
    ),
    # docs.tokenfactory.nebius.com api-reference (formerly api.studio.nebius.ai); litellm.
    Preset(
        name="nebius",
        title="Nebius Token Factory",
        base_url="https://api.tokenfactory.nebius.com/v1",
        params=_VLLM,
        limit_name="max_tokens",
        listing=Listing(path="/models?verbose=true", prices=PriceForm.EACH),
    ),
    # litellm, portkey (parameters); aborts.
    Preset(
        name="hyperbolic",
        title="Hyperbolic",
        base_url="https://api.hyperbolic.xyz/v1",
        params=params(*PENALTIES, *SAMPLING, "n", "seed", "user"),
        limit_name="max_tokens",
        abort_stops_billing=True,
    ),
    # hub, litellm, portkey (URL). What it honours is not documented there beyond the usual.
    Preset(
        name="nscale",
        title="Nscale",
        base_url="https://inference.api.nscale.com/v1",
        params=params(*PENALTIES, "n", "seed"),
        limit_name="max_tokens",
    ),
    # hub, portkey (URL); litellm (parameters; tool_choice).
    Preset(
        name="featherless",
        title="Featherless AI",
        base_url="https://api.featherless.ai/v1",
        params=params(*PENALTIES, *SAMPLING, "n", "seed", "logit_bias", "functions"),
        values=(("tool_choice", ("auto", "none")),),
        limit_name="max_tokens",
    ),
    # hub, portkey (URL); litellm (`reasoning` in place of `reasoning_content` since 2026-05).
    Preset(
        name="ovhcloud",
        title="OVHcloud AI Endpoints",
        base_url="https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        needs_key=False,
        params=_VLLM,
    ),
    # scaleway/docs-content generative-apis using-chat-api (both lists of parameters).
    Preset(
        name="scaleway",
        title="Scaleway Generative APIs",
        base_url="https://api.scaleway.ai/v1",
        params=params("presence_penalty", "logprobs", "seed", STRUCTURED_OUTPUTS),
        limit_name="max_tokens",
    ),
    # vercel (URL, errors that are strings); litellm and genai (parameters, listing).
    Preset(
        name="baseten",
        title="Baseten",
        base_url="https://inference.baseten.co/v1",
        params=params(
            *PENALTIES,
            *LOGPROBS,
            *("top_k", "seed", "user", "parallel_tool_calls", STRUCTURED_OUTPUTS),
        ),
        limit_name="max_tokens",
        listing=Listing(prices=PriceForm.EACH),
    ),
    # hub (URL); litellm (parameters; tool_choice); vercel (reasoning on top of completion_tokens);
    # usage.estimated_cost in USD; metadata.pricing in USD per million; aborts.
    Preset(
        name="deepinfra",
        title="DeepInfra",
        base_url="https://api.deepinfra.com/v1/openai",
        params=params(
            *PENALTIES,
            *SAMPLING,
            *("n", "seed", "user", "logit_bias", "reasoning_effort", STRUCTURED_OUTPUTS),
        ),
        values=(("tool_choice", ("auto", "none")),),
        limit_name="max_tokens",
        reasoning_apart=True,
        listing=Listing(path="/models?filter=with_meta", prices=PriceForm.METADATA, complete=True),
        abort_stops_billing=True,
    ),
    # litellm openai_like/providers.json (content as a string only, max_tokens). It refuses requests
    # without a User-Agent; ours always have one.
    Preset(
        name="publicai",
        title="Public AI",
        base_url="https://api.publicai.co/v1",
        params=params(*PENALTIES, "seed", "n"),
        limit_name="max_tokens",
        text_only=TextOnly.ALL,
    ),
)
