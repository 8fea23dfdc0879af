"""The clients of a soak: they come at their rate, whoever is still waiting, and some walk away."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.journeys.callers import Caller, Heard, chat
from tests.soak.providers import ECHO_MODEL, EMBEDDING_MODEL, MODELS, Sellers
from tests.upstreams.scenes import Scene

LOCAL_MODEL = "soak/local"
PROMPT = "count to any number"
ANSWER_S_MAX = 90.0
IDLE_CALLERS_MAX = 64
FILLERS = 4  # clients of each key
# What may be said to a client: an answer, no credit, nobody who could answer, too much at once.
STATUSES = (200, 402, 429, 502, 503, 504)


@dataclass(frozen=True)
class Client:
    """A key, and the org that it names as the payer, if it does."""

    key: str
    bill_to: str = ""


@dataclass(frozen=True)
class Shares:
    """Parts of all requests, from 0 to 1."""

    faults: float = 0.05
    leavers: float = 0.05
    embeddings: float = 0.15
    streams: float = 0.5
    local: float = 0.004


@dataclass
class Crowd:
    """See the module. ``heard`` counts answers by status, and ``strange`` what nobody should be
    told."""

    base_url: str
    clients: list[Client]
    poor: Client
    sellers: Sellers
    chance: random.Random
    shares: Shares
    heard: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    _idle: dict[str, list[Caller]] = field(default_factory=dict)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _number: int = 0

    async def come(self, seconds: float, rate: float) -> None:
        """So many a second for so long; those that come last may still be waiting then."""
        loop = asyncio.get_running_loop()
        begun, sent = loop.time(), 0
        while (now := loop.time() - begun) < seconds:
            while sent <= now * rate:
                sent += 1
                task = asyncio.ensure_future(self._one())
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(1 / rate)

    async def fill(self, calls: int) -> None:
        """So many small calls one after the other, as fast as it goes: what a database keeps in
        memory grows with it for a while, and this makes it as large as it gets."""
        left = iter(range(calls))

        async def ask(client: Client) -> None:
            caller = Caller(self.base_url, client.key)
            for _ in left:
                heard = await caller.ask(chat(PROMPT, model=ECHO_MODEL))
                if heard.status != 200:
                    self.strange.append(f"{ECHO_MODEL}: {heard.status} {heard.body[-200:]!r}")
            caller.drop()

        await asyncio.gather(*(ask(client) for client in self.clients * FILLERS))

    async def gone(self) -> None:
        """Wait for everybody, and close all connections."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        for callers in self._idle.values():
            for caller in callers:
                caller.drop()
        self._idle.clear()

    @property
    def under_way(self) -> int:
        """Requests without their whole answer."""
        return len(self._under_way)

    async def _one(self) -> None:
        chance, shares = self.chance, self.shares
        self._number += 1
        tag = f"s{self._number}"
        embeds = chance.random() < shares.embeddings
        local = not embeds and chance.random() < shares.local
        stream = not embeds and chance.random() < shares.streams
        client = self.poor if chance.random() < 0.01 else chance.choice(self.clients)
        model = EMBEDDING_MODEL if embeds else LOCAL_MODEL if local else chance.choice(MODELS)
        fails = chance.random() < shares.faults and not local
        if fails:
            fault = Scene(name="vectors fail", status=500) if embeds else None
            fault = fault or self.sellers.fault(model, stream=stream)
            self.sellers.fates[tag] = fault
        heard = await self._ask(client, model, tag, stream=stream)
        self.sellers.fates.pop(tag, None)
        if heard is not None:
            self._note(heard, client, model, stream=stream, fails=fails)

    async def _ask(self, client: Client, model: str, tag: str, *, stream: bool) -> Heard | None:
        chance = self.chance
        drop_at = cut_at = None
        if chance.random() < self.shares.leavers:
            if chance.random() < 0.2:
                cut_at = chance.randrange(400)  # before the request is whole
            elif chance.random() < 0.25:
                drop_at = 0  # before the answer begins
            else:
                drop_at = chance.randrange(1, 4000)
        headers = {"X-HF-Bill-To": client.bill_to} if client.bill_to else {}
        body, path = _request(model, tag, stream=stream)
        idle = self._idle.setdefault(client.key, [])
        caller = idle.pop() if idle else Caller(self.base_url, client.key)
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                heard = await caller.ask(
                    body, headers=headers, drop_at=drop_at, cut_at=cut_at, path=path
                )
        except (OSError, EOFError, TimeoutError) as error:
            self.heard[type(error).__name__] += 1
            self.strange.append(f"{tag} {model}: {type(error).__name__} {error}")
            caller.drop()
            return None
        if not heard.dropped and drop_at is None and len(idle) < IDLE_CALLERS_MAX:
            idle.append(caller)
        else:
            caller.drop()
        return heard

    def _note(self, heard: Heard, client: Client, model: str, *, stream: bool, fails: bool) -> None:
        if heard.dropped:
            self.heard["left"] += 1
            return
        self.heard[str(heard.status)] += 1
        about = f"{model} {'stream' if stream else 'whole'}: {heard.status} {heard.body[-200:]!r}"
        never = 200 if client is self.poor else 402
        if heard.status not in STATUSES or heard.status == never or not heard.call_id:
            self.strange.append(about)
        elif heard.status == 200 and stream and not heard.done:
            self.heard["broke off"] += 1
            if not fails or heard.error is None:
                self.strange.append(about)


def _request(model: str, tag: str, *, stream: bool) -> tuple[dict[str, Any], str]:
    """Its body, and the path."""
    if model == EMBEDDING_MODEL:
        return {"model": model, "input": [PROMPT, "and back"], "user": tag}, "/v1/embeddings"
    if model == LOCAL_MODEL:
        return chat("Hi", model=model, stream=stream, max_tokens=4), "/v1/chat/completions"
    body = chat(PROMPT, model=model, stream=stream, user=tag, max_tokens=24)
    return body, "/v1/chat/completions"
