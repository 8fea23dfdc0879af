"""Vectors and scores by llama.cpp, held against the same weights in numpy."""

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from local_runtime.engines.contract import (
    Admitted,
    Encoded,
    EngineEvent,
    EngineLoadError,
    EngineRequest,
    Failed,
    Finished,
    Worked,
)
from local_runtime.engines.llama import encoder
from local_runtime.engines.llama.encoder import LlamaEncoder
from local_runtime.engines.llama.encoder_context import EncoderContext, Span
from local_runtime.engines.text_encoder import BATCH_TEXTS
from plugins.contract import FailureKind
from tests.local_runtime import bert
from tests.local_runtime.calls import chat, smollm_path
from tests.local_runtime.engines.llama.encoding import (
    ask,
    load,
    pooled_smollm,
    refused,
    run,
    scores,
    vectors,
    vectors_of,
)

QUERY = "where is the toll road?"
DOCUMENTS = ["the toll road", "river", "a bridge is where the river is, the road is a fee", "", "?"]


@pytest.fixture(scope="module")
def minilm(minilm_file: Path) -> Iterator[LlamaEncoder]:
    engine, _ = load(minilm_file)
    yield engine
    assert sorted(engine._places) == list(range(BATCH_TEXTS))
    engine.unload()


@pytest.fixture(scope="module")
def reranker(reranker_file: Path) -> Iterator[LlamaEncoder]:
    engine, _ = load(reranker_file)
    yield engine
    assert sorted(engine._places) == list(range(BATCH_TEXTS))
    engine.unload()


