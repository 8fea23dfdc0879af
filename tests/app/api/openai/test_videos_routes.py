"""``/v1/videos`` with OpenAI's own client: a job, its states, its bytes, and whose it is."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Video

from app.api.openai.video_jobs import LIVES_MS, VideoJobs
from app.clock import SystemClock
from tests.app.api.openai.shop import Shop, fetch, open_shop
from tests.upstreams.tasks import PlayedTasks, form_of, mp4, png

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
FOUR_SECONDS = 4_000_000


async def ended(client: openai.AsyncOpenAI, video_id: str) -> Video:
    """The job, once it is completed or failed."""
    async with asyncio.timeout(10):
        while True:
            video = await client.videos.retrieve(video_id)
            if video.status in ("completed", "failed"):
                return video
            await asyncio.sleep(0.01)


async def test_a_video_from_its_job_to_its_bytes(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks, tmp_path: Path
) -> None:
    played.video_questions = 3
    made = await ann.videos.create(
        model="acme/film",
        prompt="a boat",
        seconds="4",
        size="720x1280",
        input_reference=("first.png", png(), "image/png"),
    )
    assert made.id.startswith("video_")
    assert (made.object, made.model, made.seconds) == ("video", "acme/film", "4")
    assert made.size == "720x1280"
    video = await ended(ann, made.id)
    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert video.completed_at is not None
    assert video.expires_at is not None
    assert abs(video.expires_at - video.completed_at - LIVES_MS // 1000) <= 1
    content = await ann.videos.download_content(made.id)
    assert content.content == mp4(4)
    assert content.response.headers["content-type"] == "video/mp4"
    assert form_of(played.asked[0])["input_reference"][0][2] == png()
    assert await shop.charged() == [("completed", FOUR_SECONDS)]
    file = tmp_path / "videos" / made.id
    assert file.stat().st_mode & 0o777 == 0o600
    gone = await ann.videos.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "video.deleted")
    assert not file.exists()
    with pytest.raises(openai.NotFoundError):
        await ann.videos.retrieve(made.id)


async def test_create_and_poll(ann: openai.AsyncOpenAI) -> None:
    video = await ann.videos.create_and_poll(
        model="acme/film", prompt="a boat", poll_interval_ms=10
    )
    assert video.status == "completed"
    assert video.seconds == "4"  # as it was made, since nothing was asked for


async def test_a_job_that_is_being_made(ann: openai.AsyncOpenAI, played: PlayedTasks) -> None:
    played.hang = True
    made = await ann.videos.create(model="acme/film", prompt="a boat")
    await played.reached.wait()
    video = await ann.videos.retrieve(made.id)
    assert (video.status, video.progress) == ("in_progress", 0)
    with pytest.raises(openai.ConflictError) as refused:
        await ann.videos.download_content(made.id)
    assert refused.value.code == "video_not_ready"


async def test_deleting_a_job_that_runs_ends_it_for_its_user(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks, tmp_path: Path
) -> None:
    played.video_questions = 60
    made = await ann.videos.create(model="acme/film", prompt="a boat")
    await ann.videos.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await ann.videos.retrieve(made.id)
    await shop.charged()  # until the call has ended
    await shop.jobs.close()
    assert list((tmp_path / "videos").glob("*")) == []


async def test_a_job_is_its_users_own(ann: openai.AsyncOpenAI, shop: Shop) -> None:
    bob = await shop.client("bob")
    again = await shop.client("ann")  # with another key
    made = await ann.videos.create(model="acme/film", prompt="a boat")
    await ended(ann, made.id)
    for ask in (bob.videos.retrieve, bob.videos.delete, bob.videos.download_content):
        with pytest.raises(openai.NotFoundError):
            await ask(made.id)
    assert (await bob.videos.list()).data == []
    assert (await again.videos.retrieve(made.id)).status == "completed"


async def test_lists_have_pages(ann: openai.AsyncOpenAI) -> None:
    made = [(await ann.videos.create(model="acme/film", prompt=f"{n}")).id for n in range(3)]
    for video_id in made:
        await ended(ann, video_id)
    assert [each.id async for each in await ann.videos.list(limit=2)] == made[::-1]
    assert [each.id async for each in await ann.videos.list(limit=1, order="asc")] == made
    page = await ann.videos.list(limit=2, order="asc")
    assert (page.has_more, page.last_id) == (True, made[1])


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order")]
)
async def test_lists_that_cannot_be(ann: openai.AsyncOpenAI, query: str, param: str) -> None:
    answer = await _ask(ann, "GET", f"?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def _ask(client: openai.AsyncOpenAI, method: str, path: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.request(
            method,
            f"{client.base_url}videos{path}",
            headers={"Authorization": f"Bearer {client.api_key}", **more.pop("headers", {})},
            **more,
        )


async def test_what_fails_at_once_is_answered_at_once(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks
) -> None:
    played.status = 400
    with pytest.raises(openai.BadRequestError, match="played"):
        await ann.videos.create(model="acme/film", prompt="a boat")
    with pytest.raises(openai.NotFoundError):
        await ann.videos.create(model="acme/nothing", prompt="a boat")
    assert (await ann.videos.list()).data == []
    assert await shop.charged() == [("failed", 0)]


async def test_what_fails_later_is_the_jobs_error(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks
) -> None:
    played.video_questions = 60  # of 10 ms each
    played.video_ends = {"status": "failed", "error": {"code": "gpu", "message": "sk-secret"}}
    made = await ann.videos.create(model="acme/film", prompt="a boat")
    video = await ended(ann, made.id)
    assert video.status == "failed"
    assert video.error is not None
    assert video.error.code == "upstream_unavailable"
    assert "sk-secret" not in video.error.message
    with pytest.raises(openai.NotFoundError) as refused:
        await ann.videos.download_content(made.id)
    assert refused.value.code == "video_without_content"
    assert await shop.charged() == [("failed", 0)]


async def test_a_repeat_gets_the_same_job(ann: openai.AsyncOpenAI, shop: Shop) -> None:
    headers = {"Idempotency-Key": "k"}
    made = [
        await ann.videos.create(model="acme/film", prompt="a boat", extra_headers=headers)
        for _ in range(2)
    ]
    assert made[0].id == made[1].id
    with pytest.raises(openai.UnprocessableEntityError):
        await ann.videos.create(model="acme/film", prompt="a car", extra_headers=headers)
    await ended(ann, made[0].id)
    assert await shop.charged() == [("completed", FOUR_SECONDS)]


async def test_jobs_as_json(ann: openai.AsyncOpenAI, played: PlayedTasks) -> None:
    body = {
        "model": "acme/film",
        "prompt": "a boat",
        "seconds": "4",
        "input_reference": {"image_url": "https://pics.example/x.png"},
    }
    answer = await _ask(ann, "POST", "", json=body)
    assert answer.status_code == 200
    await ended(ann, answer.json()["id"])
    assert form_of(played.asked[0])["input_reference"][0][2] == png(9)
    for wrong, param in (
        ({"seconds": "long"}, "seconds"),
        ({"input_reference": {"file_id": "f"}}, "input_reference.file_id"),
        ({"colour": "red"}, "colour"),
    ):
        answer = await _ask(ann, "POST", "", json=body | wrong)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "", 405),
        ("POST", "/video_1", 405),
        ("DELETE", "/video_1/content", 405),
        ("GET", "/video_1/frames", 404),
        ("GET", "/..%2f..%2fturnpike.db", 404),
        ("GET", "/..%2f..%2fturnpike.db/content", 404),
        ("GET", "/%00", 404),
        ("GET", "/video_1/content?variant=thumbnail", 400),
    ],
)
async def test_paths_that_lead_nowhere(
    ann: openai.AsyncOpenAI, method: str, path: str, status: int
) -> None:
    assert (await _ask(ann, method, path)).status_code == status


async def test_a_restart_fails_what_was_unfinished_and_keeps_the_rest(
    tmp_path: Path, played: PlayedTasks
) -> None:
    async with open_shop(tmp_path, played) as shop:
        ann = await shop.client("ann")
        done = await ann.videos.create(model="acme/film", prompt="a boat")
        await ended(ann, done.id)
        played.hang = True
        cut = await ann.videos.create(model="acme/film", prompt="a boat")
        await played.reached.wait()
        # As a process that is killed: nobody writes down how the job ended.
        pump, task = shop.jobs._running.pop(cut.id)
        task.cancel()
        key = ann.api_key
        (tmp_path / "videos" / ".video_half").write_bytes(b"half")
    async with (
        open_shop(tmp_path, played) as shop,
        openai.AsyncOpenAI(api_key=key, base_url=f"{shop.base_url}/v1") as ann,
    ):
        video = await ann.videos.retrieve(cut.id)
        assert video.status == "failed"
        assert video.error is not None
        assert video.error.code == "server_restarted"
        assert (await ann.videos.download_content(done.id)).content == mp4(4)
    assert pump.call.id
    assert [each.name for each in (tmp_path / "videos").iterdir()] == [done.id]


class MovedClock(SystemClock):
    """A clock that a test can put forward."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


