"""A market of two played providers that sell the same three models at different prices, one of them
unreliable, and a crowd that buys there and often walks away. Both keep books of their own."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.journeys.callers import Caller, Heard, chat
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.rates import Rates
from tests.upstreams.scenes import JsonObject, Scene

COMPUTE_S = "1.5"
MODELS = ("acme/tokens", "acme/request", "acme/seconds")
RATES = {
    "flaky": dict(
        zip(
            MODELS,
            (Rates(input=50, output=1400), Rates(per_request=14_000), Rates(per_second=9_000)),
            strict=True,
        )
    ),
    "steady": dict(
        zip(
            MODELS,
            (Rates(input=60, output=1500), Rates(per_request=16_000), Rates(per_second=10_001)),
            strict=True,
        )
    ),
}
PROMPT = "count to any number"


@dataclass(frozen=True)
class Errand:
    """One request of the crowd, and what befalls it. The tag is its ``user`` at the providers."""

    tag: str
    model: str
    stream: bool
    words: int
    fails: str = ""  # "before" the first byte, or "after" it
    drop_at: int | None = None
    cut_at: int | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def body(self) -> dict[str, Any]:
        return chat(PROMPT, model=self.model, stream=self.stream, user=self.tag, max_tokens=24)


def errands(chance: random.Random, count: int) -> list[Errand]:
    """A fifth loses its client, another fifth the provider that it meets first."""
    made = []
    for number in range(count):
        fate = chance.random()
        drop_at = cut_at = None
        fails = ""
        if fate < 0.02:
            cut_at = chance.randrange(400)
        elif fate < 0.2:
            drop_at = chance.randrange(3000)
            fails = chance.choice(("", "", "before"))
        elif fate < 0.4:
            fails = chance.choice(("before", "after"))
        stream = chance.random() < 0.5
        model, words = chance.choice(MODELS), chance.randint(1, 30)
        made.append(Errand(f"e{number}", model, stream, words, fails, drop_at, cut_at))
    return made


@dataclass
class Market:
    """The two providers, and what they were asked for by tag."""

    flaky: PlayedProvider
    steady: PlayedProvider
    todo: dict[str, Errand] = field(default_factory=dict)

    def toml(self) -> str:
        """The providers' part of a configuration file."""
        parts = ['[routing]\ndefault_policy = "preferred"\nprobes = false\n']
        for name, provider in (("flaky", self.flaky), ("steady", self.steady)):
            parts.append(
                f'[[providers]]\nid = "{name}"\nplugin = "openai_compatible"\n'
                f'base_url = "{provider.base_url}"\n'
            )
            for model, rates in RATES[name].items():
                parts.append(
                    f'[[providers.models]]\nid = "{model}"\nupstream_id = "{model}"\n'
                    f"{rates.toml()}\n"
                )
        return "".join(parts)

    def scene(self, provider: str, request: JsonObject) -> Scene | str:
        """What a provider does with a request: its errand says so."""
        errand = self.todo[request["user"]]
        compute_s = COMPUTE_S if errand.model == "acme/seconds" else None
        if provider == "flaky" and errand.fails == "before":
            return ("server_error", "reset_at_once", "unavailable", "garbage")[errand.words % 4]
        cut = 500 + 40 * errand.words if provider == "flaky" and errand.fails == "after" else None
        return Scene(words=errand.words, compute_s=compute_s, reset_after=cut)

    def owed(self) -> dict[str, int]:
        """By tag, what the provider that delivered an answer to the end charges for it."""
        owed: dict[str, int] = {}
        for name, provider in (("flaky", self.flaky), ("steady", self.steady)):
            for booked in provider.books:
                if booked.finished and booked.completion_tokens:
                    tag = booked.request["user"]
                    assert tag not in owed, f"{tag} was delivered twice"
                    owed[tag] = booked.bill(RATES[name][booked.model])
        return owed


@asynccontextmanager
async def open_market() -> AsyncIterator[Market]:
    """Both providers, on free ports."""
    async with AsyncExitStack() as stack:
        flaky = await stack.enter_async_context(PlayedProvider())
        steady = await stack.enter_async_context(PlayedProvider())
        market = Market(flaky, steady)
        flaky.choose = lambda request: market.scene("flaky", request)
        steady.choose = lambda request: market.scene("steady", request)
        yield market


def broken_off(errand: Errand, text: str) -> int:
    """What the flaky provider's answer costs that broke off after ``text``: by the rule for it, the
    delivered bytes at four to a token; by the request or second, what it costs as soon as there
    was anything."""
    if not text:
        return 0
    rates = RATES["flaky"][errand.model]
    seconds = int(float(COMPUTE_S) * 10**9) if errand.model == "acme/seconds" else 0
    return rates.bill(-(-len(PROMPT) // 4), -(-len(text) // 4), seconds)


async def send_crowd(
    base_url: str,
    keys: Sequence[str],
    todo: Sequence[Errand],
    connections: int,
) -> dict[str, Heard]:
    """Run the errands over so many connections, each with one of the keys; what was heard."""
    waiting = list(reversed(todo))
    heard: dict[str, Heard] = {}

    async def client(key: str) -> None:
        caller = Caller(base_url, key)
        while waiting:
            errand = waiting.pop()
            heard[errand.tag] = await caller.ask(
                errand.body(),
                headers=dict(errand.headers),
                drop_at=errand.drop_at,
                cut_at=errand.cut_at,
            )
        caller.drop()

    await asyncio.gather(*(client(keys[n % len(keys)]) for n in range(connections)))
    return heard
