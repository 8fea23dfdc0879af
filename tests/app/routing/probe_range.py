"""A prober over a played provider, a real adapter and a real ledger, with time by hand."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.billing.rating import rate
from app.gateway.adapters import Adapters
from app.ledger.sqlite import SqliteLedger
from app.routing.catalog import Snapshot
from app.routing.health import Health
from app.routing.key_pools import KeyPools, ProviderKey
from app.routing.probe_results import ProbeResult, ProbeResults
from app.routing.probes import Prober, ProbeRules
from app.storage.sqlite import SqliteDatabase
from plugins.contract import Adapter, Offer, Price, Toolbox
from plugins.http.fetch import Fetcher
from plugins.openai_compatible.plugin import PLUGIN
from tests.app.identity.rig import HandClock
from tests.app.ledger.books import HandStandings
from tests.app.routing.chatting import Chatting
from tests.upstreams.serving import Serving

SECRET = "sk-planted-9a41"
PRICE = Price(input=200_000_000, output=600_000_000)  # 20 in, 10 out: 4 000 + 6 000 nano-USD
OFFER = Offer(model="acme/tiny", provider="acme", upstream_id="m", price=PRICE)
KEY = ("acme", "acme/tiny")
HOUR = 3600


class RealTime(HandClock):
    """A monotonic clock that goes by itself, and jumps when a test says so."""

    def monotonic_ns(self) -> int:
        return self.ticks_ns + time.monotonic_ns()


class Shelf:
    """What can be called, as a test says."""

    def __init__(self, offers: list[Offer]) -> None:
        self.put(offers)

    def put(self, offers: list[Offer]) -> None:
        models = {
            offer.model: tuple(o for o in offers if o.model == offer.model) for offer in offers
        }
        self._snapshot = Snapshot(models, 0)

    def snapshot_at(self, now_ms: int) -> Snapshot:
        return self._snapshot


@dataclass
class Range:
    """A prober and what stands around it."""

    chatting: Chatting
    server: Serving
    database: SqliteDatabase
    clock: RealTime
    health: Health
    keys: KeyPools
    ledger: SqliteLedger
    adapter: Adapter

    def prober(self, *, providers: frozenset[str] = frozenset({"acme"})) -> Prober:
        """A fresh one, as after a start; its results are empty until they are loaded."""
        return Prober(
            results=ProbeResults(self.database, self.clock),
            health=self.health,
            keys=self.keys,
            house=self.ledger,
            clock=self.clock,
            rate=rate,
            adapters=Adapters(dict.fromkeys(("acme", "beta", "gamma"), self.adapter)),
            rules=ProbeRules(providers=providers),
        )

    async def probe(self, offer: Offer = OFFER) -> ProbeResult:
        found = await self.prober().probe(offer)
        assert found is not None
        return found

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return await self.database.read(sql)


@asynccontextmanager
async def opened_range(path: Path) -> AsyncIterator[Range]:
    """All of it over one database file."""
    chatting, clock = Chatting(), RealTime()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Serving(chatting.play))
        database = SqliteDatabase(path, clock)
        ledger = SqliteLedger(database, clock, HandStandings())
        await database.open()
        stack.push_async_callback(database.close)
        toolbox = Toolbox(
            provider_id="acme",
            models=(),
            log=logging.getLogger("turnpike.provider.acme"),
            monotonic_ns=clock.monotonic_ns,
            user_agent="test",
            fetch=Fetcher((), "test"),
        )
        adapter = PLUGIN.build(PLUGIN.settings(base_url=f"{server.origin}/v1"), toolbox)
        await adapter.start()
        stack.push_async_callback(adapter.close)
        keys = [
            ProviderKey(provider=name, name="first", secret=SECRET)
            for name in ("acme", "beta", "gamma")
        ]
        pools = KeyPools(keys, clock)
        yield Range(chatting, server, database, clock, Health(clock), pools, ledger, adapter)
