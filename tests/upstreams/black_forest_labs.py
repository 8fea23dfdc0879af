"""A played Black Forest Labs: receipts with a bill in credits, results at a ``polling_url``.

The books are nano-USD: a credit is a US cent.
"""

from typing import Any

from tests.upstreams.queue import KEY, PlayedQueue, Work
from tests.upstreams.serving import Asked, Reply


class PlayedBlackForestLabs(PlayedQueue):
    """Knows no cancelling."""

    def words(self, payload: dict[str, Any]) -> str:
        return str(payload["prompt"])

    def knows(self, asked: Asked) -> bool:
        return asked.headers.get("x-key") == KEY

    def work_of(self, asked: Asked) -> Work | None:
        return self.find(asked.query["id"]) if asked.path == "/v1/get_result" else None

    def is_cancel(self, asked: Asked) -> bool:
        return False

    async def submitted(self, work: Work, asked: Asked, reply: Reply) -> None:
        if work.scene == "invalid":
            detail = [{"loc": ["body", "width"], "msg": "multiple of 16", "type": "value_error"}]
            await reply.answer(422, {"detail": detail})
            return
        receipt: dict[str, Any] = {
            "id": work.id,
            "polling_url": f"{self.asks_of(work)}/v1/get_result?id={work.id}",
            "cost": 4.5 + work.number,
            "input_mp": 0.0,
            "output_mp": 1.05,
        }
        self.billed.append(45_000_000 + work.number * 10_000_000)
        if work.scene == "absurd":
            receipt["cost"] = -3
        if work.scene == "no-place":
            del receipt["polling_url"]
        if work.scene == "bad-place":
            receipt["polling_url"] = "http://[::1"
        await reply.answer(200, receipt)

    def stands(self, work: Work) -> Any:
        found: dict[str, Any] = {"id": work.id, "status": "Pending", "progress": 0.5}
        if not work.is_done:
            return found
        said = {
            "nsfw": ("Request Moderated", {"Moderation Reasons": ["Derivative Works Filter"]}),
            "moderated": ("Content Moderated", None),
            "failed": ("Error", {"why": f"worker died {KEY}"}),
            "cancelled": ("Task not found", None),
        }
        if work.scene in said:
            status, details = said[work.scene]
            return {**found, "status": status, "details": details, "result": None}
        sample = None if work.scene == "no-output" else self.result(work, "sample.jpeg?sig=a%2Fb")
        return {**found, "status": "Ready", "result": {"sample": sample, "seed": 3}}
