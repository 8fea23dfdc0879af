"""The kit notices adapters that break a rule, and says when a rule does not apply."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from plugins.chat import AssistantMessage, Choice, ChoiceDelta, Delta
from plugins.conformance import (
    NotConforming,
    Subject,
    closing_stops_the_work,
    each_call_brings_its_own_key,
    failures_are_adapter_errors,
    listed_models_are_well_formed,
    offers_are_cheap_and_steady,
    offers_keep_what_is_configured,
    stopping_ends_with_usage,
    tool_calls_are_whole,
    whole_answer_keeps_the_order,
)
from plugins.conformance_tasks import TaskSubject, the_order_is_kept
from plugins.contract import (
    AdapterError,
    Chunk,
    Completion,
    Event,
    FailureKind,
    InferenceCall,
    ModelEntry,
    Offer,
    Price,
    Produced,
    Started,
    Usage,
    UsageReport,
)
from plugins.tasks import Embeddings, ImageRequest, Images, Media
from tests.plugins.conftest import make_call

Infer = Callable[[InferenceCall], AsyncGenerator[Event, None]]
ENTRY = ModelEntry(id="acme/tiny", upstream_id="m", price=Price(input=1), context_length=8)
REPORT = UsageReport(Usage(input_tokens=1, output_tokens=1))


async def answering(_: InferenceCall) -> AsyncGenerator[Event, None]:
    yield _answer()
    yield REPORT


class Wrong:
    """An adapter whose ``infer``, ``offers`` and ``discover`` a test supplies."""

    def __init__(
        self,
        infer: Infer = answering,
        *,
        offers: Callable[[], list[Offer]] = list,
        listed: list[ModelEntry] | None = None,
        offer_of: Callable[[ModelEntry], Offer] = lambda entry: entry.offer("p"),
    ) -> None:
        self._infer = infer
        self._offers = offers
        self.offer_of = offer_of
        self._listed = listed

    def offers(self) -> list[Offer]:
        return self._offers()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def infer(self, call: InferenceCall) -> AsyncIterator[Event]:
        return self._infer(call)

    async def discover(self, api_key: str | None) -> list[ModelEntry]:
        if self._listed is None:
            raise AdapterError(FailureKind.AUTH, "no list today")
        return self._listed


def _answer(text: str | None = "text", finish: str = "stop", **more: Any) -> Completion:
    message = AssistantMessage(role="assistant", content=text, **more)
    return Completion([Choice(index=0, message=message, finish_reason=finish)])


def of(infer: Infer = answering, **given: Any) -> Subject:
    return Subject(adapter=Wrong(infer), call=make_call, **given)


async def test_missing_usage() -> None:
    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        yield _answer()

    with pytest.raises(NotConforming, match="UsageReport"):
        await whole_answer_keeps_the_order(of(infer))


async def test_late_started() -> None:
    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        yield _answer()
        yield Started()
        yield REPORT

    with pytest.raises(NotConforming, match="Started comes first"):
        await whole_answer_keeps_the_order(of(infer))


async def test_a_task_left_running() -> None:
    left: list[asyncio.Task[None]] = []

    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        left.append(asyncio.create_task(asyncio.sleep(60)))
        yield _answer()
        yield REPORT

    with pytest.raises(NotConforming, match="still running"):
        await closing_stops_the_work(of(infer))
    for task in left:
        task.cancel()


async def test_foreign_exceptions() -> None:
    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        yield Started()
        raise KeyError("choices")

    with pytest.raises(NotConforming, match="AdapterError only"):
        await failures_are_adapter_errors(of(infer, refused=make_call()))


async def test_an_answer_where_a_failure_was_due() -> None:
    with pytest.raises(NotConforming, match="was answered"):
        await failures_are_adapter_errors(of(refused=make_call()))
    told = await failures_are_adapter_errors(of(refused=make_call(), must_refuse=False))
    assert told == "the provider answered the call that was to fail"
    assert await failures_are_adapter_errors(of()) == "no call that fails is given"


@pytest.mark.parametrize("place", ["message", "detail", "cause"])
async def test_a_key_in_a_failure(place: str) -> None:
    async def infer(call: InferenceCall) -> AsyncGenerator[Event, None]:
        words = {"message": "no", "detail": "", "cause": ""} | {place: f"bad key {call.api_key}"}
        yield Started()
        cause = ValueError(words["cause"])
        raise AdapterError(FailureKind.AUTH, words["message"], detail=words["detail"]) from cause

    with pytest.raises(NotConforming, match="does not tell the key"):
        await failures_are_adapter_errors(of(infer, refused=make_call()))


@pytest.mark.parametrize("habit", ["own", "first", "both", "none", "slow"])
async def test_keys_are_those_of_the_call(habit: str) -> None:
    sent: list[str] = []

    async def infer(call: InferenceCall) -> AsyncGenerator[Event, None]:
        key = str(call.api_key)
        kept = [*(word for line in sent for word in line.split()), key]
        match habit:
            case "own":
                sent.extend([key, "no key here", key])  # several requests for one call
            case "first":
                sent.append(kept[0])
            case "both":
                sent.append(" ".join({*kept}))
            case "slow":
                sent.append(kept[-2] if len(kept) > 1 else key)
        yield _answer()
        yield REPORT

    subject = of(infer, keys_seen=lambda: sent)
    if habit == "own":
        assert await each_call_brings_its_own_key(subject) is None
    else:
        with pytest.raises(NotConforming, match="its own key"):
            await each_call_brings_its_own_key(subject)
    assert "nobody tells" in str(await each_call_brings_its_own_key(of(infer)))


def _call_piece(index: int | None, **told: Any) -> dict[str, Any]:
    piece: dict[str, Any] = {} if index is None else {"index": index}
    if "id" in told:
        piece |= {"id": told.pop("id"), "type": "function"}
    return {**piece, "function": told}


GOOD = [
    _call_piece(0, id="a", name="find", arguments='{"x"'),
    _call_piece(1, id="b", name="read", arguments="{}"),
    _call_piece(0, arguments=": 1}"),
]
BAD_CALLS = {
    "no index": ([_call_piece(None, id="a", name="find", arguments="{}")], "index of its call"),
    "not from 0": ([_call_piece(1, id="a", name="find", arguments="{}")], "numbered from 0"),
    "one id": ([GOOD[0], {**GOOD[1], "id": "a"}, GOOD[2]], "an id of its own"),
    "no name": ([_call_piece(0, id="a", arguments="{}")], "has a name"),
    "no JSON": ([_call_piece(0, id="a", name="find", arguments='{"x')], "a JSON object"),
    "no object": ([_call_piece(0, id="a", name="find", arguments="3")], "a JSON object"),
    "none": ([], "has tool calls"),
}


def calling(pieces: list[dict[str, Any]], finish: str = "tool_calls") -> Infer:
    async def infer(call: InferenceCall) -> AsyncGenerator[Event, None]:
        if call.stream:
            for piece in pieces:
                yield Chunk([ChoiceDelta(index=0, delta=Delta(tool_calls=[piece]))])
            yield Chunk([ChoiceDelta(index=0, delta=Delta(), finish_reason=finish)])
        else:
            whole = [
                _call_piece(None, id="a", name="find", arguments='{"x": 1}'),
                _call_piece(None, id="b", name="read", arguments="{}"),
            ]
            yield _answer(None, finish, tool_calls=whole)
        yield REPORT

    return infer


async def test_tool_calls_in_pieces() -> None:
    assert await tool_calls_are_whole(of(calling(GOOD), tools=make_call)) is None
    assert "no call that is answered" in str(await tool_calls_are_whole(of(calling(GOOD))))
    with pytest.raises(NotConforming, match="ended for its tool calls"):
        await tool_calls_are_whole(of(calling(GOOD, "stop"), tools=make_call))


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_tool_calls_that_cannot_be_told_apart(name: str) -> None:
    pieces, rule = BAD_CALLS[name]
    with pytest.raises(NotConforming, match=rule):
        await tool_calls_are_whole(of(calling(pieces), tools=make_call))


BAD_LISTS: dict[str, tuple[dict[str, Any], str]] = {
    "twice": ({"count": 2}, "listed once"),
    "no name": ({"upstream_id": ""}, "has names"),
    "long name": ({"id": "x" * 257}, "has names"),
    "odd name": ({"id": "x\ny"}, "can be printed"),
    "odd task": ({"tasks": ("chat",)}, "known tasks"),
    "no context": ({"context_length": 0}, "limits are above zero"),
    "paid by them": ({"price": Price(output=-1)}, "none below zero"),
    "a float": ({"price": Price(input=0.5)}, "whole numbers"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD_LISTS)
async def test_lists_that_cannot_be_right(name: str) -> None:
    changed, rule = BAD_LISTS[name]
    entry = msgspec.structs.replace(ENTRY, **{k: v for k, v in changed.items() if k != "count"})
    subject = Subject(adapter=Wrong(listed=[entry] * changed.get("count", 1)), call=make_call)
    with pytest.raises(NotConforming, match=rule):
        await listed_models_are_well_formed(subject)


async def test_lists_that_are_right_or_not_there() -> None:
    good = Subject(adapter=Wrong(listed=[ENTRY]), call=make_call)
    assert await listed_models_are_well_formed(good) is None
    assert "auth: no list today" in str(await listed_models_are_well_formed(of()))


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"price": Price(free=True)}, "its model's price"),
        ({"labels": frozenset({"zdr"})}, "labels are put on by the host"),
        ({"upstream_id": "other"}, "its model's names"),
        ({"context_length": None}, "its model's context_length"),
        ({"model": "acme/other"}, "'acme/tiny' is offered"),
    ],
)
async def test_offers_other_than_configured(changed: dict[str, Any], rule: str) -> None:
    offer = msgspec.structs.replace(ENTRY.offer("p"), **changed)
    subject = Subject(
        adapter=Wrong(offers=lambda: [offer], listed=[ENTRY], offer_of=lambda _: offer),
        call=make_call,
        models=(ENTRY,),
    )
    with pytest.raises(NotConforming, match=rule):
        await offers_keep_what_is_configured(subject)
    if "model" not in changed:
        with pytest.raises(NotConforming, match=rule):
            await listed_models_are_well_formed(subject)


@pytest.mark.parametrize(
    ("offers", "rule"),
    [
        ([ENTRY.offer("p")] * 2, "offered once"),
        ([msgspec.structs.replace(ENTRY.offer("p"), tasks=())], "has a task"),
        ([msgspec.structs.replace(ENTRY.offer("p"), tasks=("chat",))], "Hub's names"),
    ],
)
async def test_offers_that_cannot_be_right(offers: list[Offer], rule: str) -> None:
    with pytest.raises(NotConforming, match=rule):
        await offers_are_cheap_and_steady(
            Subject(adapter=Wrong(offers=lambda: offers), call=make_call)
        )


async def test_stopping_without_usage() -> None:
    async def infer(call: InferenceCall) -> AsyncGenerator[Event, None]:
        for _ in range(3):
            yield Chunk([ChoiceDelta(index=0, delta=Delta(content="x"))])
            if call.stop is not None and call.stop.is_set():
                return
        yield REPORT

    for ends_cost in (True, False):
        offer = ENTRY.offer("p", abort_stops_billing=ends_cost)
        adapter = Wrong(infer, offers=lambda offer=offer: [offer])  # type: ignore[misc]
        subject = Subject(adapter=adapter, call=make_call)
        if ends_cost:
            with pytest.raises(NotConforming, match="ends with its UsageReport"):
                await stopping_ends_with_usage(subject)
        else:
            assert await stopping_ends_with_usage(subject) is not None


@pytest.mark.parametrize(
    ("output", "rule"),
    [
        (Embeddings(vectors=[[1.0]]), "text-to-image produces Images"),
        (Images(images=[]), "at least one picture"),
        (Images(images=[Media()]), "has its bytes"),
        (None, "found UsageReport"),
    ],
)
async def test_a_task_with_the_wrong_output(output: Any, rule: str) -> None:
    async def infer(_: InferenceCall) -> AsyncGenerator[Event, None]:
        if output is not None:
            yield Produced(output)
        yield UsageReport(Usage(images=1))

    request = ImageRequest(model="acme/tiny", prompt="a cat")
    call = msgspec.structs.replace(make_call(), request=request)
    with pytest.raises(NotConforming, match=rule):
        await the_order_is_kept(TaskSubject(adapter=Wrong(infer), call=lambda: call))
