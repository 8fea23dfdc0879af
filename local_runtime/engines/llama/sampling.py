"""How the next token is chosen.

Order: logit_bias and penalties; the grammar; dry; top_n_sigma, top_k, typical_p, top_p, min_p, xtc;
temperature; the draw. With mirostat, temperature and mirostat stand for all after dry. The order
and the meaning of each are llama.cpp's (``common/sampling.cpp``).

A grammar is asked about the token that would be chosen without it; if it refuses that one, another
is drawn from the others, and after a few it is asked for all that it allows. Without a cut (top_k
and the like) that is exactly the distribution under the grammar; with one, the tokens that the cut
leaves without a grammar have their chance first, as in llama.cpp. (With mirostat, which learns from
every draw, the grammar comes first.)

**Same seed, same text.** A choice depends on the seed, the logits and nothing else: no clock, no
other request, no guesses of speculation. So on the same build, machine and settings, text repeats
where logits do. On an idle engine they do. Beside other requests llama.cpp may add up the same
numbers in another order, and a quantised model makes much of the last bits. Measured with SmolLM2
Q4_1 on a CPU: 32 answers (greedy and at 0.8) of 48 tokens each were the same alone and 16 at once,
since flash attention sums in the order of cells. Where cells that others freed are used again in
another order, logits differ by 0.07 in the mean, without flash attention by 0.2 between batches of
different sizes; then texts part at the first place where two tokens are nearly as likely.
"""

import ctypes
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import RequestRefused, TokenLogprob
from local_runtime.engines.llama.candidates import Desk, Nucleus, Selection, possible
from local_runtime.engines.llama.grammar_state import GrammarRefused, GrammarState
from local_runtime.engines.llama.logprobs import Logprobs
from local_runtime.engines.llama.native import Context, Model
from local_runtime.engines.llama.penalties import Penalties
from local_runtime.engines.llama.sampling_params import (
    SEEDS,
    TEMPERATURE_MIN,
    SamplingSpec,
    spec_of,
)
from local_runtime.engines.llama.vocabulary import vocabulary_of

__all__ = ["Sampler", "SamplingSpec", "spec_of"]

_SEED_STEP = 0x9E3779B9
_XTC_SEED_STEP = 0x5851F42D
_MIN_KEEP = 1
_MIROSTAT_M = 100  # tokens that version 1 looks at, as in the paper
_DRY_BREAKERS = (b"\n", b":", b'"', b"*")  # llama.cpp's own
_RANGE = 87.0  # natural logarithm of what 32-bit floats reach down to
_RULED_OUT = float("-inf")
_ATTEMPTS = 4
_FEW = 4096  # so few candidates need no selection before the chain

_desks: WeakKeyDictionary[Model, Desk] = WeakKeyDictionary()


