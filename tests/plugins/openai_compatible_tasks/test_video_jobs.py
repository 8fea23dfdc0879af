"""Videos at an OpenAI-compatible provider: a job that is asked after."""

from typing import Any

import pytest

from plugins.contract import AdapterError, FailureKind
from plugins.openai_compatible.tasks import videos
from plugins.openai_compatible.tasks.dialects import Dialect, Videos
from plugins.tasks import Media, Video, VideoRequest
from tests.plugins.openai_compatible_tasks.conftest import Carry, Fetched
from tests.upstreams.tasks import PlayedTasks, form_of, mp4, png


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "POLL_S", (0.01,))


def request(**fields: Any) -> VideoRequest:
    return VideoRequest(**{"model": "acme/film", "prompt": "a boat", **fields})


async def test_a_job_is_made_asked_after_and_fetched(carry: Carry, played: PlayedTasks) -> None:
    played.video_questions = 3
    picture = Media(data=png(), media_type="image/png", name="first.png")
    output, usage = await carry(request(seconds="4", size="720x1280", input_reference=picture))
    assert isinstance(output, Video)
    assert (output.video.data, output.video.media_type) == (mp4(4), "video/mp4")
    assert (usage.video_ms, usage.estimated) == (4000, False)
    assert [f"{each.method} {each.path}" for each in played.asked] == [
        "POST /v1/videos",
        *["GET /v1/videos/video_1"] * 3,
        "GET /v1/videos/video_1/content",
    ]
    form = form_of(played.asked[0])
    assert form["input_reference"] == [("first.png", "image/png", png())]
    assert form["seconds"][0][2] == b"4"
    assert all("authorization" in each.headers for each in played.asked)


async def test_together_says_where_the_video_is(
    carry: Carry, played: PlayedTasks, fetch: Fetched
) -> None:
    ways = Videos(
        target=f"{played.serving.origin}/v2/videos",
        form=False,
        pixels=True,
        renames={"num_inference_steps": "steps"},
    )
    url = "https://cdn.example/film.mp4"
    played.video_ends = {"status": "completed", "outputs": {"video_url": url, "cost": 0.25}}
    output, usage = await carry(
        request(size="640x480", num_inference_steps=9), dialect=Dialect(videos=ways)
    )
    assert isinstance(output, Video)
    assert output.video.data == mp4(3)
    assert fetch.urls == [url]
    assert usage.cost_nano_usd == 250_000_000
    assert played.asked[0].json() == {
        "model": "m",
        "prompt": "a boat",
        "width": 640,
        "height": 480,
        "steps": 9,
    }


async def test_novita_answers_at_once(carry: Carry, played: PlayedTasks, fetch: Fetched) -> None:
    ways = Videos(target=f"{played.base_url}/hf/{{model}}", form=False, once=True)
    output, usage = await carry(
        request(), dialect=Dialect(videos=ways), of={"upstream_id": "acme/film"}
    )
    assert isinstance(output, Video)
    assert usage.video_ms == 3000  # as the file says
    assert usage.estimated
    assert played.asked[0].json() == {"prompt": "a boat"}


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        ({"status": "failed", "error": {"code": "gpu", "message": "oops"}}, FailureKind.UPSTREAM),
        (
            {"status": "failed", "error": {"code": "moderation_blocked", "message": "No."}},
            FailureKind.REFUSED,
        ),
        ({"status": "cancelled"}, FailureKind.UPSTREAM),
        (
            {"status": "completed", "outputs": {"video_url": "file:///etc/passwd"}},
            FailureKind.PROTOCOL,
        ),
    ],
)
async def test_a_job_that_ends_badly(
    carry: Carry, played: PlayedTasks, ends: dict[str, Any], kind: FailureKind
) -> None:
    played.video_ends = ends
    with pytest.raises(AdapterError) as failed:
        await carry(request())
    assert failed.value.kind is kind


@pytest.mark.parametrize("job_id", [None, "", "../../secret", "a/b", "x" * 300])
async def test_a_job_without_a_name_that_can_be_asked_for(
    carry: Carry, played: PlayedTasks, job_id: Any
) -> None:
    played.spoil = lambda answer: {**answer, "id": job_id}
    with pytest.raises(AdapterError) as failed:
        await carry(request())
    assert failed.value.kind is FailureKind.PROTOCOL
    assert len(played.asked) == 1


async def test_a_few_questions_may_fail(carry: Carry, played: PlayedTasks) -> None:
    played.poll_status = [500, 503, 429]
    output, _ = await carry(request())
    assert isinstance(output, Video)
    played.poll_status = [500] * 4
    with pytest.raises(AdapterError) as failed:
        await carry(request())
    assert failed.value.kind is FailureKind.UPSTREAM


async def test_a_job_that_never_ends_is_given_up(carry: Carry, played: PlayedTasks) -> None:
    played.video_questions = 10**9
    with pytest.raises(AdapterError) as failed:
        await carry(request(), of={"deadline_s": 0.3})
    assert failed.value.kind is FailureKind.TIMEOUT


async def test_compute_is_the_time_it_took_where_it_is_billed(carry: Carry) -> None:
    _, usage = await carry(request(), of={"compute_ns_max": 10**10})
    assert 0 < usage.compute_ns < 10**10
    assert usage.estimated