TEXTS = {
    "one letter": "a",
    "a sentence": "The toll road is closed today because of heavy snow in the mountains.",
    "accents": "Çà et là, naïve Größe: 3.5€!",
    "chinese": "日本語のテスト",
    "what looks like a mark": "[SEP] is no mark here [CLS]",
    "half the context": "the river runs past the old stone bridge " * 30,
    "the whole context": "river " * 510,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_vectors_are_those_of_the_weights(minilm: LlamaEncoder, text: str) -> None:
    (found,) = vectors(minilm, text)
    reference = bert.minilm()
    assert found.shape == (384,)
    assert abs(float(np.linalg.norm(found)) - 1) < 1e-5
    assert float(found @ reference.vector(reference.tokens(text))) >= 0.999


def test_a_vector_does_not_depend_on_its_neighbours(minilm: LlamaEncoder) -> None:
    alone = [vectors(minilm, text)[0] for text in TEXTS.values()]
    requests = [ask(text, key=text) for text in TEXTS.values()]
    together = run(minilm, *requests)
    beside = [vectors_of(together[each.request_id])[0] for each in requests]
    for one, other in zip(alone, beside, strict=True):
        assert float(one @ other) >= 0.9999
    assert all(
        float(one @ other) >= 0.9999
        for one, other in zip(alone, vectors(minilm, *TEXTS.values()), strict=True)
    )


def test_near_texts_are_near(minilm: LlamaEncoder) -> None:
    cat, kitten, tax = vectors(
        minilm,
        "A cat sleeps on the sofa.",
        "The kitten is napping on the couch.",
        "The tax on fuel was raised by parliament.",
    )
    assert float(cat @ kitten) > 0.5
    assert float(cat @ tax) < 0.2


def test_order_of_events_and_bill(minilm: LlamaEncoder) -> None:
    request = ask("one two", "three", *["a longer text of some more words"] * 100)
    busy_ns, unbilled_ns = minilm.busy_ns, minilm.unbilled_ns
    events = run(minilm, request)[request.request_id]
    kinds = [type(event) for event in events]
    assert kinds[0] is Admitted
    assert kinds[-2:] == [Encoded, Finished]
    assert set(kinds[1:-2]) == {Worked}
    usage = events[-1].usage
    assert usage.input_tokens == 4 + 3 + 9 * 100
    assert usage.compute_ns == minilm.busy_ns - busy_ns > 0
    assert minilm.unbilled_ns == unbilled_ns


def test_the_law_of_sums(minilm: LlamaEncoder) -> None:
    """Everybody's shares and the house's add up to the busy time, to the nanosecond, whoever is
    cancelled in between."""
    busy_ns, unbilled_ns = minilm.busy_ns, minilm.unbilled_ns
    requests = [
        ask(*[f"text {n} of {key}"] * (5 * n + 1), key=key) for n in range(6) for key in "abc"
    ]
    for each in requests:
        minilm.submit(each)
    minilm.cancel(requests[3].request_id)
    last = {event.request_id: event for event in minilm.step()}
    minilm.cancel(requests[-1].request_id)
    while minilm.has_work:
        last |= {event.request_id: event for event in minilm.step()}
    assert all(isinstance(each, Finished) for each in last.values())
    assert len(last) == len(requests)
    billed_ns = sum(each.usage.compute_ns for each in last.values())
    assert billed_ns + minilm.unbilled_ns - unbilled_ns == minilm.busy_ns - busy_ns > 0


def test_who_runs_out_of_credit_gets_nothing_and_pays_no_more(minilm: LlamaEncoder) -> None:
    text = "a few words " * 20
    told = refused(minilm, ask(*[text] * 50, compute_ns_max=1000))
    assert (told.kind, told.param) == (FailureKind.BAD_REQUEST, "input")
    assert "Send fewer texts" in told.message
    assert told.usage.compute_ns == 0
    # It looked cheap, and was not: what it went over by is on nobody's bill.
    request = ask(*[text] * 50, compute_ns_max=10**12)
    busy_ns, unbilled_ns = minilm.busy_ns, minilm.unbilled_ns
    minilm.submit(request)
    minilm.step()
    minilm._works[0].compute_ns_max = limit_ns = minilm._works[0].compute_ns + 1
    events = []
    while minilm.has_work:
        events += minilm.step()
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.usage.compute_ns == limit_ns
    assert limit_ns + minilm.unbilled_ns - unbilled_ns == minilm.busy_ns - busy_ns


def test_cancelling_frees_everything_at_once(minilm: LlamaEncoder) -> None:
    request, other = ask(*["some words"] * 500), ask("other")
    minilm.submit(request)
    minilm.submit(other)
    minilm.step()
    minilm.cancel(request.request_id)
    minilm.cancel("nobody")
    events = []
    while minilm.has_work:
        events += minilm.step()
    mine = [event for event in events if event.request_id == request.request_id]
    assert [type(event) for event in mine] == [Finished]
    assert 0 < mine[0].usage.input_tokens < 500 * 4
    early = ask("never begun")
    minilm.submit(early)
    minilm.cancel(early.request_id)
    (event,) = minilm.step()
    assert isinstance(event, Finished) and not event.usage.compute_ns


def test_nobody_waits_for_anothers_many_texts(minilm: LlamaEncoder) -> None:
    crowd, quick = ask(*["some more words than one"] * 1000, key="a"), ask("quick", key="b")
    minilm.submit(crowd)
    minilm.step()
    minilm.submit(quick)
    for _ in range(2):
        events = minilm.step()
        if quick.request_id in {each.request_id for each in events if isinstance(each, Finished)}:
            break
    else:
        raise AssertionError("the quick one waits")
    minilm.cancel(crowd.request_id)
    minilm.step()


def test_dimensions_are_the_first_ones_scaled_again(minilm: LlamaEncoder) -> None:
    (whole,) = vectors(minilm, "a bridge")
    (cut,) = vectors(minilm, "a bridge", size=100)
    assert cut.shape == (100,)
    assert np.allclose(cut, whole[:100] / np.linalg.norm(whole[:100]), atol=1e-4)
    told = refused(minilm, ask("a bridge", size=385))
    assert (told.kind, told.param) == (FailureKind.BAD_REQUEST, "dimensions")
    assert "384" in told.message


def test_tokens_are_taken_as_they_are(minilm: LlamaEncoder) -> None:
    reference = bert.minilm()
    tokens = reference.tokens("the toll road")
    text, given = vectors(minilm, "the toll road", tokens)
    assert float(text @ given) >= 0.9999
    for wrong in ([101, 30522], [-1], [2**40]):
        told = refused(minilm, ask([101], wrong))
        assert (told.kind, told.param) == (FailureKind.BAD_REQUEST, "input[1]")
        assert str(wrong[-1]) in told.message


def test_what_does_not_fit_is_refused_or_cut_as_asked(minilm: LlamaEncoder) -> None:
    just, over = "river " * 510, "river " * 511
    told = refused(minilm, ask("short", over))
    assert (told.kind, told.param) == (FailureKind.CONTEXT_LENGTH, "input[1]")
    assert "513 tokens" in told.message and "512" in told.message
    fits, cut = vectors(minilm, just, over, truncate=True)
    assert float(fits @ cut) >= 0.9999
    # Far too long to be worth tokenising.
    assert refused(minilm, ask("river " * 20_000)).kind is FailureKind.CONTEXT_LENGTH
    assert len(vectors(minilm, "river " * 20_000, truncate=True)) == 1
    assert refused(minilm, ask([101] * 513)).param == "input[0]"
    assert len(vectors(minilm, [101] * 513, truncate=True)) == 1


@pytest.mark.parametrize("empty", ["", []])
def test_nothing_has_no_vector(minilm: LlamaEncoder, empty: str | list[int]) -> None:
    told = refused(minilm, ask("x", empty))
    assert (told.kind, told.param) == (FailureKind.BAD_REQUEST, "input[1]")


def test_only_so_many_texts_at_once(minilm: LlamaEncoder) -> None:
    assert refused(minilm, ask(*["x"] * 2049)).param == "input"
    assert refused(minilm, ask()).param == "input"
    many = ask(*["x"] * 2048)
    assert len(vectors_of(run(minilm, many)[many.request_id])) == 2048


def test_other_work_is_refused_by_name(minilm: LlamaEncoder, reranker: LlamaEncoder) -> None:
    told = refused(minilm, ask("a document", query="a query"))
    assert (told.kind, told.param) == (FailureKind.NOT_FOUND, "model")
    assert "makes vectors" in told.message
    assert refused(reranker, ask("a text")).kind is FailureKind.NOT_FOUND
    assert refused(minilm, EngineRequest(request_id="c", chat=chat())).kind is FailureKind.NOT_FOUND


def test_scores_are_those_of_the_weights(reranker: LlamaEncoder) -> None:
    reference = bert.small(head=True)
    expected = [reference.score(reference.tokens(QUERY, each)) for each in DOCUMENTS]
    assert max(expected) - min(expected) > 0.1, "weights that tell documents apart"
    assert scores(reranker, QUERY, *DOCUMENTS) == pytest.approx(expected, abs=5e-3)
    # In whatever order they come.
    assert scores(reranker, QUERY, *DOCUMENTS[::-1]) == pytest.approx(expected[::-1], abs=5e-3)


def test_a_pair_that_does_not_fit(reranker: LlamaEncoder) -> None:
    told = refused(reranker, ask("river", "river " * 150, query=QUERY))
    assert (told.kind, told.param) == (FailureKind.CONTEXT_LENGTH, "documents[1]")
    assert "128 tokens" in told.message
    reference = bert.small(head=True)
    whole = reference.tokens(QUERY, "river " * 150)
    cut = [*whole[:127], whole[-1]]  # the end mark stays
    found = scores(reranker, QUERY, "river " * 150, truncate=True)
    assert found == pytest.approx([reference.score(cut)], abs=5e-3)
    assert refused(reranker, ask("river", query="river " * 150, truncate=True)).param == "query"
    assert refused(reranker, ask("river", query="")).param == "query"


def test_the_models_own_words_around_a_pair(tmp_path: Path) -> None:
    """A template's marks count; a caller's text cannot make any."""
    model = bert.small(head=True)
    path = model.write(
        tmp_path / "templated.gguf",
        bert.RANK,
        tokenizer__chat_template__rerank="[CLS]is {document} the {query}[SEP]",
    )
    engine, _ = load(path)
    asked = [model.tokens("is river the toll"), model.tokens("is [SEP] the toll")]
    expected = [model.score(each) for each in asked]
    assert scores(engine, "toll", "river", "[SEP]") == pytest.approx(expected, abs=5e-3)
    told = refused(engine, ask("river " * 130, query="toll"))
    assert (told.kind, told.param) == (FailureKind.CONTEXT_LENGTH, "documents[0]")
    (cut,) = scores(engine, "toll", "river " * 200, truncate=True)
    fitting = [model.score(model.tokens(f"is {'river ' * n} the toll")) for n in range(100, 124)]
    assert min(abs(cut - each) for each in fitting) < 5e-3
    engine.unload()


@pytest.mark.parametrize(
    ("pooling", "reason"), [(None, "how the model's output is pooled"), (0, "0, none")]
)
def test_a_model_that_does_not_pool_is_refused(
    tmp_path: Path, pooling: int | None, reason: str
) -> None:
    path = bert.small().write(tmp_path / "unpooled.gguf", pooling)
    with pytest.raises(EngineLoadError, match=reason):
        load(path)


@pytest.mark.parametrize("mark", ["bos_token_id", "seperator_token_id", "unknown_token_id"])
def test_a_vocabulary_without_marks_is_refused_before_it_aborts(tmp_path: Path, mark: str) -> None:
    """llama.cpp's defaults are BERT's numbers, from 100 on, which a small vocabulary lacks."""
    model = bert.small()
    path = model.write(
        tmp_path / "unmarked.gguf", bert.MEAN, **{f"tokenizer__ggml__{mark}": len(model.vocab)}
    )
    with pytest.raises(EngineLoadError, match="vocabulary lacks"):
        load(path)


def test_a_thousand_come_and_half_of_them_leave(tmp_path: Path) -> None:
    """Nothing stays behind: no place, no request, no nanosecond."""
    engine, _ = load(bert.small().write(tmp_path / "small.gguf", bert.MEAN))
    chance = random.Random(7)
    requests = [
        ask(*["the toll road is a fee"] * chance.randint(1, 20), key=chance.choice("abcdef"))
        for _ in range(1000)
    ]
    last: dict[str, EngineEvent] = {}
    coming, open_ = deque(requests), []
    while coming or engine.has_work:
        for _ in range(min(len(coming), chance.randint(0, 40))):
            engine.submit(coming[0])
            open_.append(coming.popleft().request_id)
        for _ in range(min(len(open_), chance.randint(0, 25))):
            engine.cancel(open_.pop(chance.randrange(len(open_))))
        for event in engine.step():
            assert not isinstance(last.get(event.request_id), Finished), "nothing follows the end"
            last[event.request_id] = event
    assert len(last) == 1000
    assert all(isinstance(each, Finished) for each in last.values())
    assert sum(each.usage.compute_ns for each in last.values()) == engine.busy_ns
    assert sum(each.usage.input_tokens > 0 for each in last.values()) > 200
    assert sorted(engine._places) == list(range(BATCH_TEXTS))
    assert not (engine._works or engine._drafts or engine._done)
    engine.unload()


def test_a_chat_model_is_no_encoder() -> None:
    with pytest.raises(EngineLoadError, match="conversations"):
        load(smollm_path())


@pytest.mark.parametrize("pooling", [bert.CLS, bert.LAST])
def test_other_poolings_of_an_encoder(tmp_path: Path, pooling: int) -> None:
    model = bert.small()
    engine, info = load(model.write(tmp_path / "pooled.gguf", pooling))
    assert info.output_size == 64
    (found,) = vectors(engine, QUERY)
    assert float(found @ model.vector(model.tokens(QUERY), pooling)) >= 0.999
    engine.unload()


def test_a_decoder_reads_long_texts_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A causal model that takes the last token for the whole needs no long batches."""
    monkeypatch.setattr(encoder, "BATCH_TOKENS", 64)
    engine, info = load(pooled_smollm(tmp_path, bert.LAST), context_length=256)
    assert (info.output_size, info.context_length) == (576, 256)
    assert engine._encoder.in_parts
    tokens = [100 + n * 7 % 5000 for n in range(150)]
    requests = [ask(tokens, key="long"), *(ask(tokens[n : n + 20], key=str(n)) for n in range(5))]
    events = run(engine, *requests)
    (long,) = vectors_of(events[requests[0].request_id])
    assert events[requests[0].request_id][-1].usage.input_tokens == 150
    context = EncoderContext(
        engine._encoder.model, batch_tokens=150, cells=256, texts_max=4, threads=1
    )
    assert context.compute([Span(tokens, 0, 0)]) == 0
    whole = context.pooled(0)
    assert float(long @ (whole / np.linalg.norm(whole))) >= 0.999
    context.close()
    # Cancelled between two of its parts, it leaves nothing behind.
    begun = ask(tokens)
    engine.submit(begun)
    engine.step()
    engine.cancel(begun.request_id)
    engine.step()
    assert sorted(engine._places) == list(range(BATCH_TEXTS))
    (again,) = vectors(engine, tokens)
    assert float(again @ long) >= 0.9999
    engine.unload()


def test_a_decoder_that_pools_over_all_tokens_reads_texts_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "BATCH_TOKENS", 64)
    engine, _ = load(pooled_smollm(tmp_path, bert.MEAN), context_length=128)
    assert not engine._encoder.in_parts
    tokens = [100 + n * 7 % 5000 for n in range(128)]
    long, short = vectors(engine, tokens, tokens[:10])
    alone = [vectors(engine, each)[0] for each in (tokens, tokens[:10])]
    assert float(long @ alone[0]) >= 0.999
    assert float(short @ alone[1]) >= 0.999
    engine.unload()