class Sampler:
    """One sequence's choices. ``close`` frees what C holds."""

    def __init__(
        self, model: Model, spec: SamplingSpec, prompt: list[int], *, index: int, window: int
    ) -> None:
        """``index`` is the choice of n, each with a seed of its own; ``window`` bounds dry.

        Raises RequestRefused when llama.cpp does not take the grammar: never sampled without it.
        """
        self._model = model
        self._spec = spec
        self._desk = _desks.get(model) or _desks.setdefault(model, Desk(model.vocab_size))
        self._written = 0
        self._ends = np.array(sorted(model.end_tokens), dtype=np.intp)
        self._grammar: GrammarState | None = None
        self._logprobs = None if spec.top_logprobs is None else Logprobs(model, spec.top_logprobs)
        self._penalties = Penalties(
            bias=spec.logit_bias,
            repetition=spec.repetition_penalty,
            frequency=spec.frequency_penalty,
            presence=spec.presence_penalty,
            prompt=prompt,
        )
        self._unchanged = self._penalties.idle
        self._greedy = spec.temperature < TEMPERATURE_MIN
        self._plain = self._greedy and not spec.dry_multiplier
        self._cut = _cut_of(spec, self._desk)
        self._typical = 0 < spec.typical_p < 1
        # No logit above this is ruled out, whatever the others are.
        self._surely_possible = float("inf") if self._typical else _RULED_OUT
        if spec.grammar is not None:
            self.constrain(spec.grammar)
        params = llama_cpp.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain: Any = llama_cpp.llama_sampler_chain_init(params)
        for part in _parts_of(model, spec, prompt, index=index, window=window, cut=self._cut):
            llama_cpp.llama_sampler_chain_add(self._chain, part)

    def constrain(
        self,
        grammar: str,
        *,
        param: str = "response_format",
        spoken: frozenset[int] = frozenset(),
    ) -> None:
        """From here on the answer is a text of this GBNF grammar, whatever held it until now.

        ``spoken``: control tokens that count as the text of their names, as marks of a call do.
        Raises RequestRefused when llama.cpp does not take the grammar; then nothing has changed.
        """
        try:
            begun = GrammarState(
                self._model, vocabulary_of(self._model), self._desk, grammar, spoken=spoken
            )
        except GrammarRefused:
            raise RequestRefused(
                f"{param}: this cannot be enforced; it is too large, refers to itself without an "
                "end, or is no grammar.",
                param=param,
            ) from None
        self.release()
        self._grammar = begun

    def follow(self, tokens: Sequence[int]) -> bool:
        """Take tokens that were written already as the first of the grammar's text.

        False where it does not allow them: then no grammar holds any more.
        """
        for token in tokens:
            if self._grammar is None or not self._grammar.allows(token):
                self.release()
                return False
            self._grammar.accept(token)
        return True

    def release(self) -> None:
        """From here on no grammar holds the answer."""
        if self._grammar is not None:
            self._grammar.close()
            self._grammar = None

    def sample(self, context: Context, row: int) -> int | None:
        """The token after batch index ``row``. None: the grammar allows no token of this model."""
        token = self.choose(context.logits(row))
        if token is not None:
            self._accept(token)
        return token

    def choose(self, logits: NDArray[np.float32]) -> int | None:
        """A token for these logits, shape (vocabulary,), which are as they were when it returns."""
        ends_later = self._written < self._spec.min_tokens
        if not ends_later and self._unchanged:
            return self._allowed(logits)
        # Putting a few logits back costs a tenth of what a copy of all of them does.
        changed = [*self._penalties.reach, self._ends] if ends_later else self._penalties.reach
        before = [logits[tokens] for tokens in changed]
        try:
            self._penalties.apply(logits)
            if ends_later:
                logits[self._ends] = -np.inf
            return self._allowed(logits)
        finally:
            for tokens, values in zip(changed, before, strict=True):
                logits[tokens] = values

    def _allowed(self, logits: NDArray[np.float32]) -> int | None:
        if self._grammar is None:
            return self._among_all(logits)
        return self._within(self._grammar, logits)

    def _within(self, grammar: GrammarState, logits: NDArray[np.float32]) -> int | None:
        """A token that the grammar allows."""
        if grammar.hopeless:
            return None
        for attempt in range(0 if self._spec.mirostat else _ATTEMPTS):
            token = self._among_all(logits)
            if token is None:
                break
            if grammar.allows(token):
                return token
            if not attempt:
                logits = logits.copy()
            logits[token] = -np.inf
        allowed = grammar.allowed()
        allowed = allowed[logits[allowed] > -np.inf]
        if len(allowed):
            return self._among(allowed, logits[allowed])
        # All that the grammar leaves has been ruled out; if its text is complete, that is the end.
        return int(self._ends[0]) if len(self._ends) and grammar.may_end else None

    def _among_all(self, logits: NDArray[np.float32]) -> int | None:
        if self._plain:
            token = int(logits.argmax())
            return token if logits[token] > -np.inf else None
        cut = self._cut
        tokens = possible(logits) if cut is None else cut.of(logits)
        found = logits.take(tokens)
        if cut is not None and not cut.floor > self._surely_possible and len(tokens):
            lowest = self._lowest(found)
            if np.minimum.reduce(found) <= lowest:
                tokens = tokens[found > lowest]
                found = logits.take(tokens)
        return self._desk.choose(self._chain, tokens, found) if len(tokens) else None

    def _lowest(self, logits: NDArray[np.float32]) -> float:
        """What cannot be chosen: with typical_p also what 32 bits call a probability of nothing,
        of which llama.cpp takes the logarithm."""
        return float(logits.max()) - _RANGE if self._typical else _RULED_OUT

    def _among(self, tokens: NDArray[np.intp], logits: NDArray[np.float32]) -> int:
        if self._plain:
            return int(tokens[logits.argmax()])
        if isinstance(self._cut, Nucleus) or (self._cut is not None and len(tokens) > _FEW):
            kept = self._cut.of(logits)
            tokens, logits = tokens[kept], logits[kept]
        return self._desk.choose(self._chain, tokens, logits)

    def _accept(self, token: int) -> None:
        self._written += 1
        if self._penalties.remembers:
            self._penalties.accept(token)
        if self._spec.dry_multiplier:
            llama_cpp.llama_sampler_accept(self._chain, token)
        if self._grammar is not None:
            self._grammar.accept(token)

    def logprob(self, context: Context, row: int, token: int) -> TokenLogprob | None:
        """The chosen token's logprob under the model, before any sampling parameter; if asked."""
        return None if self._logprobs is None else self._logprobs.of(token, context.logits(row))

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._chain)
        self.release()


