"""A played WaveSpeed: envelopes, results under ``/result``, deleting. The books are nanoseconds."""

from typing import Any

from tests.upstreams.queue import KEY, PlayedQueue, Work
from tests.upstreams.serving import Asked, Reply

_FAILED = {
    "failed": (1405, f"worker died {KEY}"),
    "nsfw": (1200, "The content contains sensitive information."),
    "invalid": (1401, "size: must be at most 1536"),
    "flagged": (1403, "Content flagged as sensitive by the model"),
}


class PlayedWaveSpeed(PlayedQueue):
    """The scene ``error-in-answer`` refuses with status 200."""

    def words(self, payload: dict[str, Any]) -> str:
        return str(payload["prompt"])

    def knows(self, asked: Asked) -> bool:
        return asked.headers.get("authorization") == f"Bearer {KEY}"

    def work_of(self, asked: Asked) -> Work | None:
        start, found, known = asked.path.partition("/api/v3/predictions/")
        return self.find(known.removesuffix("/result")) if found and not start else None

    def is_cancel(self, asked: Asked) -> bool:
        return asked.method == "DELETE"

    async def submitted(self, work: Work, asked: Asked, reply: Reply) -> None:
        if work.scene == "error-in-answer":
            await reply.answer(200, {"code": 500, "message": "model is busy", "data": None})
        else:
            await reply.answer(200, self.stands(work))

    def stands(self, work: Work) -> Any:
        data: dict[str, Any] = {
            "id": work.id,
            "model": work.path.removeprefix("/api/v3/"),
            "status": "created" if work.asked == 0 else "processing",
            "outputs": [],
            "error": "",
            "urls": {"get": f"{self.asks_of(work)}/api/v3/predictions/{work.id}/result"},
        }
        if work.scene == "no-urls":
            del data["urls"]
        if work.cancelled or (work.is_done and work.scene == "cancelled"):
            data["status"] = "cancelled"
        elif work.is_done and work.scene in _FAILED:
            data["status"] = "failed"
            data["code"], data["error"] = _FAILED[work.scene]
        elif work.is_done:
            self._end_well(work, data)
        return {"code": 200, "message": "success", "data": data}

    def _end_well(self, work: Work, data: dict[str, Any]) -> None:
        count = work.payload.get("num_images", 1)
        ending = "mp4" if "duration" in work.payload else "png"
        data["status"] = "completed"
        data["outputs"] = [self.result(work, f"{n}.{ending}") for n in range(count)]
        data["has_nsfw_contents"] = [work.scene == "black"] * count
        if work.scene == "no-output":
            data["outputs"] = []
        if work.scene == "absurd":
            data["timings"] = {"inference": "NaN"}
        else:
            self.billed.append((2500 + work.number) * 1_000_000)
            data["timings"] = {"inference": 2500 + work.number}
