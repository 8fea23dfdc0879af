"""The played providers of a soak, each with a book of what it charges.

Three sell chats, by the token, request or second; ``later`` tells the cost of each call only when
it is asked afterwards. ``vectors`` sells embeddings.
"""

import asyncio
import json
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from tests.soak.faults import BREAKS, faults_of
from tests.upstreams.billing import PlayedBilling
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.rates import Rates
from tests.upstreams.scenes import Booked, JsonObject, Scene
from tests.upstreams.serving import Asked, Reply, Serving

LATER = "later"
VECTORS = "vectors"
EMBEDDING_MODEL = "acme/vectors"
ECHO_MODEL = "soak/echo"  # of the server itself: quick, and nobody's book has it
ECHO_RATES = Rates(input=1, output=1)
EMBEDDING_RATES = Rates(input=37)
RATES = {
    "first": {
        "acme/tokens": Rates(input=50, output=1400),
        "acme/request": Rates(per_request=14_001),
    },
    LATER: {"acme/later": Rates(input=71, output=1301)},
    "second": {
        "acme/tokens": Rates(input=60, output=1500),
        "acme/request": Rates(per_request=16_000),
        "acme/later": Rates(input=80, output=1600),
        "acme/seconds": Rates(per_second=9_001),
    },
    "third": {"acme/seconds": Rates(per_second=10_001)},
}
MODELS = ("acme/tokens", "acme/request", "acme/seconds", "acme/later")
# Whose call meets its fault: that of the first provider of each.
SOLD_FIRST_BY = {model: name for name, sold in reversed(RATES.items()) for model in sold}
COMPUTE_S = "0.75"
FIRST_EVENT_S, IDLE_S, TOTAL_S = 8.0, 4.0, 30.0
Book = Counter[tuple[str, int]]  # how often an amount was charged for a model


@dataclass
class Sellers:
    """All providers. ``fates`` says, by tag, which fault a request meets at the first of them."""

    chance: random.Random
    chat: dict[str, PlayedProvider] = field(default_factory=dict)
    billing: PlayedBilling = field(default_factory=PlayedBilling)
    fates: dict[str, Scene] = field(default_factory=dict)
    books: dict[str, Book] = field(default_factory=dict)
    met: Counter[str] = field(default_factory=Counter)
    vectors: Serving = field(init=False)
    _read: Counter[str] = field(default_factory=Counter)
    _unended: list[tuple[str, Booked]] = field(default_factory=list)
    _to_tell: dict[str, tuple[Booked, int]] = field(default_factory=dict)

    def fault(self, model: str, *, stream: bool) -> Scene:
        """One by chance of those that can befall such a call."""
        told_later = SOLD_FIRST_BY.get(model) == LATER
        known = faults_of(stream=stream, told_later=told_later)
        return known[self.chance.choice(sorted(known))]

    def scene(self, name: str, request: JsonObject) -> Scene:
        """What happens to a request at a provider. Where it was not the first one's turn, a fault
        that only that one can have does not happen."""
        model = request["model"]
        fate = self.fates.pop(request.get("user", ""), None)
        compute_s = COMPUTE_S if model == "acme/seconds" else None
        known = faults_of(stream=bool(request.get("stream")), told_later=name == LATER)
        if fate is not None and fate.name in known:
            self.met[fate.name] += 1
            return Scene(**{**fate.__dict__, "compute_s": compute_s})
        words = self.chance.randint(1, 30)
        gap_s = self.chance.choice((0.0, 0.0, 0.002, 0.01))
        return Scene(words=words, gap_s=gap_s, compute_s=compute_s)

    def read_books(self) -> None:
        """Take over what was written since the last time, and forget the requests."""
        for name, provider in self.chat.items():
            new = provider.books[self._read[name] :]
            self._read[name] += len(new)
            self._unended += [(name, booked) for booked in new]
        for name, booked in self._unended:
            if booked.ended:
                self._charge(name, booked)
        self._unended = [each for each in self._unended if not each[1].ended]

    def _charge(self, name: str, booked: Booked) -> None:
        amount = charged(name, booked)
        booked.request, booked.headers = {}, {}
        if name == LATER:
            self._to_tell[booked.id] = (booked, amount)
            self.billing.costs[booked.id] = str(amount)
        elif amount:
            self.books[name][booked.model, amount] += 1

    def close_books(self) -> None:
        """Charge at ``later`` for whole answers, and for the others where somebody asked."""
        self.read_books()
        asked = {call for calls in self.billing.asked for call in calls}
        for call, (booked, amount) in self._to_tell.items():
            if amount and (call in asked or (booked.finished and booked.scene == "normal")):
                self.books[LATER][booked.model, amount] += 1
        self._to_tell.clear()

    @property
    def unended(self) -> int:
        """Requests that still are being answered."""
        return len(self._unended)

    @property
    def connections_open(self) -> int:
        """To all of them."""
        return sum(each.connections_open for each in self.chat.values()) + (
            self.vectors.connections_open
        )

    async def embed(self, asked: Asked, reply: Reply) -> None:
        """The provider of embeddings; a fault of its own for those that meet one."""
        self.vectors.asked.clear()
        body = asked.json()
        texts = body["input"]
        fate = self.fates.pop(body.get("user", ""), None)
        if fate is not None:
            self.met[f"{VECTORS} {fate.name}"] += 1
            if fate.reset_after is not None:
                await reply.reset()
            await reply.answer(fate.status if fate.status != 200 else 500, b"{")
            return
        tokens = sum(len(text.split()) for text in texts)
        data = [
            {"object": "embedding", "index": at, "embedding": [zlib.crc32(text.encode()) / 2**32]}
            for at, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "data": data, "model": body["model"], "usage": usage}
        await reply.answer(200, json.dumps(answer).encode())
        self.books[VECTORS][EMBEDDING_MODEL, EMBEDDING_RATES.bill(tokens, 0)] += 1

    def toml(self) -> str:
        """The providers' part of a configuration file."""
        parts = ['[routing]\ndefault_policy = "preferred"\nprobes = false\n']
        for name, provider in self.chat.items():
            parts.append(_provider(name, provider.base_url))
            if name == LATER:
                parts.append(f'billing = {{ url = "{self.billing.url}" }}\n')
            for model, rates in RATES[name].items():
                parts.append(f'[[providers.models]]\nid = "{model}"\n{rates.toml()}\n')
        parts.append('[[providers]]\nid = "echo"\nplugin = "echo"\n')
        parts.append(f'[[providers.models]]\nid = "{ECHO_MODEL}"\n{ECHO_RATES.toml()}\n')
        parts.append(_provider(VECTORS, f"{self.vectors.origin}/v1"))
        parts.append(
            f'[[providers.models]]\nid = "{EMBEDDING_MODEL}"\ntasks = ["feature-extraction"]\n'
            f"{EMBEDDING_RATES.toml()}\n"
        )
        return "".join(parts)


