"""Behaviour that every adapter must show, as checks that plugin authors run too.

With pytest (and pytest-asyncio), against an adapter that has been started::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_conforms(check):
        adapter = PLUGIN.build(settings, toolbox)
        await adapter.start()
        try:
            await check(Subject(adapter=adapter, call=my_call, refused=my_refused_call))
        finally:
            await adapter.close()

A check raises ``NotConforming``, an AssertionError whose message names the rule. The rules are
those at the top of ``contract.py``. Checks look for tasks that the adapter leaves behind, so a fake
provider in the same event loop must not start long-lived tasks of its own per call.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from plugins.contract import (
    Adapter,
    AdapterError,
    Chunk,
    Completion,
    Event,
    FailureKind,
    InferenceCall,
    Started,
    Usage,
    UsageReport,
)

SIDE_BY_SIDE = 8
PATIENCE_S = 30.0


class NotConforming(AssertionError):
    """The adapter breaks a rule of the contract."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is checked.

    ``adapter`` is started. ``call(stream)`` makes a fresh call that the provider answers with some
    text, in more than one chunk when streamed. ``refused`` is a call that fails, where there is
    one. ``repeatable`` says that two equal calls get equal answers. ``is_providers`` tells tasks
    of a provider that is played in the same event loop from the adapter's own.
    """

    adapter: Adapter
    call: Callable[[bool], InferenceCall]
    refused: InferenceCall | None = None
    repeatable: bool = True
    is_providers: Callable[[asyncio.Task[Any]], bool] = lambda _task: False


@dataclass(frozen=True)
class Outcome:
    """A whole attempt: its events, and what they add up to for choice 0."""

    events: list[Event]
    text: str
    finish_reason: str | None
    usage: Usage


def expect(holds: bool, rule: str) -> None:
    """Raise NotConforming with the rule where it does not hold."""
    if not holds:
        raise NotConforming(rule)


async def run(adapter: Adapter, call: InferenceCall) -> Outcome:
    """Drive one call to its end, holding the order of its events against the contract."""
    async with asyncio.timeout(PATIENCE_S):
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
    for event in events:
        if isinstance(event, Completion):
            expect(bool(event.choices), "a Completion has choices")
            choice = event.choices[0]
            text, finish = choice.message.content or "", choice.finish_reason
        elif isinstance(event, Chunk):
            expect(bool(event.choices), "a Chunk has at least one delta")
            for part in event.choices:
                if part.index == 0:
                    text += part.delta.content or ""
                    finish = part.finish_reason or finish
        elif isinstance(event, UsageReport):
            usage = event.usage
    return Outcome(events, text, finish, usage)


async def offers_are_cheap_and_steady(subject: Subject) -> None:
    """``offers`` needs no I/O and says the same twice; a model is offered once."""
    first, second = subject.adapter.offers(), subject.adapter.offers()
    expect(first == second, "offers says the same when nothing changed")
    models = [offer.model for offer in first]
    expect(len(models) == len(set(models)), "a model is offered once")


async def whole_answer_keeps_the_order(subject: Subject) -> None:
    """``stream=False``: the answer, then usage, and a reason why it ended."""
    outcome = await run(subject.adapter, subject.call(False))
    expect(outcome.text != "", "the answer has text")
    expect(outcome.finish_reason is not None, "the answer says why it ended")


async def streamed_answer_keeps_the_order(subject: Subject) -> None:
    """``stream=True``: chunks, then usage, and a reason why it ended."""
    outcome = await run(subject.adapter, subject.call(True))
    expect(outcome.text != "", "the answer has text")
    expect(outcome.finish_reason is not None, "the last chunk of a choice says why it ended")


async def usage_is_counted(subject: Subject) -> None:
    """Usage has no negative bucket, and something in it on both sides."""
    for stream in (False, True):
        usage = (await run(subject.adapter, subject.call(stream))).usage
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
        others = (usage.compute_ns, usage.cost_nano_usd or 0)
        expect(min(*read, *made, *others) >= 0, "no bucket of usage is negative")
        expect(sum(read) > 0, "a prompt has tokens")
        expect(sum(made) > 0, "an answer has tokens")


async def stream_and_whole_agree(subject: Subject) -> None:
    """The same call gives the same text and the same usage, streamed or not."""
    if not subject.repeatable:
        return
    whole = await run(subject.adapter, subject.call(False))
    streamed = await run(subject.adapter, subject.call(True))
    expect(whole.text == streamed.text, "streamed text is the whole text")
    expect(whole.finish_reason == streamed.finish_reason, "both end for the same reason")
    expect(
        (whole.usage.input_tokens, whole.usage.output_tokens)
        == (streamed.usage.input_tokens, streamed.usage.output_tokens),
        "both use the same tokens",
    )


async def calls_run_side_by_side(subject: Subject) -> None:
    """Several calls at once all end well, and none disturbs another's answer."""
    calls = [subject.call(bool(n % 2)) for n in range(SIDE_BY_SIDE)]
    outcomes = await asyncio.gather(*(run(subject.adapter, call) for call in calls))
    if subject.repeatable:
        expect(len({outcome.text for outcome in outcomes}) == 1, "calls do not mix their answers")


