"""Reading a chat request for the llama engine: which parameters it honours, and their limits."""

from collections.abc import Sequence

from local_runtime.engines.contract import RequestRefused
from plugins.chat import ChatRequest

# What this engine honours; the gateway refuses everything else by name. ``user``, ``metadata`` and
# the like only label a call: honouring them takes nothing.
SUPPORTED_PARAMS = frozenset(
    {
        "chat_template_kwargs", "dry_allowed_length", "dry_base", "dry_multiplier",
        "frequency_penalty", "function_call", "functions", "grammar", "ignore_eos", "logit_bias",
        "logprobs", "max_completion_tokens", "max_tokens", "metadata", "min_p", "min_tokens",
        "mirostat", "mirostat_eta", "mirostat_tau", "modalities", "n", "parallel_tool_calls",
        "presence_penalty", "prompt_cache_key", "reasoning", "reasoning_effort",
        "repetition_penalty", "response_format", "safety_identifier", "seed", "service_tier",
        "stop", "store", "stream", "stream_options", "temperature", "tool_choice", "tools", "top_k",
        "top_logprobs", "top_n_sigma", "top_p", "typical_p", "user", "xtc_probability",
        "xtc_threshold",
    }
)  # fmt: skip

# Values of parameters that are honoured in part: anything else is refused.
_ONLY: dict[str, tuple[object, ...]] = {
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
}


def check(request: ChatRequest, *, sequences_max: int) -> None:
    """Raise RequestRefused for what this engine cannot do, naming the parameter."""
    given = request.given_params()
    for name in given:
        if name not in SUPPORTED_PARAMS:
            raise RequestRefused(f"{name} is not supported by this model.", param=name)
        allowed = _ONLY.get(name)
        if allowed is not None and getattr(request, name) not in allowed:
            raise RequestRefused(
                f"{name}: this model supports only {' or '.join(map(repr, allowed))}.", param=name
            )
    if request.answers() > sequences_max:
        raise RequestRefused(
            f"n: this model gives at most {sequences_max} answers at once.", param="n"
        )


def stops(request: ChatRequest) -> Sequence[str]:
    """The stop strings, as a list in every case."""
    if isinstance(request.stop, str):
        return [request.stop]
    return request.stop if isinstance(request.stop, list) else []
