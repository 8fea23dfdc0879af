"""A gateway over a real ledger file and adapters that follow a script."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.api.openai.wire import completion_body
from app.clock import SystemClock
from app.gateway.adapters import Adapters
from app.gateway.call import Call, Repeatable
from app.gateway.pump import Pump
from app.gateway.serve import Gateway
from app.gateway.tries import Tries, TryRules
from app.identity.own_keys import OwnKey, OwnKeys
from app.identity.principal import Principal
from app.ids import new_call_id
from app.ledger.entries import CreditTerms, IdempotencyKey
from app.ledger.sqlite import SqliteLedger
from app.limits.concurrency import InFlight
from app.metering.tally import Tally
from app.routing.catalog import Catalog
from app.routing.health import Health
from app.routing.key_pools import KeyPools, ProviderKey
from app.routing.plan import Rules
from app.storage.sqlite import SqliteDatabase
from plugins.chat import AssistantMessage, ChatRequest, Choice, ChoiceDelta, Delta, Message
from plugins.contract import (
    Adapter,
    Chunk,
    Completion,
    Event,
    InferenceCall,
    Offer,
    Price,
    Started,
    Usage,
    UsageReport,
)
from tests.app.ledger.books import HandStandings

Script = Callable[[InferenceCall], AsyncIterator[Event]]
PRICE = Price(input=1_000_000_000, output=2_000_000_000)  # 1,000 and 2,000 nano-USD a token


def words(*texts: str, finish: str | None = "stop") -> list[Chunk]:
    """One chunk a text, and one that finishes."""
    chunks = [Chunk([ChoiceDelta(index=0, delta=Delta(content=text))]) for text in texts]
    if finish is not None:
        chunks.append(Chunk([ChoiceDelta(index=0, delta=Delta(), finish_reason=finish)]))
    return chunks


def report(input_tokens: int = 10, output_tokens: int = 5, compute_ns: int = 0) -> UsageReport:
    """The last event."""
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, compute_ns=compute_ns)
    return UsageReport(usage)


COST = 10 * 1000 + 5 * 2000


async def good(order: InferenceCall) -> AsyncIterator[Event]:
    yield Started("up-1")
    if order.stream:
        for chunk in words("Hel", "lo"):
            yield chunk
    else:
        message = AssistantMessage(role="assistant", content="Hello")
        yield Completion([Choice(index=0, message=message, finish_reason="stop")])
    yield report()


class Scripted:
    """An adapter that plays what the test wrote; it remembers its orders and its closings."""

    def __init__(self, provider: str, script: Script, **offer: object) -> None:
        self.script = script
        self.orders: list[InferenceCall] = []
        self.closed_generators = 0
        self._offer = Offer(
            model="acme/tiny",
            provider=provider,
            upstream_id="m",
            **{"price": PRICE, "context_length": 1000, **offer},  # type: ignore[arg-type]
        )

    def offers(self) -> list[Offer]:
        return [self._offer]

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def asked(self) -> None:
        """Wait for the first order."""
        async with asyncio.timeout(10):
            while not self.orders:  # noqa: ASYNC110 - a list has no event
                await asyncio.sleep(0.005)

    async def infer(self, call: InferenceCall) -> AsyncIterator[Event]:
        self.orders.append(call)
        try:
            async for event in self.script(call):
                yield event
        finally:
            self.closed_generators += 1


def _broken(call: Call) -> tuple[int, bytes]:
    return 502, f"{call.id} broke off".encode()


@dataclass
class Bench:
    """The gateway under test and its parts."""

    gateway: Gateway
    ledger: SqliteLedger
    database: SqliteDatabase
    standings: HandStandings
    adapters: dict[str, Adapter]
    health: Health
    keys: KeyPools
    calls: list[Call] = field(default_factory=list)

    def call(
        self,
        *,
        stream: bool = False,
        bill_to: str | None = None,
        own_keys: Mapping[str, OwnKey] | None = None,
        explain: bool = False,
        key: IdempotencyKey | None = None,
        **params: object,
    ) -> Call:
        """A call of ann's; ``params`` are the request's."""
        clock = SystemClock()
        principal = Principal(user_id="user_1", user_name="ann", key_id="key_1")
        request = ChatRequest(
            messages=[Message(role="user", content="hello there")],
            stream=stream,
            **{"model": "acme/tiny", "max_tokens": 20, **params},  # type: ignore[arg-type]
        )
        made = Call(
            id=new_call_id(),
            principal=principal,
            request=request,
            body_bytes=100,
            admitted_at_ms=clock.now_ms(),
            started_ns=clock.monotonic_ns(),
            bill_to=bill_to,
            own_keys=own_keys or {},
            explain=explain,
            repeatable=None if key is None else Repeatable(key, completion_body, _broken),
        )
        self.calls.append(made)
        return made

    async def usage_rows(self) -> list[tuple[object, ...]]:
        """(outcome, provider, attempts, input, output, cost) of every call, oldest first."""
        return await self.database.read(
            "SELECT outcome, provider, attempts, input_tokens, output_tokens, cost_nano_usd"
            " FROM usage JOIN series ON id = series_id ORDER BY call_id"
        )

    async def settled(self) -> None:
        """Wait until every call has ended and no hold is open."""
        async with asyncio.timeout(10):
            while self.gateway.in_flight.running or self.ledger.open_holds():  # noqa: ASYNC110 - a count has no event
                await asyncio.sleep(0.005)


async def serve(bench: Bench, call: Call) -> Pump:
    """As far as the first bytes."""
    pump = bench.gateway.serve(call)
    await pump.ready()
    return pump


MakeBench = Callable[..., Bench]


@pytest.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[MakeBench]:
    """``make_bench(adapter, …)`` → Bench; providers are named by their offers."""
    clock = SystemClock()
    database = SqliteDatabase(tmp_path / "turnpike.db", clock)
    standings = HandStandings()
    ledger = SqliteLedger(database, clock, standings)
    await database.open()

    def make(
        *scripted: Scripted,
        credit_nano_usd: int = 100_000_000,
        calls_max: int = 1000,
        billed_later: tuple[str, ...] = (),
        pool: Sequence[ProviderKey] = (),
        own_keys: OwnKeys | None = None,
        hedge_after_s: float | None = None,
    ) -> Bench:
        standings.default = CreditTerms(
            tier="free", monthly_credit_nano_usd=credit_nano_usd, overage=False
        )
        adapters: dict[str, Adapter] = {each.offers()[0].provider: each for each in scripted}
        health, keys, tally = Health(clock), KeyPools(pool, clock), Tally()
        tries = Tries(
            rules=TryRules(billed_later=frozenset(billed_later), hedge_after_s=hedge_after_s),
            adapters=Adapters(adapters),
            ledger=ledger,
            health=health,
            keys=keys,
            own_keys=own_keys,
            clock=clock,
            tally=tally,
        )
        gateway = Gateway(
            catalog=Catalog(adapters, 0),
            health=health,
            keys=keys,
            rules=Rules(default_policy="preferred"),  # the order in which they were made
            tries=tries,
            ledger=ledger,
            clock=clock,
            in_flight=InFlight(calls_max),
            tally=tally,
        )
        return Bench(gateway, ledger, database, standings, adapters, health, keys)

    yield make
    await database.close()
