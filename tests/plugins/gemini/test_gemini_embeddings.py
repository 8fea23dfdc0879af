"""Texts become vectors, one each, in their order."""

import itertools
from typing import Any

import pytest

from plugins.conformance_tasks import TASK_CHECKS, TaskCheck, TaskSubject, perform
from plugins.contract import Adapter, AdapterError, FailureKind, InferenceCall
from plugins.tasks import EmbeddingRequest, Embeddings
from tests.plugins.gemini.conftest import EMBEDS, toolbox
from tests.upstreams.gemini import KEY, PlayedGemini

_numbers = itertools.count()


def order(input_: Any = ("one", "three", "four four"), **params: Any) -> InferenceCall:
    said = list(input_) if isinstance(input_, tuple) else input_
    number = next(_numbers)
    return InferenceCall(
        call_id=f"call-{number}",
        attempt_id=f"attempt-{number}",
        upstream_id=EMBEDS,
        request=EmbeddingRequest(model="google/embeds", input=said, **params),
        stream=False,
        api_key=KEY,
        first_event_s=15.0,
        deadline_s=15.0,
    )


@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
async def test_conforms(check: TaskCheck, adapter: Adapter, played: PlayedGemini) -> None:
    subject = TaskSubject(
        adapter=adapter,
        call=order,
        refused=order("play:unavailable"),
        models=toolbox().models,
        keys_seen=lambda: [str(asked.headers) for asked in played.serving.asked],
        is_providers=played.serving.is_ours,
    )
    await check(subject)


async def test_one_vector_per_text_in_their_order(adapter: Adapter, played: PlayedGemini) -> None:
    call = order(dimensions=16, input_type="search_query")
    outcome = await perform(adapter, call)
    assert isinstance(outcome.output, Embeddings)
    assert [len(vector) for vector in outcome.output.vectors] == [16] * 3
    assert [vector[0] * 8 for vector in outcome.output.vectors] == [3, 5, 9]
    assert (outcome.usage.input_tokens, outcome.usage.estimated) == (5, True)
    assert played.bodies[0]["requests"][0] == {
        "model": f"models/{EMBEDS}",
        "content": {"parts": [{"text": "one"}]},
        "outputDimensionality": 16,
        "taskType": "RETRIEVAL_QUERY",
    }


@pytest.mark.parametrize(
    ("input_", "params", "param"),
    [
        ([1, 2, 3], {}, "input"),
        (["a", [1, 2]], {}, "input"),
        (["a"] * 101, {}, "input"),
        ("a", {"input_type": "poem"}, "input_type"),
    ],
)
async def test_what_cannot_be_sent_is_named(
    adapter: Adapter, played: PlayedGemini, input_: Any, params: dict[str, Any], param: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        await perform(adapter, order(input_, **params))
    assert (caught.value.kind, caught.value.param) == (FailureKind.BAD_REQUEST, param)
    assert played.serving.asked == []


@pytest.mark.parametrize(
    ("scene", "kind"),
    [
        ("one_less", FailureKind.PROTOCOL),
        ("crooked", FailureKind.PROTOCOL),
        ("bad_key", FailureKind.AUTH),
        ("rate_limited", FailureKind.RATE_LIMITED),
        ("too_long", FailureKind.CONTEXT_LENGTH),
    ],
)
async def test_faults(adapter: Adapter, scene: str, kind: FailureKind) -> None:
    with pytest.raises(AdapterError) as caught:
        await perform(adapter, order((f"play:{scene}", "other")))
    assert caught.value.kind is kind
