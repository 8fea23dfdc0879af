"""Behaviour that every adapter must show, as checks that plugin authors run too.

With one command, against the provider itself::

    turnpike plugins check ./acme.py --model big-1 --api-key env:ACME_KEY

With pytest (and pytest-asyncio), against an adapter that has been started::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_conforms(check):
        adapter = PLUGIN.build(settings, toolbox)
        await adapter.start()
        try:
            await check(Subject(adapter=adapter, call=my_call, refused=my_refused_call))
        finally:
            await adapter.close()

A check raises ``NotConforming``, an AssertionError whose message names the rule; where it does not
apply to the subject it returns why. The rules are those at the top of ``contract.py``. These are
the ones for chats; ``conformance_tasks.py`` has them for all other tasks. Checks look for tasks
that the adapter leaves behind, so a fake provider in the same event loop must not start long-lived
tasks of its own per call.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from plugins.conformance_rules import (
    PATIENCE_S,
    SIDE_BY_SIDE,
    Checked,
    NotConforming,
    Skipped,
    close,
    counted,
    each_call_brings_its_own_key,
    expect,
    failures_are_adapter_errors,
    listed_models_are_well_formed,
    offers_are_cheap_and_steady,
    offers_keep_what_is_configured,
    settled,
    survive_cancelling,
)
from plugins.contract import (
    Adapter,
    Chunk,
    Completion,
    Event,
    InferenceCall,
    Started,
    Usage,
    UsageReport,
)

__all__ = [
    "CHECKS",
    "Check",
    "NotConforming",
    "Outcome",
    "Subject",
    "each_call_brings_its_own_key",
    "failures_are_adapter_errors",
    "listed_models_are_well_formed",
    "offers_are_cheap_and_steady",
    "offers_keep_what_is_configured",
    "run",
]


@dataclass(frozen=True, kw_only=True)
class Subject(Checked):
    """What is checked; see also ``Checked``.

    ``call(stream)`` makes a fresh call that the provider answers with some text, in more than one
    chunk when streamed. ``tools(stream)`` makes one that it answers with one tool call or more,
    where it can. ``repeatable`` says that two equal calls get equal answers.
    """

    call: Callable[[bool], InferenceCall]
    tools: Callable[[bool], InferenceCall] | None = None
    repeatable: bool = True

    def fresh(self) -> InferenceCall:
        """A call that is answered whole."""
        return self.call(False)

    async def attempt(self, call: InferenceCall) -> "Outcome":
        """See ``run``."""
        return await run(self.adapter, call, self.patience_s)


@dataclass(frozen=True)
class ToolCall:
    """One tool call, put together."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Outcome:
    """A whole attempt: its events, and what they add up to for choice 0."""

    events: list[Event]
    text: str
    finish_reason: str | None
    usage: Usage
    tool_calls: tuple[ToolCall, ...] = ()


async def run(adapter: Adapter, call: InferenceCall, patience_s: float = PATIENCE_S) -> Outcome:
    """Drive one call to its end, holding the order of its events against the contract."""
    async with asyncio.timeout(patience_s):
        events = [event async for event in adapter.infer(call)]
    expect(bool(events), "an attempt that succeeds has events")
    expect(isinstance(events[-1], UsageReport), "the last event is the UsageReport")
    middle = events[1:-1] if isinstance(events[0], Started) else events[:-1]
    expect(
        not any(isinstance(event, Started | UsageReport) for event in middle),
        "Started comes first, UsageReport last, and each at most once",
    )
    whole = [event for event in middle if isinstance(event, Completion)]
    expect(not (whole and call.stream), "a streamed call is answered in Chunks")
    expect(not whole or len(middle) == 1, "a Completion is the whole answer")
    expect(bool(middle), "an answer has a Chunk or a Completion")
    return _add_up(events)


def _add_up(events: list[Event]) -> Outcome:
    text, finish = "", None
    usage = Usage()
    calls: dict[int, ToolCall] = {}
    for event in events:
        if isinstance(event, Completion):
            expect(bool(event.choices), "a Completion has choices")
            choice = event.choices[0]
            text, finish = choice.message.content or "", choice.finish_reason
            calls = {n: _part(each) for n, each in enumerate(choice.message.tool_calls or [])}
        elif isinstance(event, Chunk):
            expect(bool(event.choices), "a Chunk has at least one delta")
            for part in event.choices:
                if part.index == 0:
                    text += part.delta.content or ""
                    finish = part.finish_reason or finish
                    _gather(calls, part.delta.tool_calls or [])
        elif isinstance(event, UsageReport):
            usage = event.usage
    return Outcome(events, text, finish, usage, tuple(calls[n] for n in sorted(calls)))


def _gather(calls: dict[int, ToolCall], parts: list[dict[str, Any]]) -> None:
    """Put the pieces of streamed tool calls together, by their index."""
    for part in parts:
        index = part.get("index")
        if not isinstance(index, int):
            raise NotConforming("a piece of a tool call has the index of its call")
        piece = _part(part)
        had = calls.get(index)
        if had is None:
            expect(index == len(calls), "tool calls are numbered from 0, in the order they begin")
            calls[index] = piece
        else:
            joined = had.arguments + piece.arguments
            calls[index] = ToolCall(had.id or piece.id, had.name or piece.name, joined)


def _part(part: dict[str, Any]) -> ToolCall:
    function = part.get("function")
    told = function if isinstance(function, dict) else {}
    arguments = told.get("arguments") or ""
    expect(isinstance(arguments, str), "arguments of a tool call are text")
    return ToolCall(str(part.get("id") or ""), str(told.get("name") or ""), arguments)


