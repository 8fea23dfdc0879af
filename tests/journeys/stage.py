"""A stage for the fault matrix: one running appliance, and for every case providers of its own, so
that no case meets another's open circuits and resting keys. One server plays them all; the model's
name at the provider says which of them is asked."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.appliance import RunningAppliance, appliance
from tests.journeys.callers import Caller, Heard, chat
from tests.journeys.faults import KEY, SOON_S, authority, refusing_port
from tests.journeys.ledger_file import CallRow, LedgerFile
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.rates import Rates
from tests.upstreams.scenes import SCENES, Booked, JsonObject, Scene

PROMPT = "one two three four"
RATES = {
    "a": Rates(input=101, output=503),
    "b": Rates(input=107, output=509),
    "c": Rates(input=113, output=521),
}
PLAIN = "plain"
# The retry budget is a fifth of the calls of the last 10 s: so many others go before a case.
OTHERS = 12


@dataclass(frozen=True)
class Part:
    """One provider of a case: what it plays and where. ``weights`` are those of its keys, ``rates``
    its prices where they are not those of its role, ``labels`` its labels, ``more`` further lines
    of its model in the configuration."""

    scene: Scene
    where: str = "played"
    impatient: bool = False
    weights: tuple[int, ...] = (1,)
    rates: Rates | None = None
    labels: tuple[str, ...] = ()
    more: str = ""


@dataclass
class Stage:
    """See the module. ``scenes`` says what ``CASE-ROLE`` plays, ``script`` what it plays for the
    next requests."""

    running: RunningAppliance
    ledger: LedgerFile
    key: str
    played: dict[str, PlayedProvider]
    scenes: dict[str, Scene]
    script: dict[str, list[Scene]]

    async def ask(
        self,
        case: str,
        *,
        stream: bool,
        others: int = OTHERS,
        headers: dict[str, str] | None = None,
        max_tokens: int = 50,
    ) -> Heard:
        """One call of the case's model, after the calls that pay for its retries."""
        await self.calm(others)
        caller = Caller(self.running.base_url, self.key)
        try:
            asked = chat(PROMPT, model=f"acme/{case}", stream=stream, max_tokens=max_tokens)
            return await caller.ask(asked, headers=headers)
        finally:
            caller.drop()

    async def calm(self, others: int = OTHERS) -> None:
        """Calls that go well, so that there is a budget for retries."""
        caller = Caller(self.running.base_url, self.key)
        for _ in range(others):
            assert (await caller.ask(chat(PROMPT, model=f"acme/{PLAIN}"))).status == 200
        caller.drop()

    def met(self, case: str) -> dict[str, list[Booked]]:
        """What each provider of the case wrote down."""
        roles: dict[str, list[Booked]] = {role: [] for role in RATES}
        for provider in self.played.values():
            for booked in provider.books:
                name, _, role = booked.model.rpartition("-")
                if name == case:
                    roles[role].append(booked)
        return roles

    def times(self, case: str) -> tuple[int, int, int]:
        """How often each was asked."""
        met = self.met(case)
        return len(met["a"]), len(met["b"]), len(met["c"])

    async def row(self, heard: Heard) -> CallRow:
        """The call in the ledger; once it is answered, it has ended there."""
        return (await asyncio.to_thread(self.ledger.calls))[heard.call_id]

    def bill(self, case: str, role: str) -> int:
        """What the provider charges for its only request."""
        (booked,) = self.met(case)[role]
        return booked.bill(RATES[role])


async def _answer_in_plain_text(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a server without TLS says to a client that begins with it."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def _never_shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that takes the connection and says nothing."""
    while await reader.read(65_536):
        pass
    writer.close()


def slug(*words: str) -> str:
    """A name that providers and models may have."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def estimate(role: str, text: str) -> int:
    """What an answer is charged for that nobody counted: four bytes to a token, rounded up."""
    return RATES[role].bill(-(-len(PROMPT) // 4), -(-len(text) // 4))


@asynccontextmanager
async def open_stage(
    folder: Path, cases: dict[str, tuple[Part, ...]], more_toml: str = ""
) -> AsyncIterator[Stage]:
    """The appliance in front of all the cases' providers."""
    scenes = {PLAIN: SCENES["normal"]}
    script: dict[str, list[Scene]] = {}

    def choose(request: JsonObject) -> Scene:
        waiting = script.get(request["model"])
        return waiting.pop(0) if waiting else scenes[request["model"]]

    async with AsyncExitStack() as stack:
        played = {"played": await stack.enter_async_context(PlayedProvider(choose=choose))}
        for name, tls in (await asyncio.to_thread(authority, folder)).items():
            provider = PlayedProvider(choose=choose, tls=tls)
            played[name] = await stack.enter_async_context(provider)
        addresses = {name: provider.base_url for name, provider in played.items()}
        addresses["refused"] = f"http://127.0.0.1:{stack.enter_context(refusing_port())}/v1"
        addresses["no_such_host"] = "http://nowhere.invalid/v1"
        plain = await asyncio.start_server(_answer_in_plain_text, "127.0.0.1", 0)
        await stack.enter_async_context(plain)
        silent = await asyncio.start_server(_never_shake_hands, "127.0.0.1", 0)
        await stack.enter_async_context(silent)
        addresses["silent"] = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1"
        addresses["no_tls"] = f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}/v1"
        toml = ['[routing]\ndefault_policy = "preferred"\nprobes = false\n', more_toml]
        toml.append(_provider(PLAIN, PLAIN, PLAIN, addresses["played"], Part(SCENES["normal"])))
        for case, parts in cases.items():
            for role, part in zip(RATES, parts, strict=False):
                scenes[f"{case}-{role}"] = part.scene
                where = addresses[part.where]
                toml.append(_provider(f"{case}-{role}", case, role, where, part, folder / "ca.pem"))
        started = appliance(folder / "data", "".join(toml), env=_keys(cases.values()))
        running = await asyncio.to_thread(started.__enter__)
        try:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            yield Stage(running, LedgerFile(running.data_dir), key, played, scenes, script)
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)


def _keys(cases: Iterable[tuple[Part, ...]]) -> dict[str, str]:
    most = max((len(part.weights) for parts in cases for part in parts), default=1)
    return {f"TP_STAGE_KEY_{at}": f"{KEY}-{at}" if at else KEY for at in range(most)}


def _provider(
    name: str, case: str, role: str, url: str, part: Part, ca_file: Path | None = None
) -> str:
    keys = ", ".join(
        f'{{ key = "env:TP_STAGE_KEY_{at}", weight = {weight} }}'
        for at, weight in enumerate(part.weights)
    )
    rates = part.rates or RATES.get(role, RATES["a"])
    seconds = SOON_S if part.impatient else 20.0
    settings = f'settings = {{ ca_file = "{ca_file}" }}\n' if part.where != "played" else ""
    return (
        f'[[providers]]\nid = "{name}"\nplugin = "openai_compatible"\nbase_url = "{url}"\n'
        f"api_keys = [{keys}]\nlabels = {list(part.labels)}\n{settings}"
        f"first_event_seconds_max = {4 * seconds}\nidle_seconds_max = {seconds}\n"
        f"seconds_max = {5 * seconds}\n"
        f'[[providers.models]]\nid = "acme/{case}"\nupstream_id = "{name}"\n'
        f"{rates.toml()}\n{part.more}\n"
    )
