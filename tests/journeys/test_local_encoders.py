"""Promise: embedding and reranking models on this machine are served, billed and refused as every
other model is; nobody pays twice for the same second of compute."""

import base64
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.appliance import RunningAppliance, appliance
from tests.journeys.ledger_file import LedgerFile
from tests.local_runtime import bert

EMBEDDER, RERANKER, CHAT = "acme/minilm", "acme/judge", "acme/echo"
PRICE_USD_PER_SECOND = "0.00012"
NANO_USD_PER_SECOND = 120_000
QUERY = "where is the toll road?"
DOCUMENTS = ["river", "the toll road", "a bridge is where the river is, the road is a fee"]


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, minilm_file: Path, reranker_file: Path
) -> Iterator[RunningAppliance]:
    config = f"""
[local.hardware]
price_usd_per_second = "{PRICE_USD_PER_SECOND}"
[[local.models]]
id = "{EMBEDDER}"
source = "file:{minilm_file}"
[[local.models]]
id = "{RERANKER}"
source = "file:{reranker_file}"
threads = 1
[[local.models]]
id = "{CHAT}"
source = "fake:"
"""
    with appliance(tmp_path_factory.mktemp("encoders"), config) as started:
        yield started


@pytest.fixture(scope="module")
def key(running: RunningAppliance) -> str:
    return running.user("ann", "pro")


@pytest.fixture(scope="module")
def client(running: RunningAppliance, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=key, max_retries=0) as client:
        yield client


def rerank(running: RunningAppliance, key: str, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{running.base_url}/v1/rerank",
        json={"model": RERANKER, "query": QUERY, "documents": DOCUMENTS} | body,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,
    )


def likeness(found: Any, text: str) -> float:
    reference = bert.minilm()
    return float(np.array(found, dtype=np.float32) @ reference.vector(reference.tokens(text)))


def test_openais_client_gets_vectors(client: openai.OpenAI) -> None:
    texts = ["The toll road is closed.", "A river", "x " * 200]
    found = client.embeddings.create(model=EMBEDDER, input=texts)
    assert [each.index for each in found.data] == [0, 1, 2]
    for each, text in zip(found.data, texts, strict=True):
        assert likeness(each.embedding, text) >= 0.999
    tokens = sum(len(bert.minilm().tokens(text)) for text in texts)
    assert (found.model, found.usage.prompt_tokens, found.usage.total_tokens) == (
        EMBEDDER,
        tokens,
        tokens,
    )
    plain = client.embeddings.create(model=EMBEDDER, input=texts[0], encoding_format="float")
    packed = client.embeddings.create(model=EMBEDDER, input=texts[0], encoding_format="base64")
    unpacked = struct.unpack("<384f", base64.b64decode(str(packed.data[0].embedding)))
    assert np.allclose(plain.data[0].embedding, unpacked, atol=1e-5)
    assert likeness(unpacked, texts[0]) >= 0.999


def test_tokens_and_dimensions(client: openai.OpenAI) -> None:
    tokens = bert.minilm().tokens("A river")
    (one,) = client.embeddings.create(model=EMBEDDER, input=tokens).data
    assert likeness(one.embedding, "A river") >= 0.999
    two = client.embeddings.create(model=EMBEDDER, input=[tokens, tokens[:2]], dimensions=64).data
    assert [len(each.embedding) for each in two] == [64, 64]
    assert np.linalg.norm(two[0].embedding) == pytest.approx(1, abs=1e-5)
    assert np.array(two[0].embedding) @ np.array(one.embedding[:64]) > 0


