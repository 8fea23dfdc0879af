"""How a call was served, told to clients that ask, and to nobody else."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.api.explain import FIELD
from tests.journeys.callers import Caller, Heard, chat
from tests.journeys.faults import KEY, SAID, SOON_S
from tests.journeys.stage import PROMPT, Part, Stage, open_stage
from tests.upstreams.scenes import SCENES, Scene, error_body

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

NORMAL = SCENES["normal"]
# Opens no circuit, however often it is met.
LEAKY = Scene(name="leaky", status=404, body=error_body(f"{SAID} {KEY}"))
CASES = {
    "served": (Part(NORMAL, labels=("zdr", "eu")), Part(NORMAL), Part(NORMAL)),
    "rescued": (Part(LEAKY), Part(LEAKY), Part(NORMAL)),
    "doomed": (Part(LEAKY), Part(LEAKY)),
    "broken": (Part(SCENES["error_later"]), Part(NORMAL)),
    "slow": (Part(Scene(wait_s=9.0), impatient=True), Part(NORMAL)),
    "picky": (Part(NORMAL, more='supported_params = ["max_tokens"]'), Part(NORMAL)),
}
ASKING = ({"X-Turnpike-Explain": "1"}, {"X-OpenRouter-Metadata": "enabled"})
NOT_ASKING: tuple[dict[str, str], ...] = (
    {},
    {"X-Turnpike-Explain": "0"},
    {"X-Turnpike-Explain": "true"},
    {"X-OpenRouter-Metadata": "disabled"},
    {"X-OpenRouter-Metadata": "1"},
)
FIELDS = {
    *("requested", "strategy", "region", "summary", "attempt", "is_byok", "endpoints"),
    *("attempts", "pipeline", "excluded", "dropped_params"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("explain")
    async with open_stage(folder, CASES) as made:
        yield made


async def ask(
    stage: Stage, model: str, headers: dict[str, str], *, stream: bool = False, **params: Any
) -> Heard:
    await stage.calm()
    caller = Caller(stage.running.base_url, stage.key)
    try:
        body = chat(PROMPT, model=f"acme/{model}", stream=stream, **params)
        return await caller.ask(body, headers=headers)
    finally:
        caller.drop()


def explanation(heard: Heard) -> dict[str, Any] | None:
    """What was told, wherever it stands: in the body, in the last chunk, in the error."""
    if heard.error is not None:
        told_in = heard.error["metadata"]
    elif not heard.body.startswith(b"data:"):
        told_in = json.loads(heard.body)
    else:
        *others, last, done = heard.events
        assert done == "[DONE]"
        assert not any(FIELD in event for event in others), "told once, at the end"
        told_in = json.loads(last)
        assert FIELD not in told_in or told_in["choices"] == []
    found: dict[str, Any] | None = told_in.get(FIELD)
    return found


def tries(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["provider"], each["status"]) for each in told["attempts"]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("headers", ASKING, ids=lambda value: next(iter(value)))
async def test_an_answer_at_the_first_try(
    stage: Stage, headers: dict[str, str], stream: bool
) -> None:
    heard = await ask(stage, "served", headers, stream=stream)
    told = explanation(heard)
    assert told is not None
    assert set(told) == FIELDS
    assert (told["requested"], told["strategy"]) == ("acme/served", "preferred")
    assert (told["attempt"], told["is_byok"], told["region"]) == (1, False, None)
    assert told["summary"] == "available=3, attempts=1, selected=served-a"
    assert tries(told) == [("served-a", "ok")]
    (attempt,) = told["attempts"]
    assert set(attempt) == {"provider", "model", "status", "ms", "is_byok"}
    assert 0 <= attempt["ms"] < 30_000
    assert told["endpoints"] == {
        "total": 3,
        "available": [
            {"provider": f"served-{role}", "model": "acme/served", "selected": role == "a"}
            | {"labels": ["eu", "zdr"] if role == "a" else []}
            for role in "abc"
        ],
    }
    assert (told["pipeline"], told["excluded"], told["dropped_params"]) == ([], [], [])


async def test_usage_and_explanation_share_the_last_chunk(stage: Stage) -> None:
    options = {"include_usage": True}
    heard = await ask(stage, "served", ASKING[0], stream=True, stream_options=options)
    last = json.loads(heard.events[-2])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert last[FIELD]["attempt"] == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_every_attempt_is_told(stage: Stage, stream: bool) -> None:
    heard = await ask(stage, "rescued", ASKING[0], stream=stream)
    told = explanation(heard)
    assert told is not None
    assert tries(told) == [
        ("rescued-a", "not_found"),
        ("rescued-b", "not_found"),
        ("rescued-c", "ok"),
    ]
    assert told["attempt"] == 3
    assert [each["selected"] for each in told["endpoints"]["available"]].count(True) == 1
    assert SAID.encode() not in heard.body
    assert KEY.encode() not in heard.body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_failure_is_told_in_the_error(stage: Stage, stream: bool) -> None:
    heard = await ask(stage, "doomed", ASKING[1], stream=stream)
    assert heard.status == 502
    told = explanation(heard)
    assert told is not None
    assert set(told) == FIELDS
    assert tries(told) == [("doomed-a", "not_found"), ("doomed-b", "not_found")]
    assert SAID.encode() not in heard.body
    assert b"sk-" not in heard.body


async def test_a_stream_that_breaks_off_is_told_in_its_error(stage: Stage) -> None:
    heard = await ask(stage, "broken", ASKING[0], stream=True)
    assert (heard.status, heard.done) == (200, False)
    told = explanation(heard)
    assert told is not None
    assert tries(told) == [("broken-a", "upstream")]
    assert b"failed midway" not in heard.body


async def test_an_attempt_that_took_its_time_says_so(stage: Stage) -> None:
    told = explanation(await ask(stage, "slow", ASKING[0]))
    assert told is not None
    assert tries(told) == [("slow-a", "timeout"), ("slow-b", "ok")]
    assert told["attempts"][0]["ms"] >= SOON_S * 1000


async def test_what_was_left_out_and_why(stage: Stage) -> None:
    heard = await ask(stage, "picky", ASKING[0], seed=7, provider={"order": ["picky-a"]})
    told = explanation(heard)
    assert told is not None
    assert told["excluded"] == [
        {
            "provider": "picky-a",
            "model": "acme/picky",
            "reason": "parameter",
            "detail": "seed",
        }
    ]
    assert told["endpoints"]["total"] == 2
    assert [each["provider"] for each in told["endpoints"]["available"]] == ["picky-b"]
    dropping = explanation(await ask(stage, "picky", ASKING[0], user="u1"))
    assert dropping is not None
    assert dropping["dropped_params"] == ["user"]


async def test_a_plan_that_was_impossible_says_what_was_left_out(stage: Stage) -> None:
    heard = await ask(stage, "served", ASKING[0], provider={"only": ["nobody"]})
    assert heard.status == 404
    assert heard.error is not None
    excluded = heard.error["metadata"]["excluded"]
    assert {(each["provider"], each["reason"]) for each in excluded} == {
        (f"served-{role}", "only") for role in "abc"
    }


@pytest.mark.parametrize("headers", NOT_ASKING, ids=str)
async def test_nobody_else_is_told(stage: Stage, headers: dict[str, str]) -> None:
    for model in ("served", "rescued", "doomed"):
        for stream in (False, True):
            heard = await ask(stage, model, headers, stream=stream)
            assert FIELD.encode() not in heard.body
            assert not {name for name in heard.headers if "explain" in name or "router" in name}
