"""Behaviour that every adapter must show for tasks other than chat: the checks of
``conformance.py``, said for ``Produced``.

A check raises ``NotConforming``, an AssertionError whose message names the rule; where it does not
apply to the subject it returns why.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from plugins.conformance_rules import (
    PATIENCE_S,
    SIDE_BY_SIDE,
    Checked,
    Skipped,
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
    Event,
    InferenceCall,
    Produced,
    Started,
    Usage,
    UsageReport,
)
from plugins.tasks import Embeddings, Images, Media, Output, Ranking, Speech, Transcript, Video

_OUTPUTS: dict[str, type] = {
    "feature-extraction": Embeddings,
    "text-ranking": Ranking,
    "text-to-image": Images,
    "image-to-image": Images,
    "text-to-video": Video,
    "text-to-speech": Speech,
    "automatic-speech-recognition": Transcript,
}


@dataclass(frozen=True, kw_only=True)
class TaskSubject(Checked):
    """What is checked; see also ``Checked``.

    ``call()`` makes a fresh call that succeeds, ``endless()`` one whose work never ends by itself.
    ``going_on()`` counts the works that the provider is still busy with, where it can be told to
    stop (None: it cannot).
    """

    call: Callable[[], InferenceCall]
    endless: Callable[[], InferenceCall] | None = None
    going_on: Callable[[], int] | None = None

    def fresh(self) -> InferenceCall:
        """A call that succeeds."""
        return self.call()

    async def attempt(self, call: InferenceCall) -> "TaskOutcome":
        """See ``perform``."""
        return await perform(self.adapter, call, self.patience_s)


@dataclass(frozen=True)
class TaskOutcome:
    """A whole attempt."""

    upstream_id: str | None
    output: Output
    usage: Usage


async def perform(
    adapter: Adapter, call: InferenceCall, patience_s: float = PATIENCE_S
) -> TaskOutcome:
    """Drive one call to its end, holding the order of its events against the contract."""
    async with asyncio.timeout(patience_s):
        events = [event async for event in adapter.infer(call)]
    upstream_id = None
    if events and isinstance(events[0], Started):
        upstream_id = events[0].upstream_id
        events = events[1:]
    kinds = [type(event) for event in events]
    found = ", ".join(kind.__name__ for kind in kinds) or "nothing"
    expect(kinds == [Produced, UsageReport], f"one Produced, then one UsageReport, found {found}")
    output = cast("Produced", events[0]).output
    wanted = _OUTPUTS[call.request.task]
    expect(isinstance(output, wanted), f"{call.request.task} produces {wanted.__name__}")
    _check_output(output)
    return TaskOutcome(upstream_id, output, cast("UsageReport", events[1]).usage)


def _check_output(output: Output) -> None:
    found: list[Media] = []
    if isinstance(output, Embeddings):
        expect(bool(output.vectors) and all(output.vectors), "there are vectors, none empty")
        expect(len({len(each) for each in output.vectors}) == 1, "all vectors have one length")
    elif isinstance(output, Ranking):
        expect(all(0 <= each <= 1 for each in output.scores), "scores lie between 0 and 1")
    elif isinstance(output, Images):
        expect(bool(output.images), "Images has at least one picture")
        found = output.images
    elif isinstance(output, Video):
        found = [output.video]
    elif isinstance(output, Speech):
        found = [output.audio]
        expect(bool(output.audio.data), "speech comes as bytes")
    for each in found:
        expect(bool(each.data or each.url), "media has its bytes, or where they lie")


async def the_order_is_kept(subject: TaskSubject) -> None:
    """Started at most once and first, one Produced, the UsageReport last."""
    await subject.attempt(subject.call())


async def usage_is_counted(subject: TaskSubject) -> None:
    """Usage has no negative bucket, and something in it."""
    values = counted((await subject.attempt(subject.call())).usage)
    expect(min(values) >= 0, "no bucket of usage is negative")
    expect(sum(values) > 0, "what was produced is counted")


async def calls_run_side_by_side(subject: TaskSubject) -> None:
    """Several calls at once all end well."""
    calls = [subject.call() for _ in range(SIDE_BY_SIDE)]
    outcomes = await asyncio.gather(*(subject.attempt(call) for call in calls))
    ids = [outcome.upstream_id for outcome in outcomes if outcome.upstream_id]
    expect(len(ids) == len(set(ids)), "calls do not mix their answers")


async def closing_stops_the_work(subject: TaskSubject) -> Skipped:
    """`aclose` after the first event returns soon, leaves no task, and ends the work upstream."""
    if subject.endless is None:
        return "no call whose work goes on is given"
    before = asyncio.all_tasks()
    events = cast("AsyncGenerator[Event, None]", subject.adapter.infer(subject.endless()))
    async with asyncio.timeout(subject.patience_s):
        first = await anext(events)
        expect(isinstance(first, Started), "work that is taken in has Started")
        await events.aclose()
    await settled(subject, before)
    if subject.going_on is not None:
        expect(subject.going_on() == 0, "abandoned work is stopped upstream")
    await subject.attempt(subject.call())
    return None


async def cancelling_is_survived(subject: TaskSubject) -> None:
    """Cancelling the task that iterates is passed on, leaves no task, and spoils nothing."""
    await survive_cancelling(subject, lambda: subject.attempt(subject.call()))


TaskCheck = Callable[[TaskSubject], Awaitable[Skipped]]

TASK_CHECKS: tuple[TaskCheck, ...] = (
    offers_are_cheap_and_steady,
    offers_keep_what_is_configured,
    the_order_is_kept,
    usage_is_counted,
    each_call_brings_its_own_key,
    listed_models_are_well_formed,
    closing_stops_the_work,
    calls_run_side_by_side,
    cancelling_is_survived,
    failures_are_adapter_errors,
)
