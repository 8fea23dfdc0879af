"""A played provider that can do what probes ask for, and stop doing it."""

import asyncio
from typing import Any

from tests.upstreams.serving import Asked, Reply

USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}


class Chatting:
    """What it does is switched by the test.

    ``faults`` are checks (``stream``, ``tools``, ``json_schema``, ``json_object``, ``embedding``)
    and the status that they are refused with; ``wrong`` are checks that are answered beside the
    point, ``cut`` those whose answer ends at its limit. At the check ``hold_at`` it says that it is
    ``held``, and waits for ``go_on``.
    """

    def __init__(self) -> None:
        self.faults: dict[str, int] = {}
        self.wrong: set[str] = set()
        self.cut: set[str] = set()
        self.usage_in_streams = True
        self.words = 10
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.arrived: asyncio.Queue[str] = asyncio.Queue()
        self.at_once = 0
        self.at_once_most = 0
        self.hold_at = ""
        self.held, self.go_on = asyncio.Event(), asyncio.Event()

    async def play(self, asked: Asked, reply: Reply) -> None:
        self.at_once += 1
        self.at_once_most = max(self.at_once_most, self.at_once)
        try:
            await self._play(asked, reply)
        finally:
            self.at_once -= 1

    async def _play(self, asked: Asked, reply: Reply) -> None:
        body = asked.json()
        check = _check_of(asked, body)
        self.asked.append(check)
        self.arrived.put_nowait(check)
        self.bodies.append(body)
        if check == self.hold_at:
            self.held.set()
            await self.go_on.wait()
        status = self.faults.get(check)
        if status == 0:
            await reply.reset()
        if status is not None:
            error = {"error": {"message": f"{check} is not for you", "type": "played"}}
            await reply.answer(status, error, [("Retry-After", "30")])
        elif check == "stream":
            await self._stream(reply)
        elif check == "embedding":
            data = [] if check in self.wrong else [{"index": 0, "embedding": [0.5, 0.25]}]
            await reply.answer(200, {"object": "list", "data": data, "usage": USAGE})
        else:
            await reply.answer(200, self._whole(check))

    def _whole(self, check: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": '{"city": "Paris"}'}
        if check in self.wrong | self.cut:
            message["content"] = "It is sunny in Paris, I guess"
        elif check == "tools":
            call = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
            message["content"] = None
            message["tool_calls"] = [{"id": "c", "type": "function", "function": call}]
        finish = "length" if check in self.cut else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE}

    async def _stream(self, reply: Reply) -> None:
        await reply.begin()
        for n in range(0 if "stream" in self.wrong else self.words):
            delta = {"content": f"{n} "}
            await reply.event({"id": "x", "choices": [{"index": 0, "delta": delta}]})
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await reply.event({"id": "x", "choices": [end]})
        if self.usage_in_streams:
            await reply.event({"id": "x", "choices": [], "usage": USAGE})
        await reply.event("[DONE]")
        await reply.end()


def _check_of(asked: Asked, body: dict[str, Any]) -> str:
    if asked.path.endswith("/embeddings"):
        return "embedding"
    if body.get("tools"):
        return "tools"
    if body.get("response_format"):
        return str(body["response_format"]["type"])
    return "stream" if body.get("stream") else "chat"
