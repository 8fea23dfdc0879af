"""The composition root: builds each object once and owns the order of starting and stopping.

Start: lock → database (migrations) → ledger (ends what a dead process held) → adapters → catalog →
gateway → application → jobs. Stop is the same order backwards, so that the last write of the last
call finds its ledger. Only this file names the concrete parts.
"""

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec
from litestar.types import ASGIApp

from app import version
from app.api.auth import Authenticator
from app.api.repeats import Repeats
from app.api.server import build
from app.api.services import Services
from app.billing.budgets import SpendingLimits
from app.billing.credit_book import CreditBook
from app.billing.events import EventLog
from app.billing.invoices import Composer, Invoices
from app.billing.month_closing import MonthClosing
from app.billing.overview import Overviews
from app.billing.own_costs import OwnCosts
from app.billing.payers import Payers
from app.billing.prices import PriceBook, price_from_config
from app.billing.resolution import BillingApi, Resolution
from app.billing.spent import Spending
from app.billing.standing import AccountStandings
from app.billing.switches import Switches
from app.billing.tiers import Tiers
from app.clock import Clock, SystemClock
from app.config import Config, Provider, nano_usd, secret
from app.errors import AlreadyRunning, ConfigError
from app.gateway.attempt import Deadlines
from app.gateway.serve import Gateway
from app.identity.groups import GroupStore
from app.identity.keys import KeyRing, KeyStore
from app.identity.members import MemberStore
from app.identity.orgs import OrgStore
from app.identity.users import UserStore
from app.jobs.deliver_events import EventDelivery, webhook_to
from app.jobs.schedule import Crew, Schedule
from app.jobs.usage_log import UsageKeeping
from app.ledger.sqlite import SqliteLedger
from app.ledger.time import LedgerClock, open_clock
from app.ledger.verify import JournalWatch
from app.limits.concurrency import InFlight
from app.metering.segments import Segments
from app.metering.tally import Tally
from app.metering.usage import UsageLog
from app.routing.catalog import Catalog
from app.routing.health import Health
from app.storage.database import DATABASE_NAME
from app.storage.lock import SERVER_FILE, DataDirLock
from app.storage.sqlite import SqliteDatabase
from local_runtime.adapter import LocalAdapter
from local_runtime.runtime import LocalModelSpec, LocalRuntime, RuntimeConfigError
from plugins.contract import Adapter, ModelEntry, Plugin, ProviderSettings, Toolbox
from plugins.discover import PluginRefused, discover

log = logging.getLogger("turnpike.boot")
LOCK_SECONDS_MAX = 3.0
CALLS_IN_FLIGHT_MAX = 4096
USER_AGENT = f"turnpike/{version.VERSION}"


@dataclass(frozen=True, slots=True)
class Appliance:
    """What runs."""

    asgi: ASGIApp
    admin_token: str
    services: Services
    gateway: Gateway
    runtime: LocalRuntime