def charged(name: str, booked: Booked) -> int:
    """What the provider charges for a request that has ended, in nano-USD."""
    rates = RATES[name][booked.model]
    if booked.scene == "normal" or booked.scene.startswith("usage_"):
        return booked.bill(rates) if booked.finished else 0
    if booked.stream and (booked.scene in BREAKS or name == LATER):
        return booked.bill(rates) if booked.completion_tokens else 0
    # A stream's line may be too long, a whole answer is only padded.
    whole = booked.scene == "huge_line" and booked.finished
    return booked.bill(rates) if whole else 0


def _provider(name: str, base_url: str) -> str:
    return (
        f'[[providers]]\nid = "{name}"\nplugin = "openai_compatible"\nbase_url = "{base_url}"\n'
        f"first_event_seconds_max = {FIRST_EVENT_S}\nidle_seconds_max = {IDLE_S}\n"
        f"seconds_max = {TOTAL_S}\n"
    )


@asynccontextmanager
async def open_sellers(chance: random.Random) -> AsyncIterator[Sellers]:
    """All of them, on free ports, and somebody who reads their books each second."""
    sellers = Sellers(chance)
    async with AsyncExitStack() as stack:
        for name in RATES:
            header = "Inference-Id" if name == LATER else None
            provider = PlayedProvider(request_id_header=header)
            provider.choose = partial(sellers.scene, name)
            sellers.chat[name] = await stack.enter_async_context(provider)
        sellers.books = {name: Counter() for name in (*RATES, VECTORS)}
        await stack.enter_async_context(sellers.billing)
        sellers.vectors = await stack.enter_async_context(Serving(sellers.embed))

        async def read_on() -> None:
            while True:
                sellers.read_books()
                await asyncio.sleep(1.0)

        reading = asyncio.ensure_future(read_on())
        try:
            yield sellers
        finally:
            reading.cancel()
