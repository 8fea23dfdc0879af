"""What all queued providers share: the contract, and every fault on the way to a result."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest

from plugins.black_forest_labs.plugin import PLUGIN as BLACK_FOREST_LABS
from plugins.conformance_tasks import TASK_CHECKS, TaskCheck, TaskSubject
from plugins.contract import Event, FailureKind, Started
from plugins.fal.plugin import PLUGIN as FAL
from plugins.replicate.plugin import PLUGIN as REPLICATE
from plugins.tasks import Images
from plugins.wavespeed.plugin import PLUGIN as WAVESPEED
from tests.plugins.queued.playing import Bench, bench, edit, image, make_toolbox, model
from tests.upstreams.black_forest_labs import PlayedBlackForestLabs
from tests.upstreams.fal import PlayedFal
from tests.upstreams.queue import AT_SUBMISSION
from tests.upstreams.replicate import PlayedReplicate
from tests.upstreams.serving import Asked, Reply, Serving
from tests.upstreams.wavespeed import PlayedWaveSpeed

TASKS = ("text-to-image", "image-to-image")
PROVIDERS: dict[str, Callable[[], AbstractAsyncContextManager[Bench]]] = {
    "replicate": lambda: bench(REPLICATE, PlayedReplicate(), model("acme/model", *TASKS)),
    "fal": lambda: bench(FAL, PlayedFal(), model("fal-ai/model/dev", *TASKS)),
    "wavespeed": lambda: bench(WAVESPEED, PlayedWaveSpeed(), model("wavespeed-ai/m", *TASKS)),
    "black_forest_labs": lambda: bench(
        BLACK_FOREST_LABS, PlayedBlackForestLabs(), model("flux-2-pro", *TASKS)
    ),
}
CANNOT_CANCEL = "black_forest_labs"
bills_compute = pytest.mark.parametrize(
    "provider", ["replicate", "fal", "wavespeed"], indirect=True
)


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def at(provider: str) -> AsyncIterator[Bench]:
    async with PROVIDERS[provider]() as made:
        yield made


@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
async def test_conforms(check: TaskCheck, at: Bench, provider: str) -> None:
    subject = TaskSubject(
        adapter=at.adapter,
        call=lambda: at.order(image()),
        endless=lambda: at.order(image("slow")),
        refused=at.order(image("failed")),
        going_on=None if provider == CANNOT_CANCEL else at.going_on,
        is_providers=lambda task: at.played.is_ours(task) or at.files.serving.is_ours(task),
    )
    await check(subject)


async def test_a_picture_is_named_by_its_url_and_read_where_bytes_are_wanted(at: Bench) -> None:
    named = await at.run(image())
    assert isinstance(named.output, Images)
    assert named.output.images[0].url is not None
    assert named.output.images[0].url.startswith(at.files.serving.origin)
    assert named.output.images[0].data is None
    assert at.files.headers == []
    assert named.upstream_id == "work-0"
    assert named.usage.images == 1
    read = await at.run(image(response_format="b64_json"))
    assert isinstance(read.output, Images)
    assert b"bytes of /1/" in (read.output.images[0].data or b"")
    assert len(at.files.headers) == 1


async def test_an_inline_picture_is_its_bytes(at: Bench) -> None:
    outcome = await at.run(image("inline"))
    assert isinstance(outcome.output, Images)
    assert (outcome.output.images[0].data, outcome.output.images[0].url) == (b"inline", None)


async def test_usage_is_what_the_provider_books(at: Bench, provider: str) -> None:
    outcomes = await asyncio.gather(*(at.run(image()) for _ in range(6)))
    if provider == CANNOT_CANCEL:
        told = [outcome.usage.cost_nano_usd for outcome in outcomes]
    else:
        told = [outcome.usage.compute_ns for outcome in outcomes]
    assert sorted(told, key=lambda n: n or 0) == sorted(at.played.billed)


async def test_works_with_the_same_id_do_not_disturb_each_other(at: Bench) -> None:
    outcomes = await asyncio.gather(*(at.run(image("duplicate")) for _ in range(3)))
    assert {outcome.upstream_id for outcome in outcomes} == {"same-id"}


REFUSED = {
    "unavailable": FailureKind.OVERLOADED,
    "broken": FailureKind.UPSTREAM,
    "limited": FailureKind.RATE_LIMITED,
    "no-credit": FailureKind.NO_CREDIT,
    "unknown-model": FailureKind.NOT_FOUND,
    "redirect": FailureKind.UPSTREAM,
    "garbage": FailureKind.PROTOCOL,
    "reset": FailureKind.UPSTREAM,
}


@pytest.mark.parametrize("scene", REFUSED)
async def test_a_refused_submission_is_told_at_once_and_never_sent_again(
    at: Bench, scene: str
) -> None:
    error = await at.fail(image(scene))
    assert error.kind is REFUSED[scene]
    assert error.retry_after_s == (7.0 if scene == "limited" else None)
    assert len(at.played.serving.asked) == 1
    assert scene in {*AT_SUBMISSION, "reset"}


async def test_a_receipt_without_an_id_is_refused(at: Bench) -> None:
    assert (await at.fail(image("no-id"))).kind in (FailureKind.PROTOCOL, FailureKind.UPSTREAM)


async def test_a_wrong_key_is_the_appliance_s_trouble(at: Bench) -> None:
    error = await at.fail(image(), api_key="wrong")
    assert (error.kind, error.status) == (FailureKind.AUTH, 401)


async def test_a_silent_provider_is_left_at_the_deadline(at: Bench) -> None:
    error = await at.fail(image("silent"), deadline_s=0.2)
    assert error.kind is FailureKind.TIMEOUT


@pytest.mark.parametrize(
    "scene",
    ["limited-while-asked", "broken-while-asked", "reset-while-asked", "garbage-while-asked"],
)
async def test_trouble_while_asking_costs_nothing_but_time(at: Bench, scene: str) -> None:
    outcome = await at.run(image(scene))
    assert outcome.usage.images == 1
    assert len(at.played.works) == 1
    assert at.played.cancelled == []


async def test_a_limited_question_is_asked_again_when_the_provider_says(at: Bench) -> None:
    await at.run(image("limited-for-a-second"))
    first, second = at.played.works[0].asked_at[:2]
    assert second - first >= 1.0


LOST = {
    "broken-for-good": FailureKind.UPSTREAM,
    "garbage-for-good": FailureKind.PROTOCOL,
    "huge": FailureKind.PROTOCOL,
    "lost": FailureKind.UPSTREAM,
    "foreign": FailureKind.PROTOCOL,
}


@pytest.mark.parametrize("scene", LOST)
async def test_work_that_cannot_be_followed_is_given_up(
    at: Bench, provider: str, scene: str
) -> None:
    error = await at.fail(image(scene))
    assert error.kind is LOST[scene]
    gone = scene == "lost" or provider == CANNOT_CANCEL
    assert at.played.cancelled == ([] if gone else ["work-0"])


async def test_a_foreign_place_to_ask_never_gets_the_key(at: Bench) -> None:
    async def listen(asked: Asked, reply: Reply) -> None:
        await reply.answer(200, {"status": "succeeded"})

    async with Serving(listen) as elsewhere:
        at.played.foreign = elsewhere.origin
        assert (await at.fail(image("foreign"))).message.endswith("leads to another host")
        assert elsewhere.asked == []


async def test_the_deadline_ends_work_that_does_not_end(at: Bench, provider: str) -> None:
    error = await at.fail(image("slow"), deadline_s=0.3)
    assert error.kind is FailureKind.TIMEOUT
    assert at.played.cancelled == ([] if provider == CANNOT_CANCEL else ["work-0"])


@bills_compute
async def test_compute_beyond_what_is_paid_for_is_stopped(at: Bench) -> None:
    error = await at.fail(image("slow"), compute_ns_max=50_000_000)
    assert error.kind is FailureKind.TIMEOUT
    assert error.detail == "more computing than is paid for"
    assert error.usage is not None
    assert error.usage.compute_ns >= 50_000_000
    assert at.played.cancelled == ["work-0"]


async def test_cancelling_a_call_cancels_its_work(at: Bench, provider: str) -> None:
    events = cast("AsyncGenerator[Event, None]", at.adapter.infer(at.order(image("slow"))))
    started = asyncio.Event()

    async def follow() -> None:
        async for event in events:
            if isinstance(event, Started):
                started.set()

    task = asyncio.ensure_future(follow())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await events.aclose()
    assert at.played.cancelled == ([] if provider == CANNOT_CANCEL else ["work-0"])


async def test_closing_after_the_answer_cancels_nothing(at: Bench) -> None:
    events = cast("AsyncGenerator[Event, None]", at.adapter.infer(at.order(image())))
    await anext(events)
    await anext(events)
    await events.aclose()
    assert at.played.cancelled == []


ENDED = {
    "nsfw": FailureKind.REFUSED,
    "failed": FailureKind.UPSTREAM,
    "file-url": FailureKind.PROTOCOL,
}


@pytest.mark.parametrize("scene", ENDED)
async def test_work_that_ended_badly_says_why_to_those_it_concerns(at: Bench, scene: str) -> None:
    error = await at.fail(image(scene))
    assert error.kind is ENDED[scene]
    if scene == "failed":
        assert "worker died" not in error.message
        assert "CUDA" not in error.message


async def test_a_result_that_cannot_be_read_is_not_the_caller_s_fault(at: Bench) -> None:
    at.files.refuses = True
    error = await at.fail(image(response_format="b64_json"))
    assert error.kind is FailureKind.UPSTREAM
    assert error.usage is not None
    assert error.usage.images == 1


async def test_absurd_numbers_are_no_numbers(at: Bench) -> None:
    usage = (await at.run(image("absurd"))).usage
    assert (usage.compute_ns, usage.cost_nano_usd, usage.images) == (0, None, 1)


@bills_compute
async def test_compute_that_nobody_reports_is_what_was_seen(at: Bench) -> None:
    usage = (await at.run(image("absurd"), compute_ns_max=10**12)).usage
    assert 0 < usage.compute_ns < 10**12
    assert usage.estimated


async def test_pictures_go_out_as_data(at: Bench, provider: str) -> None:
    await at.run(edit(size="512x768", seed=3))
    text = str(at.sent())
    assert "iVBORw0KGgogcGljdHVyZQ==" in text
    assert ("data:image/png;base64," in text) is (provider != CANNOT_CANCEL)
    assert at.adapter.offers()[0].supported_params is not None
    assert {"image", "size", "seed", "response_format"} <= (
        at.adapter.offers()[0].supported_params or set()
    )


@pytest.mark.parametrize("plugin", [REPLICATE, FAL, WAVESPEED, BLACK_FOREST_LABS])
def test_a_task_that_is_not_served_is_told_when_the_appliance_starts(plugin: Any) -> None:
    toolbox = make_toolbox(model("acme/chat", "conversational"))
    with pytest.raises(ValueError, match="models: 'acme/model' has the task conversational"):
        plugin.build(plugin.settings(), toolbox)