@asynccontextmanager
async def open_appliance(config: Config, *, serving: bool) -> AsyncIterator[Appliance]:
    """Build and start everything, and stop it in order at the end.

    Without ``serving`` no engine, pool or job is started and no secret read: enough for the
    command line to use the /api surface in-process. Raises AlreadyRunning, ConfigError.
    """
    clock = LedgerClock(SystemClock())
    async with AsyncExitStack() as stack:
        lock = DataDirLock(config.data_dir())
        await _acquire(lock, patient=serving and not (config.data_dir() / SERVER_FILE).exists())
        stack.callback(lock.release)
        database = SqliteDatabase(config.data_dir() / DATABASE_NAME, clock)
        tiers, segments = Tiers(config), Segments(config.data_dir(), database, clock)
        ledger = SqliteLedger(database, clock, AccountStandings(tiers))
        await database.open()
        stack.push_async_callback(database.close)
        await open_clock(clock, database)
        for lost in await ledger.recover():
            log.warning("call %s was lost with the last process; nothing charged", lost.call_id)

        runtime = _local_runtime(config, serving=serving)
        adapters = _adapters(config, runtime, clock, serving=serving)
        services = _services(config, database, ledger, adapters, clock, tiers, segments)
        stack.push_async_callback(services.keyring.close)
        if serving:
            for provider_id, adapter in adapters.items():
                stack.push_async_callback(adapter.close)
                await _start(provider_id, adapter)
        gateway = _gateway(config, services, adapters)
        journal = JournalWatch(database)
        stack.push_async_callback(gateway.drain, 0)
        admin_token = secrets.token_urlsafe(32)

        def problems() -> dict[str, str]:
            found = {}
            if database.failed is not None:
                found["ledger"] = "stopped after a failed write; restart the server"
            if journal.problem is not None:
                found["journal"] = journal.problem
            if gateway.in_flight.draining:
                found["server"] = "shutting down"
            return found

        asgi = build(
            server=config.server,
            services=services,
            gateway=gateway,
            authenticator=Authenticator(services.keyring, admin_token),
            ready_checks=problems,
            local_models=lambda: {status.model: str(status.state) for status in runtime.status()},
        )
        if serving:
            resolution = Resolution(ledger, _billing_apis(config), clock.ages, USER_AGENT)
            schedule = Schedule(
                Crew(
                    database=database,
                    ledger=ledger,
                    clock=clock,
                    resolution=resolution,
                    delivery=_delivery(config, services),
                    closing=services.closing,
                    journal=journal,
                    usage=_usage_keeping(config, database, segments, clock),
                )
            )
            schedule.start()
            stack.callback(schedule.stop)
        yield Appliance(asgi, admin_token, services, gateway, runtime)


def _services(
    config: Config,
    database: SqliteDatabase,
    ledger: SqliteLedger,
    adapters: Mapping[str, Adapter],
    clock: LedgerClock,
    tiers: Tiers,
    segments: Segments,
) -> Services:
    users = UserStore(database, clock, tiers.for_users())
    keys = KeyStore(database, clock)
    composer = Composer(config.invoices, tiers)
    return Services(
        config=config,
        clock=clock,
        users=users,
        keys=keys,
        keyring=KeyRing(database, keys, users, clock),
        orgs=OrgStore(database, clock, tiers.for_orgs()),
        members=MemberStore(database, clock),
        groups=GroupStore(database, clock),
        switches=Switches(database, clock),
        limits=SpendingLimits(database, clock, tiers),
        tiers=tiers,
        ledger=ledger,
        usage=UsageLog(database, segments),
        costs=OwnCosts(database),
        payers=Payers(database),
        overviews=Overviews(database, ledger, clock),
        spending=Spending(database, clock),
        credit_book=CreditBook(database, ledger),
        events=EventLog(database),
        invoices=Invoices(database, clock, composer),
        closing=MonthClosing(database, clock, composer),
        repeats=Repeats(database, clock),
        health=Health(clock),
        catalog=Catalog(adapters, clock.now_ms(), PriceBook(config)),
    )


def _usage_keeping(
    config: Config, database: SqliteDatabase, segments: Segments, clock: LedgerClock
) -> UsageKeeping:
    return UsageKeeping(
        database,
        segments,
        clock,
        keep_days=config.usage.keep_days,
        keep_bytes=config.usage.keep_bytes,
    )


def _delivery(config: Config, services: Services) -> EventDelivery | None:
    """What tells the webhook; None where none is configured. Raises ConfigError."""
    if config.webhook.url is None:
        return None
    key = secret(config.webhook.secret, where="webhook.secret")
    return EventDelivery(services.events, services.clock, webhook_to(config.webhook.url, key))


def _gateway(config: Config, services: Services, adapters: Mapping[str, Adapter]) -> Gateway:
    return Gateway(
        catalog=services.catalog,
        adapters=adapters,
        deadlines=_deadlines(config),
        ledger=services.ledger,
        billed_later={each.id for each in config.providers if each.billing is not None},
        health=services.health,
        clock=services.clock,
        in_flight=InFlight(CALLS_IN_FLIGHT_MAX),
        tally=Tally(),
    )


async def _start(provider_id: str, adapter: Adapter) -> None:
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


