"""A played fal: its queue and its synchronous host. The books are nanoseconds of inference."""

from typing import Any

from tests.upstreams.queue import KEY, PlayedQueue, Work
from tests.upstreams.serving import Asked, Reply

_ERRORS: dict[str, tuple[int, Any]] = {
    "invalid": (
        422,
        {
            "detail": [
                {
                    "loc": ["body", "image_size", "width"],
                    "msg": "Input should be less than or equal to 2048",
                    "type": "less_than_equal",
                }
            ]
        },
    ),
    "nsfw": (
        422,
        {
            "detail": [
                {
                    "loc": ["body", "prompt"],
                    "msg": "The content could not be processed.",
                    "type": "content_policy_violation",
                }
            ]
        },
    ),
    "failed": (500, {"detail": f"worker died {KEY}", "error_type": "runner_server_error"}),
    "timed-out": (504, {"detail": "too slow", "error_type": "startup_timeout"}),
    "locked": (403, {"detail": "User is locked. Reason: Exhausted balance. Top up."}),
}


class PlayedFal(PlayedQueue):
    """The queue's paths; with ``direct`` the synchronous host's. Errors of a model come where its
    result is asked for."""

    direct = False

    def words(self, payload: dict[str, Any]) -> str:
        return str(payload.get("prompt") or payload.get("text") or "")

    def knows(self, asked: Asked) -> bool:
        return asked.headers.get("authorization") == f"Key {KEY}"

    def work_of(self, asked: Asked) -> Work | None:
        before, found, known = asked.path.partition("/requests/")
        return self.find(known.split("/")[0]) if found and before == "/fal-ai/model" else None

    def is_cancel(self, asked: Asked) -> bool:
        return asked.method == "PUT" and asked.path.endswith("/cancel")

    async def submitted(self, work: Work, asked: Asked, reply: Reply) -> None:
        assert float(asked.headers["x-fal-request-timeout"]) > 1
        if work.scene == "locked":
            await reply.answer(*_ERRORS["locked"])
        elif not self.direct:
            await reply.answer(200, {**self.stands(work), "queue_position": 0})
        elif work.scene in _ERRORS:
            await reply.answer(*_ERRORS[work.scene])
        else:
            body = {**self._result(work), "timings": {"inference": 0.75}}
            self.billed.append(750_000_000)
            await reply.answer(200, body, (("x-fal-request-id", work.id),))

    def stands(self, work: Work) -> Any:
        base = f"{self.asks_of(work)}/fal-ai/model/requests/{work.id}"
        own = f"{self.origin}/fal-ai/model/requests/{work.id}"
        found: dict[str, Any] = {
            "status": "IN_QUEUE" if work.asked == 0 else "IN_PROGRESS",
            "request_id": work.id,
            "status_url": f"{base}/status",
            "response_url": base,
            "cancel_url": f"{own}/cancel",
        }
        if work.is_done:
            absurd = work.scene == "absurd"
            found["status"] = "COMPLETED"
            found["metrics"] = {"inference_time": 1e300 if absurd else 2.5 + work.number}
        return found

    async def answer(self, work: Work, asked: Asked, reply: Reply) -> None:
        if asked.path.endswith("/status"):
            status = self.stands(work)
            await reply.answer(200 if status["status"] == "COMPLETED" else 202, status)
        elif work.scene == "broken-result" and work.asked <= 4:
            await reply.answer(502, {"detail": "bad gateway"})
        elif work.scene in _ERRORS:
            await reply.answer(*_ERRORS[work.scene])
        else:
            self.billed.append(2_500_000_000 + work.number * 1_000_000_000)
            await reply.answer(200, self._result(work))

    def _result(self, work: Work) -> dict[str, Any]:
        given = work.payload
        if "audio_url" in given:
            return {
                "text": "Hello world",
                "chunks": [
                    {"timestamp": [0.0, 1.5], "text": " Hello"},
                    {"timestamp": [1.5, None], "text": " world"},
                ],
                "inferred_languages": ["en"],
            }
        if "text" in given:
            return {"audio": {"url": self.result(work, "speech.wav"), "content_type": "audio/wav"}}
        if "duration" in given:
            video: dict[str, Any] = {"url": self.result(work, "film.mp4")}
            if work.scene == "measured":
                video["duration"] = 5.2
            return {"video": video}
        count = given.get("num_images", 1)
        found: dict[str, Any] = {
            "images": [
                {"url": self.result(work, f"{n}.jpg"), "content_type": "image/jpeg", "width": 64}
                for n in range(count)
            ],
            "seed": 7,
            "has_nsfw_concepts": [False] * count,
        }
        if work.scene == "black":
            found["has_nsfw_concepts"] = [True] * count
        if work.scene == "one-black":
            found["has_nsfw_concepts"][0] = True
        if work.scene == "no-output":
            found["images"] = []
        return found
