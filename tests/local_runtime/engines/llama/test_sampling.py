"""Each sampling parameter against its definition, on real logits."""

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.candidates import Nucleus, Selection
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.logprobs import log_of_sum
from local_runtime.engines.llama.native import Model
from local_runtime.engines.llama.penalties import Penalties
from local_runtime.engines.llama.sampling import Sampler, SamplingSpec, spec_of
from plugins.contract import FailureKind
from tests.local_runtime.calls import chat, reason_of, text_of
from tests.local_runtime.engines.llama.driving import failure, one

DRAWS = 1500
Logits = NDArray[np.float32]
PLAIN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.fixture(scope="module")
def model(loaded: LlamaEngine) -> Model:
    return loaded._model


@pytest.fixture(scope="module")
def logits(loaded: LlamaEngine) -> Logits:
    """After the beginning of a sentence that can go on in many ways."""
    context, model = loaded._context, loaded._model
    tokens = model.tokenize("My favourite animal is the", add_special=True, parse_special=False)
    row = context.add(tokens, 0, 0, outputs=1)
    assert context.decode() == 0
    found = context.logits(row).copy()
    context.forget(0)
    return found


def shares_of(logits: Logits) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def drawn(model: Model, logits: Logits, draws: int = DRAWS, **params: Any) -> Counter[int]:
    sampler = Sampler(
        model, SamplingSpec(**(PLAIN | {"seed": 11} | params)), [], index=0, window=512
    )
    found: Counter[int] = Counter()
    for _ in range(draws):
        token = sampler.choose(logits)
        assert token is not None
        found[token] += 1
    sampler.close()
    return found


def assert_drawn_from(found: Counter[int], shares: NDArray[np.float64]) -> None:
    """The draws are not unlikely: chi-squared over the likelier tokens, the rest as one."""
    total = sum(found.values())
    assert all(shares[token] > 0 for token in found), "a token that was cut off was drawn"
    likely = np.flatnonzero(shares * total >= 8)
    seen = [found[int(token)] for token in likely] + [
        total - sum(found[int(token)] for token in likely)
    ]
    expected = [*(shares[likely] * total), total * (1 - shares[likely].sum())]
    chi2 = sum((s - e) ** 2 / e for s, e in zip(seen, expected, strict=True) if e > 1e-6)
    free = max(1, len(likely))
    # 5 standard deviations of chi-squared, by its mean and variance.
    assert chi2 < free + 5 * math.sqrt(2 * free) + 5, (chi2, free)


def cut(shares: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    left = np.where(kept, shares, 0)
    result: NDArray[np.float64] = left / left.sum()
    return result


def nucleus(shares: NDArray[np.float64], p: float) -> NDArray[np.bool_]:
    order = np.argsort(-shares)
    count = int(np.searchsorted(np.cumsum(shares[order]), p)) + 1
    kept = np.zeros(len(shares), dtype=np.bool_)
    kept[order[:count]] = True
    return kept


def typical(shares: NDArray[np.float64], p: float) -> NDArray[np.bool_]:
    surprise = -np.log(shares)
    order = np.argsort(np.abs(surprise - (shares * surprise).sum()))
    count = int(np.searchsorted(np.cumsum(shares[order]), p, side="right")) + 1
    kept = np.zeros(len(shares), dtype=np.bool_)
    kept[order[:count]] = True
    return kept


def likeliest(shares: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = shares >= np.sort(shares)[-count]
    return result


def test_the_plain_distribution(model: Model, logits: Logits) -> None:
    assert_drawn_from(drawn(model, logits), shares_of(logits))


@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.7])
def test_temperature(model: Model, logits: Logits, temperature: float) -> None:
    expected = shares_of((logits / temperature).astype(np.float32))
    assert_drawn_from(drawn(model, logits, temperature=temperature), expected)


@pytest.mark.parametrize("temperature", [0, 1e-40, 1e-9])
def test_no_temperature_is_the_likeliest(model: Model, logits: Logits, temperature: float) -> None:
    for params in ({}, {"dry_multiplier": 1.0}, {"top_k": 5}):
        found = drawn(model, logits, 3, temperature=temperature, **params)
        assert found == Counter({int(logits.argmax()): 3})