async def closing_stops_the_work(subject: Subject) -> None:
    """``aclose`` after the first event returns soon, leaves no task, and spoils nothing."""
    before = asyncio.all_tasks()
    events = subject.adapter.infer(subject.call(True))
    async with asyncio.timeout(PATIENCE_S):
        await anext(events)
        await _close(events)
    await _settled(subject, before)
    await run(subject.adapter, subject.call(False))


async def cancelling_is_survived(subject: Subject) -> None:
    """Cancelling the task that iterates is passed on, leaves no task, and spoils nothing."""
    before = asyncio.all_tasks()
    for turns in range(12):
        task = asyncio.ensure_future(run(subject.adapter, subject.call(True)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        ended = (await asyncio.gather(task, return_exceptions=True))[0]
        expect(
            isinstance(ended, asyncio.CancelledError | Outcome),
            f"cancellation is passed on, found {ended!r}",
        )
    await _settled(subject, before)
    await run(subject.adapter, subject.call(False))


async def failures_are_adapter_errors(subject: Subject) -> None:
    """Whatever the provider does, AdapterError is what comes out, fit to be shown and logged."""
    if subject.refused is None:
        return
    try:
        await run(subject.adapter, subject.refused)
    except AdapterError as error:
        expect(isinstance(error.kind, FailureKind), "a failure has a kind")
        expect(0 < len(error.message) <= 512, "a failure has a message of at most 512 characters")
        expect(len(error.detail) <= 512, "a failure's detail is at most 512 characters")
        expect(error.retry_after_s is None or error.retry_after_s >= 0, "no negative waits")
    except NotConforming:
        raise
    except Exception as error:
        raise NotConforming(f"an adapter raises AdapterError only, found {error!r}") from error
    else:
        raise NotConforming("the refused call was answered")


async def _close(events: AsyncIterator[Event]) -> None:
    expect(hasattr(events, "aclose"), "infer is an async generator")
    await cast("AsyncGenerator[Event, None]", events).aclose()


async def _settled(subject: Subject, before: set[asyncio.Task[object]]) -> None:
    """Tasks that began since ``before`` are gone soon: an adapter keeps none running."""
    for _ in range(100):
        left = {t for t in asyncio.all_tasks() - before if not subject.is_providers(t)}
        if not left:
            return
        await asyncio.sleep(0.01)
    raise NotConforming(f"tasks are still running after the call: {left!r}")


Check = Callable[[Subject], Awaitable[None]]

CHECKS: tuple[Check, ...] = (
    offers_are_cheap_and_steady,
    whole_answer_keeps_the_order,
    streamed_answer_keeps_the_order,
    usage_is_counted,
    stream_and_whole_agree,
    calls_run_side_by_side,
    closing_stops_the_work,
    cancelling_is_survived,
    failures_are_adapter_errors,
)
