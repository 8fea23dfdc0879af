"""A played Replicate: predictions by model and by version, ``Prefer: wait``, cancelling.

Its books are nanoseconds of ``predict_time``, which is what Replicate bills for hardware.
"""

from typing import Any

from tests.upstreams.queue import KEY, PlayedQueue, Work
from tests.upstreams.serving import Asked, Reply

WHISPER = {
    "segments": [
        {"id": 0, "start": 0.0, "end": 1.5, "text": " Hello", "tokens": [1]},
        {"id": 1, "start": 1.5, "end": 2.25, "text": " world", "tokens": [2]},
    ],
    "transcription": " Hello world",
    "translation": None,
    "detected_language": "english",
}


class PlayedReplicate(PlayedQueue):
    """The scene ``at-once`` is done within the wait."""

    def words(self, payload: dict[str, Any]) -> str:
        given = payload["input"]
        return str(given.get("prompt") or given.get("text") or given.get("initial_prompt") or "")

    def knows(self, asked: Asked) -> bool:
        return asked.headers.get("authorization") == f"Bearer {KEY}"

    def work_of(self, asked: Asked) -> Work | None:
        parts = asked.path.split("/")
        return self.find(parts[3]) if asked.path.startswith("/v1/predictions/") else None

    def is_cancel(self, asked: Asked) -> bool:
        return asked.method == "POST" and asked.path.endswith("/cancel")

    async def submitted(self, work: Work, asked: Asked, reply: Reply) -> None:
        assert asked.headers["prefer"].startswith("wait=")
        if work.scene == "invalid":
            problem = {
                "title": "Input validation failed",
                "detail": "- input.num_outputs: Must be less than or equal to 4",
                "status": 422,
                "invalid_fields": [{"field": "input.num_outputs"}],
            }
            await reply.answer(422, problem, kind="application/problem+json")
            return
        if work.scene == "no-version":
            problem = {
                "title": "Invalid version or not permitted",
                "detail": "secret",
                "status": 422,
            }
            await reply.answer(422, problem)
            return
        if work.scene == "throttled":
            said = "Request was throttled. Your rate limit resets in ~30s."
            await reply.answer(429, {"detail": said, "status": 429})
            return
        if work.scene == "at-once":
            work.asked = 9
        await reply.answer(201, self.stands(work))

    def stands(self, work: Work) -> Any:
        base = f"{self.asks_of(work)}/v1/predictions/{work.id}"
        found: dict[str, Any] = {
            "id": work.id,
            "model": "acme/model",
            "input": work.payload["input"],
            "status": "starting" if work.asked == 0 else "processing",
            "output": None,
            "error": None,
            "urls": {"get": base, "cancel": f"{self.origin}/v1/predictions/{work.id}/cancel"},
        }
        if work.scene == "other-work":
            found["id"] = found["id"] if work.asked == 0 else "work-of-somebody"
        if work.cancelled or (work.is_done and work.scene == "cancelled"):
            found["status"] = "canceled"
        elif work.is_done and work.scene == "aborted":
            found["status"] = "aborted"
        elif work.is_done and work.scene in ("failed", "nsfw"):
            found["status"] = "failed"
            found["error"] = (
                f"CUDA out of memory {KEY}" if work.scene == "failed" else "NSFW content detected."
            )
            found["metrics"] = {"predict_time": 0.5}
        elif work.is_done:
            found |= self._ended_well(work)
        return found

    def _ended_well(self, work: Work) -> dict[str, Any]:
        seconds: Any = 1.25 + work.number
        if work.scene == "absurd":
            seconds = -1e300
        elif work.scene == "nonsense":
            return {"status": "succeeded", "output": self._output(work), "metrics": ["never"]}
        else:
            self.billed.append(1_250_000_000 + work.number * 1_000_000_000)
        metrics = {"predict_time": seconds, "total_time": 99}
        if "duration" in work.payload["input"]:
            metrics["video_output_duration_seconds"] = 4.5
        return {"status": "succeeded", "output": self._output(work), "metrics": metrics}

    def _output(self, work: Work) -> Any:
        given = work.payload["input"]
        forms = {
            "no-output": None,
            "text": "spoken words",
            "pieces": ["spoken ", "words"],
            "chunks": {"text": "a b", "chunks": [{"timestamp": [0.0, 3.0], "text": "a b"}]},
            "text-file": {"txt_file": f"{self.files}/said.txt", "detected_language": "en"},
        }
        if work.scene in forms:
            return forms[work.scene]
        if "audio" in given:
            return WHISPER
        if "text" in given:
            return self.result(work, "speech.wav")
        if "duration" in given:
            return self.result(work, "film.mp4")
        if given.get("num_outputs", 1) > 1 or work.scene == "many":
            return [self.result(work, f"{n}.png") for n in range(given.get("num_outputs", 9))]
        return self.result(work, "0.png")