@pytest.mark.parametrize("top_k", [1, 3, 40, 1000])
def test_top_k(model: Model, logits: Logits, top_k: int) -> None:
    shares = shares_of(logits)
    found = drawn(model, logits, top_k=top_k)
    assert_drawn_from(found, cut(shares, likeliest(shares, top_k)))


@pytest.mark.parametrize("top_p", [0.0, 0.2, 0.7, 0.95])
def test_top_p(model: Model, logits: Logits, top_p: float) -> None:
    shares = shares_of(logits)
    assert_drawn_from(drawn(model, logits, top_p=top_p), cut(shares, nucleus(shares, top_p)))


@pytest.mark.parametrize("min_p", [0.02, 0.3, 1.0])
def test_min_p(model: Model, logits: Logits, min_p: float) -> None:
    shares = shares_of(logits)
    kept = shares >= min_p * shares.max() * (1 - 1e-6)
    assert_drawn_from(drawn(model, logits, min_p=min_p), cut(shares, kept))


@pytest.mark.parametrize("typical_p", [0.2, 0.8])
def test_typical_p(model: Model, logits: Logits, typical_p: float) -> None:
    shares = shares_of(logits)
    found = drawn(model, logits, typical_p=typical_p)
    assert_drawn_from(found, cut(shares, typical(shares, typical_p)))


def test_typical_p_where_one_token_outweighs_all(model: Model, logits: Logits) -> None:
    """Their probabilities are 0 in 32 bits, of which llama.cpp would take the logarithm."""
    biased = logits.copy()
    biased[4242] += 100
    assert drawn(model, biased, 20, typical_p=0.5) == Counter({4242: 20})
    assert drawn(model, biased, 20, typical_p=0.5, top_k=20) == Counter({4242: 20})


def test_top_n_sigma(model: Model, logits: Logits) -> None:
    kept = logits >= logits.max() - 1.5 * logits.std()
    found = drawn(model, logits, 600, top_n_sigma=1.5)
    assert_drawn_from(found, cut(shares_of(logits), kept))


def test_xtc_leaves_out_all_but_the_last_of_the_likely(model: Model, logits: Logits) -> None:
    shares = shares_of(logits)
    likely = np.flatnonzero(shares >= 0.05)
    assert len(likely) > 1
    last = int(likely[np.argmin(shares[likely])])
    found = drawn(model, logits, 500, xtc_probability=1.0, xtc_threshold=0.05)
    assert not (set(found) & set(likely.tolist())) - {last}
    some = drawn(model, logits, 500, xtc_probability=0.5, xtc_threshold=0.05)
    assert set(some) & (set(likely.tolist()) - {last})


