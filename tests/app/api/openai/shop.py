"""The tasks' routes over a real gateway, ledger and adapter, served by uvicorn, with OpenAI's own
client in front and a played provider behind."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openai
import uvicorn
from litestar import Litestar

from app.api.auth import Authenticator, Permission
from app.api.calls import Calls
from app.api.connection import bounded_http
from app.api.endpoint import Handler, endpoint
from app.api.guard import Guard
from app.api.openai.audio import SpeechRoute, TranscriptionRoute
from app.api.openai.embeddings import EmbeddingRoute
from app.api.openai.images import ImageEdits, ImageGenerations
from app.api.openai.task_calls import TaskCalls
from app.api.openai.video_jobs import VideoJobs
from app.api.openai.videos import Videos
from app.api.repeats import Repeats
from app.billing.payers import Payers
from app.clock import SystemClock
from app.config import Server
from app.gateway.adapters import Adapters
from app.gateway.serve import Gateway
from app.gateway.tries import Tries, TryRules
from app.identity.confinement import Confinements
from app.identity.keys import KeyRing, KeyStore
from app.identity.own_keys import OwnKeys
from app.identity.preferred import PreferredOrders
from app.identity.users import UserStore
from app.ledger.entries import CreditTerms
from app.ledger.sqlite import SqliteLedger
from app.limits.concurrency import InFlight
from app.metering.tally import Tally
from app.routing.catalog import Catalog
from app.routing.health import Health
from app.routing.key_pools import KeyPools, ProviderKey
from app.routing.plan import Rules
from app.storage.sqlite import SqliteDatabase
from plugins.contract import Adapter, ModelEntry, Price, Toolbox
from plugins.openai_compatible.plugin import PLUGIN
from plugins.tasks import (
    FEATURE_EXTRACTION,
    IMAGE_TO_IMAGE,
    SPEECH_TO_TEXT,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    TEXT_TO_VIDEO,
    Media,
)
from tests.app.ledger.books import HandStandings
from tests.upstreams.tasks import PlayedTasks, mp4, png

BODY_BYTES_MAX = 256 * 1024
NANO_PER_PICTURE = 40_000_000
MODELS = (
    ModelEntry(
        id="acme/embed",
        upstream_id="e",
        tasks=(FEATURE_EXTRACTION,),
        price=Price(input=1_000_000_000),
    ),
    ModelEntry(
        id="acme/paint",
        upstream_id="p",
        tasks=(TEXT_TO_IMAGE, IMAGE_TO_IMAGE),
        price=Price(image=NANO_PER_PICTURE * 10**6),
    ),
    ModelEntry(
        id="acme/say",
        upstream_id="s",
        tasks=(TEXT_TO_SPEECH,),
        price=Price(character=15_000_000_000),
    ),
    ModelEntry(
        id="acme/hear",
        upstream_id="h",
        tasks=(SPEECH_TO_TEXT,),
        price=Price(audio_second=100_000),
    ),
    ModelEntry(
        id="acme/film",
        upstream_id="f",
        tasks=(TEXT_TO_VIDEO,),
        price=Price(video_second=1_000_000),
    ),
)


async def fetch(url: str) -> Media:
    """Plays the host's fetcher: files by how their URLs end."""
    if url.endswith(".mp4"):
        return Media(data=mp4(3), media_type="video/mp4", url=url)
    return Media(data=png(9), media_type="image/png", url=url)


@dataclass
class Shop:
    """What runs, and how to reach it."""

    database: SqliteDatabase
    ledger: SqliteLedger
    gateway: Gateway
    jobs: VideoJobs
    users: UserStore
    keys: KeyStore
    standings: HandStandings
    base_url: str = ""
    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    async def client(self, user: str) -> openai.AsyncOpenAI:
        """OpenAI's client with a key of this user's, who is made where they are new."""
        if user not in {each.name for each in await self.users.list()}:
            await self.users.add(user, "free")
        _, key = await self.keys.create(user, "laptop")
        client = openai.AsyncOpenAI(api_key=key, base_url=f"{self.base_url}/v1", max_retries=0)
        self.clients.append(client)
        return client

    async def charged(self) -> list[tuple[str, int]]:
        """(outcome, nano-USD) of every call, oldest first, once all have been settled."""
        async with asyncio.timeout(10):
            while self.gateway.in_flight.running or self.ledger.open_holds():  # noqa: ASYNC110 - a count has no event
                await asyncio.sleep(0.005)
        rows = await self.database.read(
            "SELECT outcome, cost_nano_usd FROM usage JOIN series ON id = series_id"
            " ORDER BY call_id"
        )
        return [(str(outcome), int(cost)) for outcome, cost in rows]


