"""The composition root: builds each object once and owns the order of starting and stopping.

Start: lock → database (migrations) → ledger (ends what a dead process held) → adapters → catalog →
gateway → application → jobs. Stop is the same order backwards, so that the last write of the last
call finds its ledger. Only this file and ``app.parts`` name the concrete parts.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from litestar.types import ASGIApp

from app.api.auth import Authenticator
from app.api.ledger_metrics import LedgerMetrics
from app.api.loop_watch import LoopWatch
from app.api.openai.video_jobs import VideoJobs
from app.api.process_metrics import LoopLag, ProcessMetrics
from app.api.server import Process, build
from app.api.services import Services
from app.billing.resolution import Resolution
from app.billing.standing import AccountStandings
from app.billing.tiers import Tiers
from app.clock import SystemClock, slept_ns
from app.config import Config
from app.errors import AlreadyRunning, ConfigError
from app.gateway.adapters import Adapters
from app.gateway.serve import Gateway
from app.jobs.probe_offers import OfferProbes
from app.jobs.schedule import Crew, Schedule
from app.jobs.watch_disk import watch_disk
from app.ledger.sqlite import SqliteLedger
from app.ledger.time import LedgerClock, open_clock
from app.ledger.verify import JournalWatch
from app.local_models import ServedModels
from app.logs.output import LogOutput
from app.metering.segments import Segments
from app.parts import (
    adapters_of,
    backing_up_of,
    database_of,
    delivery_of,
    disk_of,
    gateway_of,
    local_runtime,
    prober_of,
    services_of,
    tracing_of,
    usage_keeping,
)
from app.providers import USER_AGENT, Builder, billing_apis, fetcher_of, provider_keys
from app.reload import Reloader
from app.routing.probes import Prober
from app.storage.disk import DiskWatch
from app.storage.lock import SERVER_FILE, DataDirLock
from app.storage.sqlite import SqliteDatabase
from app.storage.upgrade import Watch, unwatched
from local_runtime.arrivals import Arrivals
from local_runtime.runtime import LocalRuntime

log = logging.getLogger("turnpike.boot")
LOCK_SECONDS_MAX = 3.0


@dataclass(frozen=True, slots=True)
class Appliance:
    """What runs."""

    asgi: ASGIApp
    admin_token: str
    services: Services
    gateway: Gateway
    runtime: LocalRuntime
    reloader: Reloader
    can_write: Callable[[], bool]
    """Whether the ledger's thread lives and takes work; not while it stops."""


@asynccontextmanager
async def open_appliance(
    config: Config,
    *,
    serving: bool,
    reread: Callable[[], Config] | None = None,
    logs: LogOutput | None = None,
    watch: Watch = unwatched,
    restart: Callable[[], Awaitable[Any]] | None = None,
) -> AsyncIterator[Appliance]:
    """Build and start everything, and stop it in order at the end.

    ``reread`` gives the configuration as it stands when a reload is asked for, ``logs`` is what the
    process logs by, where a reload is to change that, and ``watch`` is told of an upgrade of the
    database; ``restart`` begins to start the program anew. Without ``serving`` no engine, pool or
    job is started and no key read: enough for commands. Raises AlreadyRunning, ConfigError.
    """
    clock = LedgerClock(SystemClock(), slept_ns)
    async with AsyncExitStack() as stack:
        lock = DataDirLock(config.data_dir())
        await _acquire(lock, patient=serving and not (config.data_dir() / SERVER_FILE).exists())
        stack.callback(lock.release)
        tracing = tracing_of(config, stack) if serving else None
        disk = await _disk(config, serving=serving)
        database = database_of(config, clock, watch, disk)
        tiers, segments = Tiers(config), Segments(config.data_dir(), database, clock)
        ledger = SqliteLedger(database, clock, AccountStandings(tiers))
        await database.open()
        stack.push_async_callback(database.close)
        await open_clock(clock, database)
        for lost in await ledger.recover():
            log.warning("call %s was lost with the last process; nothing charged", lost.call_id)

        runtime, arrivals = local_runtime(config, serving=serving)
        builder = Builder(config, clock)
        adapters = Adapters(adapters_of(config, runtime, builder))
        services = services_of(config, database, ledger, adapters, clock, tiers, segments, disk)
        videos = VideoJobs(database, clock, config.data_dir(), fetcher_of(config, large=True))
        await _open(services, stack)
        if serving:
            builder.warn_of_missing_keys()
            await _start(services, adapters, stack)
            _await_arrivals(arrivals, services, stack)
            await videos.open()
        stack.push_async_callback(videos.close)
        gateway = gateway_of(config, services, adapters)
        stack.push_async_callback(gateway.drain, 0)
        apis = billing_apis(config) if serving else []
        resolution = Resolution(ledger, apis, clock.ages, USER_AGENT)
        prober = prober_of(config, services, adapters)
        reloader = Reloader(reread, services, gateway, adapters, resolution, prober, logs)
        journal = JournalWatch(database)
        told = LedgerMetrics(database, ledger, journal, clock)
        admin_token = secrets.token_urlsafe(32)
        asgi = build(
            server=config.server,
            services=services,
            gateway=gateway,
            authenticator=Authenticator(services.keyring, admin_token),
            ready_checks=lambda: _problems(database, journal, gateway, disk),
            process=Process(reloader.reload, restart, (_of_process(logs, stack), told), tracing),
            fetch=fetcher_of(config),
            videos=videos,
            local=ServedModels(runtime, gateway.in_flight, serving=serving),
        )
        if serving:
            crew = _crew(services, database, segments, resolution, journal, videos, prober)
            _keep(crew, disk, stack)
        yield Appliance(
            asgi, admin_token, services, gateway, runtime, reloader, lambda: database.can_write
        )