def test_cuts_in_their_order(model: Model, logits: Logits) -> None:
    """The defaults: top_k 40, of those top_p, of those min_p, and only then the temperature."""
    shares = shares_of(logits)
    kept = likeliest(shares, 40)
    kept &= nucleus(cut(shares, kept), 0.95)
    kept &= shares >= 0.05 * shares.max()
    expected = shares_of(np.where(kept, logits / 0.8, -np.inf).astype(np.float32))
    found = drawn(model, logits, temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
    assert_drawn_from(found, expected)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_keeps_the_surprise_near_its_target(engine: LlamaEngine, version: int) -> None:
    """Over a text, the mean surprise comes to lie near tau: higher for a higher one."""
    means = []
    for tau in (2.0, 5.0):
        events = one(
            engine,
            "Tell me a story about the sea.",
            max_tokens=120,
            ignore_eos=True,
            mirostat=version,
            mirostat_tau=tau,
            mirostat_eta=0.2,
            temperature=1,
            seed=5,
            logprobs=True,
        )
        tokens = [item for event in events for item in getattr(event, "logprobs", None) or ()]
        means.append(sum(-item.logprob / math.log(2) for item in tokens[20:]) / len(tokens[20:]))
    assert means[0] < 3.2 < means[1] < 7


BIASES = st.dictionaries(st.integers(0, 99), st.floats(-50, 50), max_size=5)
WRITTEN = st.lists(st.integers(0, 99), max_size=30)


@given(BIASES, WRITTEN, WRITTEN, st.floats(0.5, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_penalties_are_as_they_are_defined(
    bias: dict[int, float],
    prompt: list[int],
    written: list[int],
    repetition: float,
    frequency: float,
    presence: float,
) -> None:
    logits = np.linspace(-3, 3, 100, dtype=np.float32)
    expected = logits.astype(np.float64)
    for token in range(100):
        value = expected[token] + np.float32(bias.get(token, 0))
        if token in prompt or token in written:
            value = value / repetition if value > 0 else value * repetition
        count = written.count(token)
        value -= count * frequency + (presence if count else 0)
        expected[token] = value
    penalties = Penalties(
        bias=bias, repetition=repetition, frequency=frequency, presence=presence, prompt=prompt
    )
    for token in written:
        penalties.accept(token)
    penalties.apply(logits)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-3)


FLOATS = st.floats(-40, 40, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=300), st.integers(1, 60), st.integers(0, 3))
def test_a_selection_always_has_the_likeliest(values: list[float], count: int, before: int) -> None:
    logits = np.array(values, dtype=np.float32)
    selection = Selection(count)
    for seed in range(before):  # whatever it saw before
        selection.of(np.random.default_rng(seed).normal(0, 20, 300).astype(np.float32))
    found = selection.of(logits)
    assert len(set(found.tolist())) == len(found) >= min(count, len(logits))
    left_out = np.delete(logits, found)
    if len(left_out):
        assert np.sort(logits[found])[-count] >= left_out.max()


@given(
    st.integers(1_024, 3_000),
    st.integers(1, 100),
    st.integers(0, 3),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_a_selection_of_a_vocabulary_has_the_likeliest_and_few_more(
    size: int, count: int, digits: int, banned: float, random: random.Random
) -> None:
    """Also where many are equally likely, or are ruled out."""
    generator = np.random.default_rng(random.getrandbits(32))
    logits = generator.normal(0, 5, size).round(digits).astype(np.float32)
    logits[generator.random(size) < banned] = -np.inf
    before = logits.copy()
    selection = Selection(count)
    found = selection.of(logits)
    assert found.tolist() == sorted(set(found.tolist()))
    assert len(found) >= count and logits[found].min() >= selection.floor
    least = np.sort(logits)[-count]
    assert set(np.flatnonzero(logits > least).tolist()) <= set(found.tolist())
    assert np.count_nonzero(logits[found] >= least) >= count
    if not banned and digits == 3 and count <= 50:
        assert len(found) < 4 * count + 16
    np.testing.assert_array_equal(logits, before)


def test_choosing_leaves_the_logits_as_they_were(model: Model, logits: Logits) -> None:
    """They are those of llama.cpp itself, and other answers may begin from the same ones."""
    best = int(logits.argmax())
    ban = {best: -math.inf, **dict.fromkeys(model.end_tokens, 3.5)}
    for more in ({}, {"temperature": 0}, {"top_k": 40, "repetition_penalty": 1.7}):
        params: dict[str, Any] = {"min_tokens": 2, "presence_penalty": 0.5, "logit_bias": ban}
        spec = SamplingSpec(**(PLAIN | params | more))
        sampler = Sampler(model, spec, [best, best, 5], index=0, window=512)
        given = logits.copy()
        assert sampler.choose(given) != best
        np.testing.assert_array_equal(given, logits)
        sampler.close()


@given(st.lists(FLOATS, min_size=1, max_size=300), st.floats(0, 1), st.integers(0, 3))
def test_a_nucleus_is_the_smallest_that_has_the_share(
    values: list[float], p: float, before: int
) -> None:
    logits = np.array(values, dtype=np.float32)
    kept = Nucleus(p)
    for seed in range(before):
        kept.of(np.random.default_rng(seed).normal(0, 20, 300).astype(np.float32))
    found = kept.of(logits)
    shares = shares_of(logits)
    assert 1 <= len(found) <= len(logits)
    assert shares[found].sum() >= p - 1e-5
    assert shares[found[:-1]].sum() <= p + 1e-5
    assert shares[found].min() >= np.delete(shares, found).max(initial=0) - 1e-9


def test_logprobs_are_those_of_the_model(engine: LlamaEngine, logits: Logits) -> None:
    shares = shares_of(logits)
    assert abs(log_of_sum(logits) - (logits.max() - math.log(shares.max()))) < 1e-4
    events = one(engine, "Say hi.", max_tokens=3, temperature=0, logprobs=True, top_logprobs=5)
    tokens = [item for event in events for item in getattr(event, "logprobs", None) or ()]
    assert tokens
    for item in tokens:
        assert len(item.top) == 5
        assert [top.logprob for top in item.top] == sorted(
            (top.logprob for top in item.top), reverse=True
        )
        assert item.top[0].token == item.token and item.top[0].logprob == item.logprob <= 0
        assert sum(math.exp(top.logprob) for top in item.top) <= 1 + 1e-6


def test_same_seed_same_text(engine: LlamaEngine) -> None:
    texts = set()
    for _ in range(2):
        engine._prefixes.clear()
        texts.add(text_of(one(engine, "Invent a word.", seed=6, max_tokens=16, temperature=1.2)))
    assert len(texts) == 1
    for seed in (7, 8, 9):
        texts.add(text_of(one(engine, "Invent a word.", seed=seed, max_tokens=16, temperature=1.2)))
    assert len(texts) > 1


def test_min_tokens_puts_the_end_off(engine: LlamaEngine) -> None:
    ends = dict.fromkeys(map(str, engine._model.end_tokens), 100)
    assert one(engine, max_tokens=30, logit_bias=ends)[-1].usage.output_tokens == 1
    events = one(engine, max_tokens=30, min_tokens=12, logit_bias=ends)
    assert events[-1].usage.output_tokens == 13
    assert reason_of(events) == "stop"


def test_dry_weighs_against_what_would_repeat(model: Model) -> None:
    """5 6 7 came before: after 5 6 the 7 loses multiplier * base ** (length - allowed)."""
    logits = np.zeros(model.vocab_size, dtype=np.float32)
    logits[7], logits[9] = 9, 6
    for multiplier, expected in ((0.0, 7), (2.9, 7), (3.1, 9)):
        spec = SamplingSpec(temperature=0, dry_multiplier=multiplier, dry_allowed_length=2)
        sampler = Sampler(model, spec, [5, 6, 7, 8, 5, 6], index=0, window=512)
        assert sampler.choose(logits) == expected
        sampler.close()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
    ({"min_tokens": 2, "response_format": {"type": "json_object"}}, "min_tokens"),
    ({"ignore_eos": True, "grammar": 'root ::= "a"'}, "ignore_eos"),
    ({"mirostat": 2, "top_p": 0.9}, "top_p"),
    ({"mirostat": 1, "top_k": 10}, "top_k"),
    ({"mirostat": 1, "temperature": 0}, "temperature"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"grammar": "root ::= (", "max_tokens": 5}, "grammar"),
    ({"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}}, "grammar"),
]


@pytest.mark.parametrize(("params", "name"), REFUSED)
def test_contradictions_are_refused(engine: LlamaEngine, params: dict[str, Any], name: str) -> None:
    failed = failure(one(engine, **params))
    assert failed.param == name
    assert failed.kind is FailureKind.BAD_REQUEST


def test_idle_values_beside_mirostat_are_fine(engine: LlamaEngine) -> None:
    params: dict[str, Any] = {"top_k": -1, "top_p": 1, "min_p": 0, "typical_p": 1}
    assert text_of(one(engine, mirostat=1, max_tokens=3, temperature=1, **params))


def test_what_is_left_out_takes_the_defaults() -> None:
    def spec(**params: Any) -> SamplingSpec:
        request = chat("x", **params)
        return spec_of(request, vocab_size=100, end_tokens=frozenset({2}), grammar=None)

    assert spec(seed=3) == SamplingSpec(seed=3)
    assert spec(seed=-1).seed == 2**32 - 2
    assert spec(mirostat=2).top_k == 0
    assert spec(temperature=None).temperature == 0.8
    with pytest.raises(RequestRefused, match="bans every token"):
        spec(logit_bias={str(n): -100 for n in range(100)})