def _local_runtime(config: Config, *, serving: bool) -> LocalRuntime:
    """The runtime; a command that serves nothing works with a model's file missing too."""
    specs = [
        LocalModelSpec(
            id=model.id,
            source=model.source,
            engine=model.engine,
            context_length=model.context_length,
            threads=model.threads,
            preload=model.preload,
        )
        for model in config.local_models()
    ]
    try:
        return LocalRuntime(
            specs,
            placement=config.local.placement,
            command=_worker_command(),
            queue_length_max=config.local.queue_length_max,
        )
    except RuntimeConfigError as error:
        if serving:
            raise ConfigError(str(error)) from error
        log.warning("local models are left out: %s", error)
        return LocalRuntime([])


def _worker_command() -> list[str]:
    """The child that runs an engine is this very program, frozen or not."""
    return [sys.executable, *([] if getattr(sys, "frozen", False) else ["-m", "app"]), "worker"]


def _adapters(
    config: Config, runtime: LocalRuntime, clock: Clock, *, serving: bool
) -> Mapping[str, Adapter]:
    """One adapter per provider, in the order of the file, and the local runtime first.

    Provider secrets are only read to serve: the command line needs none of them.
    """
    adapters: dict[str, Adapter] = {}
    if config.local_models():
        per_second = nano_usd(config.local.hardware.price_usd_per_second)
        adapters["local"] = LocalAdapter(runtime, price_nano_usd_per_second=per_second)
    try:
        plugins = discover()
    except PluginRefused as error:
        raise ConfigError(str(error)) from error
    for at, provider in enumerate(config.providers):
        where = f"providers[{at}]"
        api_key = secret(provider.api_key, where=f"{where}.api_key") if serving else None
        adapters[provider.id] = _adapter(provider, where, api_key, plugins, clock)
    return adapters


def _adapter(
    provider: Provider,
    where: str,
    api_key: str | None,
    plugins: Mapping[str, Plugin],
    clock: Clock,
) -> Adapter:
    plugin = plugins.get(provider.plugin)
    if plugin is None:
        known = ", ".join(sorted(plugins))
        raise ConfigError(f"{where}.plugin: no plugin {provider.plugin!r}; there are: {known}")
    raw = dict(provider.settings)
    if provider.base_url is not None:
        raw["base_url"] = provider.base_url
    if api_key is not None:
        raw["api_key"] = api_key
    try:
        settings: ProviderSettings = msgspec.convert(raw, plugin.settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}.settings: {error}") from error
    toolbox = Toolbox(
        provider_id=provider.id,
        models=tuple(
            ModelEntry(
                id=model.id,
                upstream_id=model.upstream_id or model.id,
                task=model.task,
                price=price_from_config(model),
                context_length=model.context_length,
                output_tokens_max=model.output_tokens_max,
            )
            for model in provider.models
        ),
        log=logging.getLogger(f"turnpike.provider.{provider.id}"),
        monotonic_ns=clock.monotonic_ns,
        user_agent=USER_AGENT,
        request_id_header=None if provider.billing is None else provider.billing.request_id_header,
    )
    try:
        return plugin.build(settings, toolbox)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _billing_apis(config: Config) -> list[BillingApi]:
    """The providers that are asked afterwards what calls cost."""
    return [
        BillingApi(
            provider=provider.id,
            url=provider.billing.url,
            api_key=secret(provider.billing.api_key, where=f"providers[{at}].billing.api_key"),
        )
        for at, provider in enumerate(config.providers)
        if provider.billing is not None
    ]


def _deadlines(config: Config) -> dict[str, Deadlines]:
    deadlines = {
        provider.id: Deadlines(
            first_event_s=provider.first_event_seconds_max,
            idle_s=provider.idle_seconds_max,
            total_s=provider.seconds_max,
        )
        for provider in config.providers
    }
    # On one's own machine a call may wait for a model to load and for its turn.
    deadlines["local"] = Deadlines(first_event_s=600.0, idle_s=120.0, total_s=1800.0)
    return deadlines
