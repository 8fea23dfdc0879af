"""The README's provider that speaks HTTP, and an Acme that answers it."""

import re
from pathlib import Path

import plugins.drop_in
from tests.upstreams.serving import Asked, Reply, Serving

README = Path(plugins.drop_in.__file__).with_name("README.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
SOURCE = BLOCKS[1]
KEY = "acme-key-0123456789"


class PlayedAcme(Serving):
    """Answers ``POST /answer`` with the prompt in capitals."""

    def __init__(self, says: str = "") -> None:
        super().__init__(self._answer)
        self._says = says
        self._count = 0

    async def _answer(self, asked: Asked, reply: Reply) -> None:
        body = asked.json()
        if asked.headers.get("x-acme-key") != KEY:
            await reply.answer(401, {"error": f"no such key: {asked.headers.get('x-acme-key')}"})
        elif body["model"] != "big-1":
            await reply.answer(404, {"error": "no such model"})
        else:
            self._count += 1
            text = self._says or body["prompt"].upper()
            counts = {"tokens_read": len(body["prompt"].split()), "tokens_made": len(text.split())}
            await reply.answer(200, {"id": f"acme-{self._count}", "text": text, **counts})