async def whole_answer_keeps_the_order(subject: Subject) -> None:
    """`stream=False`: the answer, then usage, and a reason why it ended."""
    outcome = await subject.attempt(subject.call(False))
    expect(outcome.text != "", "the answer has text")
    expect(outcome.finish_reason is not None, "the answer says why it ended")


async def streamed_answer_keeps_the_order(subject: Subject) -> None:
    """`stream=True`: chunks, then usage, and a reason why it ended."""
    outcome = await subject.attempt(subject.call(True))
    expect(outcome.text != "", "the answer has text")
    expect(outcome.finish_reason is not None, "the last chunk of a choice says why it ended")


async def usage_is_counted(subject: Subject) -> None:
    """Usage has no negative bucket, and something in it on both sides."""
    for stream in (False, True):
        usage = (await subject.attempt(subject.call(stream))).usage
        read = (
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.audio_input_tokens,
        )
        made = (
            usage.output_tokens,
            usage.reasoning_tokens,
            usage.audio_output_tokens,
            usage.images,
        )
        expect(min(counted(usage)) >= 0, "no bucket of usage is negative")
        expect(sum(read) > 0, "a prompt has tokens")
        expect(sum(made) > 0, "an answer has tokens")


async def stream_and_whole_agree(subject: Subject) -> Skipped:
    """The same call gives the same text and the same usage, streamed or not."""
    if not subject.repeatable:
        return "equal calls may get different answers"
    whole = await subject.attempt(subject.call(False))
    streamed = await subject.attempt(subject.call(True))
    expect(whole.text == streamed.text, "streamed text is the whole text")
    expect(whole.finish_reason == streamed.finish_reason, "both end for the same reason")
    expect(
        (whole.usage.input_tokens, whole.usage.output_tokens)
        == (streamed.usage.input_tokens, streamed.usage.output_tokens),
        "both use the same tokens",
    )
    return None


async def tool_calls_are_whole(subject: Subject) -> Skipped:
    """Tool calls have ids and names of their own and arguments in JSON, streamed or not; parallel
    ones are told apart by their index."""
    if subject.tools is None:
        return "no call that is answered with tool calls is given"
    found = []
    for stream in (False, True):
        outcome = await subject.attempt(subject.tools(stream))
        expect(bool(outcome.tool_calls), "the answer has tool calls")
        expect(outcome.finish_reason == "tool_calls", "the answer ended for its tool calls")
        ids = [call.id for call in outcome.tool_calls]
        expect(all(ids) and len(set(ids)) == len(ids), "each tool call has an id of its own")
        for call in outcome.tool_calls:
            expect(call.name != "", "a tool call has a name")
            expect(_is_json(call.arguments), "arguments of a tool call are a JSON object")
        found.append([(call.name, call.arguments) for call in outcome.tool_calls])
    if subject.repeatable:
        names = [[name for name, _ in calls] for calls in found]
        expect(names[0] == names[1], "the same tools are called, streamed or not")
    return None


def _is_json(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


async def calls_run_side_by_side(subject: Subject) -> None:
    """Several calls at once all end well, and none disturbs another's answer."""
    calls = [subject.call(bool(n % 2)) for n in range(SIDE_BY_SIDE)]
    outcomes = await asyncio.gather(*(subject.attempt(call) for call in calls))
    if subject.repeatable:
        expect(len({outcome.text for outcome in outcomes}) == 1, "calls do not mix their answers")


async def stopping_ends_with_usage(subject: Subject) -> Skipped:
    """Once `call.stop` is set, an adapter whose offer has `abort_stops_billing` still reports what
    was used."""
    stop = asyncio.Event()
    call = msgspec.structs.replace(subject.call(True), stop=stop)
    offers = [each for each in subject.adapter.offers() if each.upstream_id == call.upstream_id]
    if not any(offer.abort_stops_billing for offer in offers):
        return "leaving an answer does not end its cost there"
    last: Event | None = None
    async with asyncio.timeout(subject.patience_s):
        async for event in subject.adapter.infer(call):
            if isinstance(event, Chunk):
                stop.set()
            last = event
    expect(isinstance(last, UsageReport), "a stopped answer ends with its UsageReport")
    return None


async def closing_stops_the_work(subject: Subject) -> None:
    """`aclose` after the first event returns soon, leaves no task, and spoils nothing."""
    before = asyncio.all_tasks()
    events = subject.adapter.infer(subject.call(True))
    async with asyncio.timeout(subject.patience_s):
        await anext(events)
        await close(events)
    await settled(subject, before)
    await subject.attempt(subject.call(False))


async def cancelling_is_survived(subject: Subject) -> None:
    """Cancelling the task that iterates is passed on, leaves no task, and spoils nothing."""
    await survive_cancelling(subject, lambda: subject.attempt(subject.call(True)))


Check = Callable[[Subject], Awaitable[Skipped]]

CHECKS: tuple[Check, ...] = (
    offers_are_cheap_and_steady,
    offers_keep_what_is_configured,
    whole_answer_keeps_the_order,
    streamed_answer_keeps_the_order,
    usage_is_counted,
    stream_and_whole_agree,
    tool_calls_are_whole,
    each_call_brings_its_own_key,
    listed_models_are_well_formed,
    stopping_ends_with_usage,
    closing_stops_the_work,
    calls_run_side_by_side,
    cancelling_is_survived,
    failures_are_adapter_errors,
)