async def test_what_has_expired_is_gone(
    ann: openai.AsyncOpenAI, shop: Shop, tmp_path: Path
) -> None:
    made = await ann.videos.create(model="acme/film", prompt="a boat")
    await ended(ann, made.id)
    clock = MovedClock()
    later = VideoJobs(shop.database, clock, tmp_path, fetch)
    user_id = (await shop.database.read("SELECT user_id FROM videos"))[0][0]
    clock.ahead_ms = LIVES_MS - 60_000
    assert await later.sweep() == 0
    assert (await later.get(user_id, made.id)).id == made.id
    clock.ahead_ms = LIVES_MS + 60_000
    assert await later.list(user_id, after=None, limit=9, ascending=True) == []
    assert await later.sweep() == 1
    assert list((tmp_path / "videos").iterdir()) == []


async def test_room_is_made_by_whoever_has_most(shop: Shop, tmp_path: Path) -> None:
    size = len(mp4(4))
    shop.jobs._bytes_max = 3 * size
    ann, bob = await shop.client("ann"), await shop.client("bob")
    made = []
    for client in (bob, ann, ann, ann):
        video = await client.videos.create(model="acme/film", prompt="a boat")
        await ended(client, video.id)
        made.append(video.id)
    assert sorted(each.name for each in (tmp_path / "videos").iterdir()) == sorted(
        [made[0], made[2], made[3]]
    )
    with pytest.raises(openai.NotFoundError):
        await ann.videos.download_content(made[1])


async def test_a_file_that_somebody_removed(ann: openai.AsyncOpenAI, tmp_path: Path) -> None:
    made = await ann.videos.create(model="acme/film", prompt="a boat")
    await ended(ann, made.id)
    (tmp_path / "videos" / made.id).unlink()
    with pytest.raises(openai.NotFoundError):
        await ann.videos.download_content(made.id)
