"""How the next token is chosen: a request's parameters as a ``SamplingSpec``, and its chain.

Order of the chain: logit_bias, penalties, top_k, typical_p, top_p, min_p, temperature, the draw.
What a request leaves out takes llama.cpp's own defaults (``common/common.h``), not the plain
distribution: small models need them to make sense.
"""

import os
from typing import Any

import llama_cpp
import msgspec
import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import RequestRefused, TokenLogprob, TopToken
from local_runtime.engines.llama.native import Candidates, Context, Model
from plugins.chat import ChatRequest

TEMPERATURE_DEFAULT = 0.8
TOP_K_DEFAULT = 40
TOP_P_DEFAULT = 0.95
MIN_P_DEFAULT = 0.05
_SEEDS = 2**32 - 1  # llama.cpp takes 32 bits, and the last value to mean "random"
_SEED_STEP = 0x9E3779B9
_MIN_KEEP = 1


class SamplingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides how one request's tokens are chosen."""

    temperature: float = TEMPERATURE_DEFAULT
    top_k: int = TOP_K_DEFAULT
    top_p: float = TOP_P_DEFAULT
    min_p: float = MIN_P_DEFAULT
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    logit_bias: dict[int, float] = {}
    grammar: str | None = None
    top_logprobs: int | None = None  # None: no logprobs at all


