"""Embedding and reranking through the adapter, in this process and in a child."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from local_runtime.adapter import LocalAdapter
from local_runtime.encoding import task_of
from local_runtime.runtime import LocalModelSpec, LocalRuntime, RuntimeConfigError
from plugins.conformance_tasks import TASK_CHECKS, TaskCheck, TaskSubject
from plugins.contract import (
    AdapterError,
    FailureKind,
    InferenceCall,
    Produced,
    Started,
    Usage,
    UsageReport,
)
from plugins.tasks import EmbeddingRequest, Embeddings, Ranking, Request, RerankRequest
from tests.local_runtime import bert
from tests.local_runtime.calls import MODEL, SMOLLM_SOURCE, chat
from tests.local_runtime.conftest import Serve


def order(number: int, request: Request, **limits: Any) -> InferenceCall:
    return InferenceCall(
        call_id=f"call-{number}",
        attempt_id=f"call-{number}-1",
        upstream_id=MODEL,
        request=request,
        stream=False,
        **limits,
    )


def embed(given: Any, **params: Any) -> EmbeddingRequest:
    return msgspec.convert({"model": MODEL, "input": given, **params}, EmbeddingRequest)


async def produced(adapter: LocalAdapter, call: InferenceCall) -> tuple[Any, Usage]:
    started, made, report = [event async for event in adapter.infer(call)]
    assert isinstance(started, Started)
    assert isinstance(made, Produced)
    assert isinstance(report, UsageReport)
    return made.output, report.usage


async def test_vectors_and_the_law_of_sums(serve: Serve, placement: str, minilm_file: Path) -> None:
    """Sixteen share batches: what they are billed adds up to the engine's busy time exactly."""
    adapter = await serve(f"file:{minilm_file}", placement=placement, threads=1)
    (offer,) = adapter.offers()
    assert offer.tasks == ("feature-extraction",)
    assert offer.context_length == 512
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
        assert len(output.vectors) == len(each)
        assert np.array(output.vectors[-1]) @ reference.vector(reference.tokens(each[-1])) >= 0.999
        assert usage.input_tokens == sum(len(reference.tokens(text)) for text in each)
        assert usage.output_tokens == 0
    status = adapter.runtime.status()[0]
    assert status.engine == "llama_encoder"
    assert sum(usage.compute_ns for _, usage in answers) == status.busy_ns - status.unbilled_ns > 0


async def test_scores(serve: Serve, placement: str, reranker_file: Path) -> None:
    adapter = await serve(f"file:{reranker_file}", placement=placement, threads=1)
    assert adapter.offers()[0].tasks == ("text-ranking",)
    reference = bert.small(head=True)
    documents = ["the toll road", "river", ""]
    request = msgspec.convert(
        {"model": MODEL, "query": "where?", "documents": [documents[0], {"text": "river"}, ""]},
        RerankRequest,
    )
    output, usage = await produced(adapter, order(1, request))
    assert isinstance(output, Ranking)
    pairs = [reference.tokens("where?", each) for each in documents]
    assert output.scores == pytest.approx([reference.score(each) for each in pairs], abs=5e-3)
    assert usage.input_tokens == sum(map(len, pairs))


@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
async def test_the_adapter_conforms(check: TaskCheck, serve: Serve, minilm_file: Path) -> None:
    adapter = await serve(f"file:{minilm_file}", placement="inline", threads=1)
    numbers = itertools.count()
    subject = TaskSubject(
        adapter=adapter,
        call=lambda: order(next(numbers), embed("a toll road")),
        endless=lambda: order(next(numbers), embed(["many words in here"] * 2000)),
        refused=order(-1, embed([99_999])),
    )
    await check(subject)


async def test_stopping_and_leaving(serve: Serve, minilm_file: Path) -> None:
    adapter = await serve(f"file:{minilm_file}", placement="inline", threads=1)
    await adapter.runtime.load(MODEL)
    stop = asyncio.Event()
    call = order(1, embed(["many words in here"] * 2000), stop=stop)
    kinds = []
    async for event in adapter.infer(call):
        kinds.append(type(event))
        stop.set()
        if isinstance(event, UsageReport):
            assert 0 < event.usage.input_tokens < 2000 * 6
    assert kinds == [Started, UsageReport]
    left = adapter.infer(order(2, embed(["many words in here"] * 2000)))
    assert isinstance(await anext(left), Started)
    await left.aclose()
    output, _ = await produced(adapter, order(3, embed("again")))
    assert len(output.vectors) == 1


async def test_faults_are_the_callers(serve: Serve, minilm_file: Path) -> None:
    adapter = await serve(f"file:{minilm_file}", placement="inline", threads=1)
    cases: list[tuple[Request, FailureKind, str | None]] = [
        (embed("river " * 600), FailureKind.CONTEXT_LENGTH, "input[0]"),
        (embed([99_999]), FailureKind.BAD_REQUEST, "input[0]"),
        (chat(), FailureKind.NOT_FOUND, None),
        (RerankRequest(model=MODEL, query="q", documents=["d"]), FailureKind.NOT_FOUND, "model"),
    ]
    for number, (request, kind, param) in enumerate(cases):
        with pytest.raises(AdapterError) as failed:
            await produced(adapter, order(number, request))
        assert (failed.value.kind, failed.value.param) == (kind, param)


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("one", ["one"]),
        (["one", "two"], ["one", "two"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_forms_of_input(given: Any, texts: list[Any]) -> None:
    task = task_of(embed(given, dimensions=16, truncate=True))
    assert (task.texts, task.size, task.truncate, task.query) == (texts, 16, True, None)


def spec(source: str, **fields: Any) -> LocalModelSpec:
    return LocalModelSpec(id=MODEL, source=source, **fields)


def test_what_is_configured_must_be_possible(tmp_path: Path, minilm_file: Path) -> None:
    unpooled = bert.small().write(tmp_path / "unpooled.gguf", None)
    cases = [
        (spec(f"file:{unpooled}"), "pooled"),
        (spec(f"file:{minilm_file}", task="rerank"), "makes vectors"),
        (spec(f"file:{minilm_file}", task="chat"), "cannot write"),
        (spec(SMOLLM_SOURCE, task="embedding"), "does not say how"),
        (spec(f"file:{minilm_file}", context_length=513), "trained for 512"),
        (spec(f"file:{minilm_file}", projector=f"file:{minilm_file}"), "no projector"),
        (spec("fake:", task="embedding"), "only chats"),
    ]
    for model, reason in cases:
        with pytest.raises(RuntimeConfigError, match=reason):
            LocalRuntime([model])
    (served,) = LocalRuntime([spec(f"file:{minilm_file}", task="embedding")]).models.values()
    assert served.engine_spec.engine == "llama_encoder"