@pytest.mark.parametrize(
    ("given", "more", "param", "said"),
    [
        (["short", "river " * 600], {}, "input[1]", "512"),
        ([101, 40_000], {}, "input[0]", "40000"),
        ("x", {"dimensions": 385}, "dimensions", "384"),
        (["x"] * 2049, {}, "input", "2048"),
        ("x", {"extra_body": {"input_type": "query"}}, "input_type", "not supported"),
        (["x", ""], {}, "input[1]", "length"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: openai.OpenAI, given: Any, more: Any, param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=EMBEDDER, input=given, **more)
    assert refused.value.param == param
    assert said in refused.value.message


def test_too_long_a_text_is_cut_where_that_is_asked_for(client: openai.OpenAI) -> None:
    found = client.embeddings.create(
        model=EMBEDDER, input="river " * 600, extra_body={"truncate": True}
    )
    assert found.usage.prompt_tokens == 512


def test_documents_come_back_best_first(running: RunningAppliance, key: str) -> None:
    reference = bert.small(head=True)
    expected = [reference.score(reference.tokens(QUERY, each)) for each in DOCUMENTS]
    order = sorted(range(3), key=lambda at: -expected[at])
    found = rerank(running, key).json()
    assert [each["index"] for each in found["results"]] == order
    for each in found["results"]:
        assert each["relevance_score"] == pytest.approx(expected[each["index"]], abs=5e-3)
        assert "document" not in each
    tokens = sum(len(reference.tokens(QUERY, each)) for each in DOCUMENTS)
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (found["model"], found["object"]) == (RERANKER, "list")
    documents: list[Any] = [{"text": each} for each in DOCUMENTS]
    few = rerank(running, key, documents=documents, top_n=2, return_documents=True).json()
    assert [each["document"]["text"] for each in few["results"]] == [
        DOCUMENTS[at] for at in order[:2]
    ]
    assert few["id"] != found["id"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": ""}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": [1]}, "documents[0]"),
        ({"documents": [{"title": "x"}]}, "documents[0].title"),
        ({"top_n": 0}, "top_n"),
        ({"documents": ["a", "river " * 300]}, "documents[1]"),
        ({"query": "river " * 300}, "query"),
        ({"max_tokens_per_doc": 5}, "max_tokens_per_doc"),
        ({"documents": ["x"] * 2049}, "documents"),
    ],
)
def test_a_bad_rerank_is_refused_by_name(
    running: RunningAppliance, key: str, body: dict[str, Any], param: str
) -> None:
    told = rerank(running, key, **body)
    assert told.status_code == 400, told.text
    assert told.json()["error"]["param"] == param


def test_every_model_says_what_it_is_for(
    running: RunningAppliance, key: str, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        client.chat.completions.create(
            model=EMBEDDER, messages=[{"role": "user", "content": "Hello"}]
        )
    with pytest.raises(openai.NotFoundError, match="/v1/rerank"):
        client.embeddings.create(model=RERANKER, input="x")
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.embeddings.create(model=CHAT, input="x")
    assert rerank(running, key, model=EMBEDDER).status_code == 404
    listed = {each.id: each.model_dump()["architecture"] for each in client.models.list()}
    assert listed[EMBEDDER]["output_modalities"] == ["embedding"]
    assert listed[RERANKER]["output_modalities"] == ["scores"]
    assert listed[CHAT]["output_modalities"] == ["text"]


def test_an_answer_is_repeated_and_not_charged_again(running: RunningAppliance, key: str) -> None:
    ledger = LedgerFile(running.data_dir)

    def ask() -> httpx.Response:
        return httpx.post(
            f"{running.base_url}/v1/rerank",
            json={"model": RERANKER, "query": QUERY, "documents": DOCUMENTS},
            headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "rank-1"},
            timeout=60,
            trust_env=False,
        )

    first, second = ask(), ask()
    assert second.headers["idempotency-replayed"] == "true"
    assert first.content == second.content
    row = ledger.calls()[first.headers["inference-id"]]
    assert row.outcome == "completed"
    assert second.headers["inference-id"] not in ledger.calls()


def test_sixteen_share_a_batch_and_pay_to_the_nano(running: RunningAppliance) -> None:
    """What each is charged is its own compute at the price, rounded up once. (That the shares add
    up to the engine's busy time is shown in ``tests/local_runtime/test_encoding.py``.)"""
    ledger = LedgerFile(running.data_dir)
    keys = [running.user(f"crowd-{n}", "pro") for n in range(4)]

    def ask(n: int) -> str:
        texts = [f"user {n} writes text {at} of {n + 1}" for at in range(n + 1)]
        url, key = f"{running.base_url}/v1", keys[n % 4]
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as crowd:
            raw = crowd.embeddings.with_raw_response.create(model=EMBEDDER, input=texts)
        data = raw.parse().data
        assert len(data) == n + 1
        assert likeness(data[n].embedding, texts[n]) >= 0.999
        return raw.headers["inference-id"]

    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(ask, range(16)))
    rows = ledger.calls()
    for each in ids:
        compute_ns = ledger.one("SELECT compute_ns FROM usage WHERE call_id = ?", each)
        assert compute_ns > 0
        assert rows[each].cost == -(-compute_ns * NANO_USD_PER_SECOND // 10**9)
        assert (rows[each].outcome, rows[each].lost) == ("completed", 0)
        assert rows[each].input_tokens > 0
    ledger.check()