def spec_of(
    request: ChatRequest, *, vocab_size: int, end_tokens: frozenset[int], grammar: str | None
) -> SamplingSpec:
    """Read the parameters. Raises RequestRefused naming the one at fault."""

    def given(name: str, default: float) -> float:
        value = getattr(request, name)
        return value if isinstance(value, (int, float)) else default

    bias = _bias_of(request, vocab_size)
    if request.ignore_eos is True:
        if grammar is not None:
            raise RequestRefused(
                "ignore_eos cannot be combined with a response_format, which ends by itself.",
                param="ignore_eos",
            )
        bias |= dict.fromkeys(end_tokens, float("-inf"))
    if sum(value == float("-inf") for value in bias.values()) >= vocab_size:
        raise RequestRefused("logit_bias bans every token.", param="logit_bias")
    seed = request.seed
    return SamplingSpec(
        temperature=given("temperature", TEMPERATURE_DEFAULT),
        top_k=int(given("top_k", TOP_K_DEFAULT)),
        top_p=given("top_p", TOP_P_DEFAULT),
        min_p=given("min_p", MIN_P_DEFAULT),
        typical_p=given("typical_p", 1.0),
        repetition_penalty=given("repetition_penalty", 1.0),
        frequency_penalty=given("frequency_penalty", 0.0),
        presence_penalty=given("presence_penalty", 0.0),
        seed=seed % _SEEDS if isinstance(seed, int) else int.from_bytes(os.urandom(4)) % _SEEDS,
        logit_bias=bias,
        grammar=grammar,
        top_logprobs=_top_logprobs_of(request),
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


class Sampler:
    """One sequence's chain and grammar. ``close`` frees them."""

    def __init__(
        self, model: Model, spec: SamplingSpec, prompt: list[int], *, index: int, window: int
    ) -> None:
        """``index`` is the choice of n, each with a seed of its own; ``window`` bounds penalties.

        Raises RequestRefused when llama.cpp does not take the grammar: never sampled without it.
        """
        self._model = model
        self._spec = spec
        self._banned = [t for t, bias in spec.logit_bias.items() if bias == float("-inf")]
        self._grammar: Any = None
        if spec.grammar is not None:
            self._grammar = llama_cpp.llama_sampler_init_grammar(
                model.vocab, spec.grammar.encode("utf-8"), b"root"
            )
            if not self._grammar:
                raise RequestRefused(
                    "response_format: this schema cannot be enforced; it is too large or refers "
                    "to itself without an end.",
                    param="response_format",
                )
        params = llama_cpp.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain: Any = llama_cpp.llama_sampler_chain_init(params)
        for part in self._parts(spec, prompt, index, window):
            llama_cpp.llama_sampler_chain_add(self._chain, part)

    def _parts(self, spec: SamplingSpec, prompt: list[int], index: int, window: int) -> list[Any]:
        size = self._model.vocab_size
        parts: list[Any] = []
        if spec.logit_bias:
            pairs = (llama_cpp.llama_logit_bias * len(spec.logit_bias))()
            for pair, (token, bias) in zip(pairs, spec.logit_bias.items(), strict=True):
                pair.token, pair.bias = token, bias
            parts.append(llama_cpp.llama_sampler_init_logit_bias(size, len(pairs), pairs))
        if spec.repetition_penalty != 1.0:
            # As in transformers, the prompt counts as well; OpenAI's two penalties look only at
            # what was generated.
            repetition = llama_cpp.llama_sampler_init_penalties(
                size, window, spec.repetition_penalty, 0.0, 0.0
            )
            for token in prompt:
                llama_cpp.llama_sampler_accept(repetition, token)
            parts.append(repetition)
        if spec.frequency_penalty or spec.presence_penalty:
            parts.append(
                llama_cpp.llama_sampler_init_penalties(
                    size, window, 1.0, spec.frequency_penalty, spec.presence_penalty
                )
            )
        if spec.temperature <= 0:
            return [*parts, llama_cpp.llama_sampler_init_greedy()]
        if spec.top_k > 0:
            parts.append(llama_cpp.llama_sampler_init_top_k(spec.top_k))
        if 0 < spec.typical_p < 1:
            parts.append(llama_cpp.llama_sampler_init_typical(spec.typical_p, _MIN_KEEP))
        if spec.top_p < 1:
            parts.append(llama_cpp.llama_sampler_init_top_p(spec.top_p, _MIN_KEEP))
        if spec.min_p > 0:
            parts.append(llama_cpp.llama_sampler_init_min_p(spec.min_p, _MIN_KEEP))
        parts.append(llama_cpp.llama_sampler_init_temp(spec.temperature))
        seed = (spec.seed + index * _SEED_STEP) % _SEEDS
        parts.append(llama_cpp.llama_sampler_init_dist(seed))
        return parts

    def sample(self, context: Context, row: int) -> int | None:
        """The token after batch index ``row``. None: the grammar allows no token of this model."""
        if self._grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context.handle, row))
        logits = context.logits(row)
        candidates = Candidates(logits)
        candidates.apply(self._chain)
        token = candidates.selected
        if not self._allowed(token):
            # Asking the grammar about the whole vocabulary is dear, so it is done only now.
            candidates = Candidates(logits)
            candidates.apply(self._grammar)
            candidates.ban(self._banned)
            if candidates.impossible:
                return None
            candidates.apply(self._chain)
            token = candidates.selected
        llama_cpp.llama_sampler_accept(self._chain, token)
        if token not in self._model.end_tokens:
            llama_cpp.llama_sampler_accept(self._grammar, token)
        return token

    def _allowed(self, token: int) -> bool:
        question = Candidates.single(token)
        question.apply(self._grammar)
        return not question.impossible

    def logprob(self, context: Context, row: int, token: int) -> TokenLogprob | None:
        """The chosen token's logprob under the model, before any sampling parameter; if asked."""
        count = self._spec.top_logprobs
        if count is None:
            return None
        logprobs = log_softmax(context.logits(row))
        top = np.argsort(logprobs)[::-1][:count] if count else ()
        chosen = self._named(token, logprobs)
        return TokenLogprob(
            token=chosen.token,
            bytes=chosen.bytes,
            logprob=chosen.logprob,
            top=[self._named(int(other), logprobs) for other in top],
        )

    def _named(self, token: int, logprobs: NDArray[np.float64]) -> TopToken:
        piece = self._model.piece(token)
        return TopToken(piece.decode("utf-8", "replace"), list(piece), float(logprobs[token]))

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._chain)
        if self._grammar is not None:
            llama_cpp.llama_sampler_free(self._grammar)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithms of probabilities, shape as given."""
    shifted = logits.astype(np.float64) - float(logits.max())
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result