def _cut_of(spec: SamplingSpec, desk: Desk) -> Selection | Nucleus | None:
    """How few candidates are enough for the chain. None: it needs all."""
    if spec.mirostat or spec.top_n_sigma > 0 or spec.dry_multiplier:
        return None
    if spec.top_k > 0:
        return Selection(spec.top_k, desk.marks)
    if 0 < spec.typical_p < 1 or spec.top_p >= 1:
        return None
    return Nucleus(spec.top_p)


def _parts_of(
    model: Model,
    spec: SamplingSpec,
    prompt: list[int],
    *,
    index: int,
    window: int,
    cut: Selection | Nucleus | None,
) -> list[Any]:
    """The samplers of the chain, in order."""
    seed = (spec.seed + index * _SEED_STEP) % SEEDS
    parts: list[Any] = []
    if spec.dry_multiplier:
        parts.append(_dry(model, spec, prompt, window))
    if spec.temperature < TEMPERATURE_MIN:
        return [*parts, llama_cpp.llama_sampler_init_greedy()]
    if spec.mirostat:
        parts.append(llama_cpp.llama_sampler_init_temp(spec.temperature))
        tau, eta = spec.mirostat_tau, spec.mirostat_eta
        if spec.mirostat == 1:
            size = model.vocab_size
            one = llama_cpp.llama_sampler_init_mirostat(size, seed, tau, eta, _MIROSTAT_M)
            return [*parts, one]
        return [*parts, llama_cpp.llama_sampler_init_mirostat_v2(seed, tau, eta)]
    if spec.top_n_sigma > 0:
        parts.append(llama_cpp.llama_sampler_init_top_n_sigma(spec.top_n_sigma))
    if spec.top_k > 0:
        parts.append(llama_cpp.llama_sampler_init_top_k(spec.top_k))
    if 0 < spec.typical_p < 1:
        parts.append(llama_cpp.llama_sampler_init_typical(spec.typical_p, _MIN_KEEP))
    if spec.top_p < 1 and not isinstance(cut, Nucleus):
        parts.append(llama_cpp.llama_sampler_init_top_p(spec.top_p, _MIN_KEEP))
    if spec.min_p > 0:
        parts.append(llama_cpp.llama_sampler_init_min_p(spec.min_p, _MIN_KEEP))
    if spec.xtc_probability > 0:
        xtc_seed = (seed + _XTC_SEED_STEP) % SEEDS
        parts.append(
            llama_cpp.llama_sampler_init_xtc(
                spec.xtc_probability, spec.xtc_threshold, _MIN_KEEP, xtc_seed
            )
        )
    parts.append(llama_cpp.llama_sampler_init_temp(spec.temperature))
    parts.append(llama_cpp.llama_sampler_init_dist(seed))
    return parts


def _dry(model: Model, spec: SamplingSpec, prompt: list[int], window: int) -> Any:
    breakers = (ctypes.c_char_p * len(_DRY_BREAKERS))(*_DRY_BREAKERS)
    part = llama_cpp.llama_sampler_init_dry(
        model.vocab,
        spec.dry_multiplier,
        spec.dry_base,
        spec.dry_allowed_length,
        window,
        breakers,
        len(breakers),
    )
    for token in prompt:
        llama_cpp.llama_sampler_accept(part, token)
    return part