@asynccontextmanager
async def open_shop(data_dir: Path, played: PlayedTasks) -> AsyncIterator[Shop]:
    """The shop, listening on a free port."""
    clock = SystemClock()
    database = SqliteDatabase(data_dir / "turnpike.db", clock)
    standings = HandStandings(
        CreditTerms(tier="free", monthly_credit_nano_usd=10_000_000_000, overage=False)
    )
    ledger = SqliteLedger(database, clock, standings)
    await database.open()
    await ledger.recover()
    adapter = _adapter(played)
    await adapter.start()
    gateway = _gateway(ledger, {"played": adapter}, clock)
    users, keys = UserStore(database, clock, ["free"]), KeyStore(database, clock)
    keyring = KeyRing(database, keys, users, clock)
    jobs = VideoJobs(database, clock, data_dir, fetch)
    await jobs.open()
    shop = Shop(database, ledger, gateway, jobs, users, keys, standings)
    app = _app(shop, Authenticator(keyring, "admin"), clock)
    async with _listening(app) as base_url:
        shop.base_url = base_url
        yield shop
        for client in shop.clients:
            await client.close()
    await gateway.drain(0)
    await jobs.close()
    await adapter.close()
    await keyring.close()
    await database.close()


def _adapter(played: PlayedTasks) -> Adapter:
    toolbox = Toolbox(
        provider_id="played",
        models=MODELS,
        log=logging.getLogger("tests.shop"),
        monotonic_ns=time.monotonic_ns,
        user_agent="Turnpike/test",
        fetch=fetch,
    )
    return PLUGIN.build(PLUGIN.settings(base_url=played.base_url), toolbox)


def _gateway(ledger: SqliteLedger, adapters: dict[str, Adapter], clock: SystemClock) -> Gateway:
    health, tally = Health(clock), Tally()
    pools = KeyPools([ProviderKey(provider="played", name="1", secret="sk-played")], clock)
    tries = Tries(
        rules=TryRules(),
        adapters=Adapters(adapters),
        ledger=ledger,
        health=health,
        keys=pools,
        own_keys=None,
        clock=clock,
        tally=tally,
    )
    return Gateway(
        catalog=Catalog(adapters, 0),
        health=health,
        keys=pools,
        rules=Rules(default_policy="preferred"),
        tries=tries,
        ledger=ledger,
        clock=clock,
        in_flight=InFlight(100),
        tally=tally,
    )


def _app(shop: Shop, authenticator: Authenticator, clock: SystemClock) -> Guard:
    database = shop.database
    calls = Calls(
        clock,
        Payers(database, clock),
        Confinements(database, clock),
        PreferredOrders(database, clock),
        OwnKeys(database, clock),
    )
    tasks = TaskCalls(shop.gateway, calls, Repeats(database, clock), fetch)
    videos = Videos(shop.gateway, calls, shop.jobs, BODY_BYTES_MAX)
    routes: dict[str, Handler] = {
        "/v1/embeddings": EmbeddingRoute(tasks, BODY_BYTES_MAX),
        "/v1/images/generations": ImageGenerations(tasks, BODY_BYTES_MAX),
        "/v1/images/edits": ImageEdits(tasks, BODY_BYTES_MAX),
        "/v1/audio/speech": SpeechRoute(tasks, BODY_BYTES_MAX),
        "/v1/audio/transcriptions": TranscriptionRoute(tasks, BODY_BYTES_MAX),
    }
    handlers = [
        endpoint(
            path,
            handler,
            methods=frozenset({"POST"}),
            permission=Permission.CALL,
            authenticator=authenticator,
        )
        for path, handler in routes.items()
    ]
    handlers.append(
        endpoint(
            "/v1/videos",
            videos,
            methods=frozenset({"GET", "HEAD", "POST", "DELETE"}),
            permission=Permission.CALL,
            authenticator=authenticator,
            mount=True,
        )
    )
    return Guard(Litestar(route_handlers=handlers, openapi_config=None, logging_config=None))


class _Listener(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _listening(app: Guard) -> AsyncIterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = _Listener(
            uvicorn.Config(
                app,
                http=bounded_http(Server()),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=2,
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
