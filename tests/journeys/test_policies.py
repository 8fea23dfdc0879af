"""How a call finds its provider, through the ``openai`` package as it is: policies, fallback
models, the in-request routing object, circuits, the retry budget, hedging, key pools, and what
errors say.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError

from tests.journeys.stage import Part, Stage, open_stage
from tests.upstreams.rates import Rates
from tests.upstreams.scenes import SCENES, Scene

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

NORMAL = SCENES["normal"]
GOOD = Part(NORMAL)
# 300 tokens, so that one answer counts in full for the mean of the speed.
FAST, MIDDLING, SLOW = (Scene(words=300, wait_s=wait_s) for wait_s in (0.1, 0.25, 0.6))
PLAIN_PARAMS = 'supported_params = ["max_tokens", "temperature"]'
ROUTING = """
[routing.aliases]
gpt-4o = "acme/prices:cheapest"
house = "gpt-4o"
[local]
placement = "inline"
[[local.models]]
id = "acme/homely"
source = "fake:"
engine = "fake"
"""
CASES = {
    "speed": (Part(FAST), Part(MIDDLING)),
    "wanted": (Part(MIDDLING), Part(FAST)),
    "prices": (
        Part(NORMAL, rates=Rates(input=1, output=900)),
        Part(NORMAL, rates=Rates(input=1, output=100, per_request=300_000)),
        Part(NORMAL, rates=Rates(input=900, output=500)),
    ),
    "order": (GOOD, GOOD, GOOD),
    "homely": (GOOD,),
    "falls": (Part(SCENES["not_found"]),),
    "wishes": (
        Part(NORMAL, more=f'quantization = "fp8"\n{PLAIN_PARAMS}'),
        Part(NORMAL, labels=("zdr",), more='quantization = "bf16"'),
        Part(NORMAL, labels=("no_training",)),
    ),
    "params": (Part(NORMAL, more=PLAIN_PARAMS), GOOD),
    "bare": (Part(NORMAL, more=PLAIN_PARAMS), Part(NORMAL, more=PLAIN_PARAMS)),
    "circuit": (Part(SCENES["server_error"]), GOOD),
    "storm": (Part(SCENES["not_found"]), Part(Scene(wait_s=1.0))),
    "hedge": (Part(Scene(name="late", wait_s=0.7)), GOOD),
    "pool": (Part(NORMAL, weights=(3, 1)),),
    "failing": (Part(SCENES["server_error"]), GOOD),
}


class Got(NamedTuple):
    """Who answered, and what."""

    provider: str
    model: str
    text: str
    headers: Any


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("policies")
    async with open_stage(folder, CASES, ROUTING) as made:
        yield made
        await made.ledger.settled()
        assert made.ledger.check()["overrun"] == 0


@pytest_asyncio.fixture(loop_scope="module")
async def client(stage: Stage) -> AsyncIterator[AsyncOpenAI]:
    url = f"{stage.running.base_url}/v1"
    async with AsyncOpenAI(base_url=url, api_key=stage.key, max_retries=0) as made:
        yield made


async def ask(client: AsyncOpenAI, model: str, **params: Any) -> Got:
    """One call; ``provider`` and ``models`` go where the package lets unknown fields go."""
    extra = {name: params.pop(name) for name in ("provider", "models") if name in params}
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "hello"}], extra_body=extra, **params
    )
    answer = raw.parse()
    who = raw.headers["x-inference-provider"]
    return Got(who, answer.model, answer.choices[0].message.content or "", raw.headers)


def error_of(caught: pytest.ExceptionInfo[APIStatusError]) -> dict[str, Any]:
    error: dict[str, Any] = caught.value.response.json()["error"]
    return error


async def test_fastest_follows_what_is_measured(stage: Stage, client: AsyncOpenAI) -> None:
    for provider in ("speed-a", "speed-b"):
        assert (await ask(client, f"acme/speed:{provider}")).provider == provider
    assert (await ask(client, "acme/speed:fastest")).provider == "speed-a"
    stage.scenes["speed-a"] = SLOW
    served = [(await ask(client, "acme/speed:fastest")).provider for _ in range(10)]
    assert served[0] == "speed-a"
    assert served[-1] == "speed-b", "the slow one is left"
    stage.scenes["speed-a"] = FAST
    for _ in range(10):  # others still ask it by name
        await ask(client, "acme/speed:speed-a")
    assert (await ask(client, "acme/speed:fastest")).provider == "speed-a"


async def test_wishes_about_speed_move_those_that_miss_them_back(client: AsyncOpenAI) -> None:
    for provider in ("wanted-a", "wanted-b"):
        await ask(client, f"acme/wanted:{provider}")
    assert (await ask(client, "acme/wanted")).provider == "wanted-a"
    for wish in ({"p50": 1600}, 1600):
        got = await ask(client, "acme/wanted", provider={"preferred_min_throughput": wish})
        assert got.provider == "wanted-b"
    got = await ask(client, "acme/wanted", provider={"preferred_min_throughput": 1_000_000})
    assert got.provider == "wanted-a", "a wish leaves nobody out"
    assert (await ask(client, "acme/wanted", provider={"sort": "throughput"})).provider == (
        "wanted-b"
    )


async def test_cheapest_goes_by_the_price_of_the_answer(stage: Stage, client: AsyncOpenAI) -> None:
    assert (await ask(client, "acme/prices:cheapest")).provider == "prices-c"
    assert (await ask(client, "acme/prices", provider={"sort": "price"})).provider == "prices-c"
    assert (await ask(client, "acme/prices")).provider == "prices-a", "the file's order"
    stage.script["prices-c"] = [SCENES["not_found"]]
    await stage.calm()
    # 900 a token is less than 100 and 300,000 spread over an answer.
    assert (await ask(client, "acme/prices:cheapest")).provider == "prices-a"


async def test_an_alias_stands_for_a_name_and_its_suffix(client: AsyncOpenAI) -> None:
    for alias in ("gpt-4o", "house"):
        got = await ask(client, alias)
        assert (got.provider, got.model) == ("prices-c", "acme/prices")
        assert (await ask(client, f"{alias}:prices-b")).provider == "prices-b"
        assert (await ask(client, f"{alias}:preferred")).provider == "prices-a"


async def test_preferred_is_each_user_s_own_order(stage: Stage, client: AsyncOpenAI) -> None:
    await asyncio.to_thread(stage.running.cli, "preferred", "set", "ann", "order-c", "order-b")
    ben = await asyncio.to_thread(stage.running.user, "ben", "pro")
    url = f"{stage.running.base_url}/v1"
    async with AsyncOpenAI(base_url=url, api_key=ben, max_retries=0) as his:
        assert (await ask(his, "acme/order:preferred")).provider == "order-a"
    assert (await ask(client, "acme/order:preferred")).provider == "order-c"
    stage.script["order-c"] = [SCENES["not_found"]]
    await stage.calm()
    assert (await ask(client, "acme/order:preferred")).provider == "order-b"
    got = await ask(client, "acme/order:preferred", provider={"order": ["order-a"]})
    assert got.provider == "order-a", "what the request says comes first"
    await asyncio.to_thread(stage.running.cli, "preferred", "clear", "ann")
    assert (await ask(client, "acme/order:preferred")).provider == "order-a"


async def test_local_is_this_machine_only(client: AsyncOpenAI) -> None:
    got = await ask(client, "acme/homely:local")
    assert (got.provider, got.text) == ("local", "echo: hello")
    assert (await ask(client, "acme/homely:homely-a")).provider == "homely-a"
    with pytest.raises(NotFoundError) as caught:
        await ask(client, "acme/order:local")
    availability = error_of(caught)["availability"]
    assert (availability["code"], availability["excluded_by"]) == (
        "privacy_restricted",
        ["not_local"],
    )


async def test_fallback_models_are_tried_in_turn(stage: Stage, client: AsyncOpenAI) -> None:
    await stage.calm()
    got = await ask(client, "acme/nowhere", models=["acme/falls", "acme/order"])
    assert (got.provider, got.model) == ("order-a", "acme/order")
    got = await ask(client, "acme/falls", models=["acme/homely:local"])
    assert (got.provider, got.model) == ("local", "acme/homely")


WISHES: list[tuple[dict[str, Any], str]] = [
    ({}, "wishes-a"),
    ({"order": ["wishes-c", "wishes-b"]}, "wishes-c"),
    ({"only": ["wishes-b"]}, "wishes-b"),
    ({"ignore": ["wishes-a"]}, "wishes-b"),
    ({"ignore": ["wishes-a", "wishes-b"]}, "wishes-c"),
    ({"only": ["wishes-b", "wishes-c"], "order": ["wishes-c"]}, "wishes-c"),
    ({"zdr": True}, "wishes-b"),
    ({"data_collection": "deny"}, "wishes-b"),
    ({"data_collection": "deny", "ignore": ["wishes-b"]}, "wishes-c"),
    ({"data_collection": "allow"}, "wishes-a"),
    ({"quantizations": ["bf16"]}, "wishes-b"),
    ({"quantizations": ["unknown"]}, "wishes-c"),
    ({"max_price": {"prompt": 1, "completion": 0.505}}, "wishes-a"),
    ({"order": ["wishes-c"], "max_price": {"completion": 0.51}}, "wishes-a"),
    ({"sort": {"by": "price", "partition": "none"}}, "wishes-a"),
    ({"allow_fallbacks": True, "require_parameters": False}, "wishes-a"),
]
ALL_WISHES = ["wishes-a", "wishes-b", "wishes-c"]
IMPOSSIBLE: list[tuple[dict[str, Any], str, str, str | None]] = [
    ({"only": ["nobody"]}, "constraint_filtered", "only", "provider.only"),
    ({"ignore": ALL_WISHES}, "constraint_filtered", "ignored", "provider.ignore"),
    ({"zdr": True, "ignore": ["wishes-b"]}, "privacy_restricted", "zdr", "provider.zdr"),
    ({"max_price": {"completion": 0.01}}, "constraint_filtered", "max_price", "provider.max_price"),
    ({"quantizations": ["int4"]}, "constraint_filtered", "quantization", "provider.quantizations"),
]


@pytest.mark.parametrize(("wish", "provider"), WISHES, ids=json.dumps)
async def test_the_routing_object(client: AsyncOpenAI, wish: dict[str, Any], provider: str) -> None:
    assert (await ask(client, "acme/wishes", provider=wish)).provider == provider


@pytest.mark.parametrize(
    ("wish", "code", "reason", "field"), IMPOSSIBLE, ids=lambda value: json.dumps(value)[:40]
)
async def test_what_cannot_be_is_explained(
    stage: Stage, client: AsyncOpenAI, wish: dict[str, Any], code: str, reason: str, field: str
) -> None:
    before = stage.times("wishes")
    with pytest.raises(NotFoundError) as caught:
        await ask(client, "acme/wishes", provider=wish)
    error = error_of(caught)
    found = error["availability"]
    assert (error["code"], found["code"], found["retryable"]) == ("no_provider_fits", code, False)
    assert reason in found["excluded_by"]
    assert found["constraint"]["field"] == field
    assert found["requested_models"] == ["acme/wishes"]
    assert sorted(found["affected_providers"]) == ALL_WISHES
    assert sorted(each["provider"] for each in error["metadata"]["excluded"]) == ALL_WISHES
    assert stage.times("wishes") == before


async def test_names_that_nobody_knows_are_told_what_is_near(client: AsyncOpenAI) -> None:
    for name, code in (("acme/wishse", "model_not_found"), ("acme/wishes:nobody", "no_endpoints")):
        with pytest.raises(NotFoundError) as caught:
            await ask(client, name)
        found = error_of(caught)["availability"]
        assert found["code"] == code
        assert any(each.startswith("acme/wishes") for each in found["fallback_models"])


async def test_without_fallbacks_one_provider_is_asked(stage: Stage, client: AsyncOpenAI) -> None:
    await stage.calm()
    with pytest.raises(APIStatusError) as caught:
        await ask(client, "acme/failing", provider={"allow_fallbacks": False})
    assert caught.value.status_code == 502
    assert stage.times("failing") == (1, 0, 0)
    with pytest.raises(APIStatusError):
        await ask(client, "acme/failing:failing-a")
    assert stage.times("failing") == (2, 0, 0)
    assert (await ask(client, "acme/failing")).provider == "failing-b"


async def test_parameters_rule_out_or_are_dropped_and_told(
    stage: Stage, client: AsyncOpenAI
) -> None:
    got = await ask(client, "acme/params", temperature=0.5)
    assert (got.provider, "x-turnpike-dropped-params" in got.headers) == ("params-a", False)
    assert (await ask(client, "acme/params", seed=7)).provider == "params-b"
    got = await ask(client, "acme/params", user="u1", metadata={"k": "v"}, temperature=0.5)
    assert got.provider == "params-a"
    dropped = set(got.headers["x-turnpike-dropped-params"].split(", "))
    assert dropped == {"user", "metadata"}
    sent = stage.met("params")["a"][-1].request
    assert not dropped & set(sent)
    assert sent["temperature"] == 0.5
    wish = {"require_parameters": True}
    assert (await ask(client, "acme/params", user="u1", provider=wish)).provider == "params-b"
    assert stage.met("params")["b"][-1].request["user"] == "u1"
    assert not {"provider", "models"} & set(sent)


async def test_a_parameter_that_nobody_honours_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        await ask(client, "acme/bare", seed=7)
    error = error_of(caught)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "seed")
    assert error["availability"]["code"] == "constraint_filtered"


async def test_a_circuit_opens_is_tried_once_and_closes(stage: Stage, client: AsyncOpenAI) -> None:
    await stage.calm(30)
    for _ in range(5):
        assert (await ask(client, "acme/circuit")).provider == "circuit-b"
    for _ in range(5):
        await ask(client, "acme/circuit")
    assert stage.times("circuit") == (5, 10, 0), "left alone after five failures"
    # Well again; the trial takes a while, and who comes meanwhile goes elsewhere.
    stage.scenes["circuit-a"] = Scene(wait_s=2.0)
    played = stage.played["played"]
    async with asyncio.timeout(20):
        while True:
            asking = asyncio.ensure_future(ask(client, "acme/circuit"))
            trial = asyncio.ensure_future(
                played.wait_until(lambda: stage.times("circuit")[0] == 6, 20)
            )
            await asyncio.wait({asking, trial}, return_when=asyncio.FIRST_COMPLETED)
            if trial.done():
                break
            trial.cancel()
    others = await asyncio.gather(*(ask(client, "acme/circuit") for _ in range(6)))
    assert {got.provider for got in others} == {"circuit-b"}
    assert stage.times("circuit")[0] == 6, "one call at a time"
    assert (await asking).provider == "circuit-a"
    stage.scenes["circuit-a"] = NORMAL
    assert (await ask(client, "acme/circuit")).provider == "circuit-a", "closed"


async def test_the_retry_budget_shelters_the_survivors(stage: Stage, client: AsyncOpenAI) -> None:
    """Faults that open no circuit: without the budget, the second would get every call. It takes a
    second for each, so that three at once are three a second."""
    clients, each = 50, 6
    calls, others = clients * each, len(await asyncio.to_thread(stage.ledger.calls))
    began = time.monotonic()

    async def some() -> int:
        failed = 0
        for _ in range(each):
            try:
                await ask(client, "acme/storm")
            except APIStatusError as error:
                assert error.status_code == 502
                failed += 1
        return failed

    failed = sum(await asyncio.gather(*(some() for _ in range(clients))))
    took_s = time.monotonic() - began
    first, second, _ = stage.times("storm")
    assert (first, second) == (calls, calls - failed)
    assert 3 <= second <= 0.2 * (calls + others) + 3 * (took_s + 1) + took_s / 10 + 1


async def test_hedging_is_a_wish(stage: Stage, client: AsyncOpenAI) -> None:
    await stage.calm()
    assert (await ask(client, "acme/hedge")).provider == "hedge-a"
    assert stage.times("hedge") == (1, 0, 0)
    got = await ask(client, "acme/hedge", provider={"hedge": {"after_ms": 50}})
    assert got.provider == "hedge-b"
    assert stage.times("hedge") == (2, 1, 0)
    late = stage.met("hedge")["a"][-1]
    await stage.played["played"].wait_until(lambda: late.gone)
    rows = [row for row in stage.ledger.calls().values() if row.model == "acme/hedge"]
    assert sorted((row.provider, row.attempts) for row in rows) == [("hedge-a", 1), ("hedge-b", 2)]
    (row,) = [row for row in rows if row.provider == "hedge-b"]
    assert row.cost == stage.bill("hedge", "b")


async def test_keys_take_turns_by_weight(stage: Stage, client: AsyncOpenAI) -> None:
    for _ in range(40):
        await ask(client, "acme/pool")
    keys = Counter(booked.headers["authorization"] for booked in stage.met("pool")["a"])
    assert sorted(keys.values()) == [10, 30]
