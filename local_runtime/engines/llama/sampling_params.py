"""A request's sampling parameters as one ``SamplingSpec``, checked.

What a request leaves out takes llama.cpp's own defaults (``common/common.h``), not the plain
distribution: small models need them to make sense.
"""

import os
from typing import Any

import msgspec

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.grammar_text import checked
from plugins.chat import ChatRequest

TEMPERATURE_DEFAULT = 0.8
TOP_K_DEFAULT = 40
TOP_P_DEFAULT = 0.95
MIN_P_DEFAULT = 0.05
# Below this, two logits that differ at all are as good as infinitely far apart.
TEMPERATURE_MIN = 1e-6
SEEDS = 2**32 - 1  # llama.cpp takes 32 bits, and the last value to mean "random"
# Parameters that cut the distribution, which mirostat does in its own way, and their idle values.
_CUTS = {"top_k": 0, "top_p": 1, "min_p": 0, "typical_p": 1, "top_n_sigma": 0, "xtc_probability": 0}


class SamplingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides how one request's tokens are chosen.

    ``min_tokens``: that many are written before the answer may end by itself; stop strings end it
    all the same. ``top_logprobs``: None for no logprobs at all. The rest is named as in
    ``plugins/chat.py``; idle values are those that change nothing.
    """

    temperature: float = TEMPERATURE_DEFAULT
    top_k: int = TOP_K_DEFAULT
    top_p: float = TOP_P_DEFAULT
    min_p: float = MIN_P_DEFAULT
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    min_tokens: int = 0
    logit_bias: dict[int, float] = {}
    grammar: str | None = None
    top_logprobs: int | None = None


_NUMBERS = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability",
    "xtc_threshold", "mirostat", "mirostat_tau", "mirostat_eta", "dry_multiplier", "dry_base",
    "dry_allowed_length", "repetition_penalty", "frequency_penalty", "presence_penalty",
    "min_tokens",
)  # fmt: skip


def spec_of(
    request: ChatRequest, *, vocab_size: int, end_tokens: frozenset[int], grammar: str | None
) -> SamplingSpec:
    """Read the parameters; ``grammar`` is what the rest of the request asks for.

    Raises RequestRefused naming the parameter at fault.
    """
    if isinstance(request.grammar, str):
        if grammar is not None:
            raise RequestRefused(
                "grammar cannot be combined with a response_format, which is a grammar itself.",
                param="grammar",
            )
        grammar = checked(request.grammar)
    bias = _bias_of(request, vocab_size)
    if request.ignore_eos is True:
        bias |= dict.fromkeys(end_tokens, float("-inf"))
    if sum(value == float("-inf") for value in bias.values()) >= vocab_size:
        raise RequestRefused("logit_bias bans every token.", param="logit_bias")
    _refuse_conflicts(request, constrained=grammar is not None)
    given: dict[str, Any] = {
        name: value
        for name in _NUMBERS
        if isinstance(value := getattr(request, name), (int, float))
    }
    if given.get("mirostat"):
        given |= {name: idle for name, idle in _CUTS.items() if name not in given}
    seed = request.seed
    return SamplingSpec(
        **given,
        seed=seed % SEEDS if isinstance(seed, int) else int.from_bytes(os.urandom(4)) % SEEDS,
        logit_bias=bias,
        grammar=grammar,
        top_logprobs=_top_logprobs_of(request),
    )


def _refuse_conflicts(request: ChatRequest, *, constrained: bool) -> None:
    least, most = request.min_tokens, request.output_tokens_limit()
    if isinstance(least, int) and least:
        if most is not None and least > most:
            raise RequestRefused(
                f"min_tokens is {least}, and at most {most} are asked for.", param="min_tokens"
            )
        if constrained:
            raise _conflict("min_tokens")
    if request.ignore_eos is True and constrained:
        raise _conflict("ignore_eos")
    if isinstance(request.mirostat, int) and request.mirostat:
        for name, idle in _CUTS.items():
            value = getattr(request, name)
            if isinstance(value, (int, float)) and value != idle and (name, value) != ("top_k", -1):
                raise RequestRefused(
                    f"{name} cannot be combined with mirostat, which takes its place.", param=name
                )
        if isinstance(request.temperature, (int, float)) and request.temperature < TEMPERATURE_MIN:
            raise RequestRefused("mirostat needs a temperature above 0.", param="temperature")


def _conflict(name: str) -> RequestRefused:
    return RequestRefused(
        f"{name} cannot be combined with a response_format or a grammar, which ends by itself.",
        param=name,
    )


def _bias_of(request: ChatRequest, vocab_size: int) -> dict[int, float]:
    bias: dict[int, float] = {}
    given = request.logit_bias if isinstance(request.logit_bias, dict) else {}
    for key, value in given.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 9 and int(key) < vocab_size):
            raise RequestRefused(
                f"logit_bias: {key[:32]!r} is no token id of this model (0 to {vocab_size - 1}).",
                param="logit_bias",
            )
        # OpenAI: -100 is a ban.
        bias[int(key)] = float("-inf") if value <= -100 else float(value)
    return bias


def _top_logprobs_of(request: ChatRequest) -> int | None:
    top = request.top_logprobs if isinstance(request.top_logprobs, int) else None
    if request.logprobs is True:
        return top or 0
    if top is not None:
        raise RequestRefused("top_logprobs needs logprobs to be true.", param="top_logprobs")
    return None