def _of_process(logs: LogOutput | None, stack: AsyncExitStack) -> ProcessMetrics:
    """What the metrics say of this process; begins to look how late its event loop is."""
    lag, loop_watch = LoopLag(), LoopWatch()
    lag.start()
    stack.callback(lag.stop)
    if logs is not None:  # a server; a command may be as busy as it likes
        loop_watch.start()
        stack.callback(loop_watch.stop)
    return ProcessMetrics(lag, loop_watch, lambda: 0 if logs is None else logs.lost)


def _crew(
    services: Services,
    database: SqliteDatabase,
    segments: Segments,
    resolution: Resolution,
    journal: JournalWatch,
    videos: VideoJobs,
    prober: Prober,
) -> Crew:
    """What the jobs work with. Raises ConfigError."""
    config, clock = services.config, services.clock
    return Crew(
        database=database,
        ledger=services.ledger,
        clock=clock,
        resolution=resolution,
        delivery=delivery_of(config, services),
        closing=services.closing,
        journal=journal,
        usage=usage_keeping(config, database, segments, clock),
        videos=videos,
        discoveries=services.discoveries,
        probes=OfferProbes(prober, services.catalog, clock),
        backing_up=backing_up_of(config, services),
        runs=services.job_runs,
    )


async def _disk(config: Config, *, serving: bool) -> DiskWatch:
    """The disk, and with ``serving`` a first look at it: a full one gets room before it is used."""
    disk = disk_of(config)
    if serving:
        await asyncio.to_thread(disk.start)
    return disk


def _await_arrivals(arrivals: Arrivals, services: Services, stack: AsyncExitStack) -> None:
    """Offer local models whose files are missing as soon as these are here."""
    arrivals.changed = lambda: services.catalog.rebuild(services.clock.now_ms())
    arrivals.start()
    stack.push_async_callback(arrivals.close)


def _keep(crew: Crew, disk: DiskWatch, stack: AsyncExitStack) -> None:
    """Start the jobs."""
    schedule = Schedule(crew)
    schedule.start()
    stack.callback(schedule.stop)
    watching = asyncio.create_task(watch_disk(disk, crew.runs), name="watch the disk")
    stack.callback(watching.cancel)


def _problems(
    database: SqliteDatabase, journal: JournalWatch, gateway: Gateway, disk: DiskWatch
) -> dict[str, str]:
    """Why no call can be served now, by the part that says so."""
    found = {}
    if database.failed is not None:
        found["ledger"] = "stopped after a failed write; restart the server"
    if journal.problem is not None:
        found["journal"] = journal.problem
    if disk.low:
        found["disk"] = "nearly full: no new calls are taken; the log says what to do"
    if gateway.in_flight.draining:
        found["server"] = "shutting down"
    return found


async def _open(services: Services, stack: AsyncExitStack) -> None:
    """Read what calls ask of memory. Raises ConfigError."""
    await services.confinements.load()
    await services.preferred.load()
    await services.discoveries.load()
    services.catalog.rebuild(services.clock.now_ms())
    await services.probe_results.load(services.health)
    stack.push_async_callback(services.provider_keys.close)
    stack.push_async_callback(services.keyring.close)


async def _start(services: Services, adapters: Adapters, stack: AsyncExitStack) -> None:
    """Read the keys, which only serving needs, and open pools and children. Raises ConfigError."""
    await services.provider_keys.open()
    services.pools.replace(provider_keys(services.config))
    stack.push_async_callback(adapters.close)
    for provider_id, adapter in adapters.current.items():
        try:
            await adapter.start()
        except OSError as error:
            raise ConfigError(f"provider {provider_id!r} cannot be started: {error}") from error


async def _acquire(lock: DataDirLock, *, patient: bool) -> None:
    """Take the directory's lock. A command has it for about a second, which is waited for; a
    server keeps it, and has a server file to show for it.
    """
    give_up_at = time.monotonic() + (LOCK_SECONDS_MAX if patient else 0)
    while True:
        try:
            lock.acquire()
        except AlreadyRunning:
            if time.monotonic() >= give_up_at:
                raise
            await asyncio.sleep(0.05)
        else:
            return
