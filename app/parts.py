"""The rooms' objects, built from a configuration and from each other. Nothing here starts anything,
but for the delivery of traces: that, and the order of it, is ``app.boot``'s.
"""

import logging
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from app.api.repeats import Repeats
from app.api.services import Services
from app.billing.budgets import SpendingLimits
from app.billing.credit_book import CreditBook
from app.billing.events import EventLog
from app.billing.invoices import Composer, Invoices
from app.billing.month_closing import MonthClosing
from app.billing.overview import Overviews
from app.billing.own_costs import OwnCosts
from app.billing.payers import Payers
from app.billing.prices import PriceBook
from app.billing.rating import rate
from app.billing.spent import Spending
from app.billing.switches import Switches
from app.billing.tiers import Tiers
from app.config import Config, nano_usd, secret
from app.errors import ConfigError
from app.gateway.adapters import Adapters
from app.gateway.serve import Gateway
from app.gateway.tries import Tries
from app.identity.confinement import Confinements
from app.identity.groups import GroupStore
from app.identity.keys import KeyRing, KeyStore
from app.identity.master_keys import MasterKeySource
from app.identity.members import MemberStore
from app.identity.orgs import OrgStore
from app.identity.preferred import PreferredOrders
from app.identity.provider_keys import ProviderKeys
from app.identity.users import UserStore
from app.job_runs import JobRuns
from app.jobs.back_up import BackingUp
from app.jobs.deliver_events import EventDelivery, webhook_to
from app.jobs.discover_models import sources_of
from app.jobs.probe_offers import probe_rules
from app.jobs.usage_log import UsageKeeping
from app.ledger.audit import audit_file
from app.ledger.sqlite import SqliteLedger
from app.ledger.time import LedgerClock
from app.limits.concurrency import InFlight
from app.metering.segments import Segments
from app.metering.tally import Tally
from app.metering.usage import UsageLog
from app.model_store import hub_settings
from app.providers import Builder, fetcher_of
from app.reload import backup_plan_of, rules_of, try_rules_of
from app.routing.catalog import Catalog
from app.routing.discovery import Discoveries
from app.routing.health import Health
from app.routing.key_pools import KeyPools
from app.routing.labels import ConfiguredLabels
from app.routing.probe_results import ProbeResults
from app.routing.probes import Prober
from app.storage.backup_folder import BackupRecord
from app.storage.database import DATABASE_NAME
from app.storage.disk import DiskWatch
from app.storage.sqlite import SqliteDatabase
from app.storage.upgrade import Upgrade, Watch
from app.tracing.settings import settings_of
from local_runtime.adapter import LocalAdapter
from local_runtime.arrivals import Arrivals, located
from local_runtime.attachments import AdapterSource
from local_runtime.runtime import LocalModelSpec, LocalRuntime, RuntimeConfigError
from plugins.contract import Adapter

if TYPE_CHECKING:
    from app.tracing.tracer import Tracing

log = logging.getLogger("turnpike.boot")
CALLS_IN_FLIGHT_MAX = 16_384


def disk_of(config: Config) -> DiskWatch:
    """What looks after the data directory's disk."""
    return DiskWatch(
        config.data_dir(),
        free_bytes_min=config.disk.free_bytes_min,
        ballast_bytes=config.disk.ballast_bytes,
    )


def database_of(
    config: Config, clock: LedgerClock, watch: Watch, disk: DiskWatch
) -> SqliteDatabase:
    """The database, no upgrade of which begins without a backup."""
    data_dir = config.data_dir()
    upgrade = Upgrade(data_dir, config.backups_folder(), prove=audit_file, watch=watch)
    return SqliteDatabase(data_dir / DATABASE_NAME, clock, upgrade, disk.make_room)


def backing_up_of(config: Config, services: Services) -> BackingUp:
    """What makes backups, as ``services.backups`` says that they are to be made."""
    command = [*_this_program(), "--data-dir", str(config.data_dir().absolute())]
    return BackingUp(command, services.clock, services.backups)


def services_of(
    config: Config,
    database: SqliteDatabase,
    ledger: SqliteLedger,
    adapters: Adapters,
    clock: LedgerClock,
    tiers: Tiers,
    segments: Segments,
    disk: DiskWatch,
) -> Services:
    """Every room's front door."""
    pools = KeyPools((), clock)
    discoveries = Discoveries(database, clock, pools, adapters, sources_of(config))
    catalog = Catalog(
        adapters.current,
        clock.now_ms(),
        PriceBook(config),
        ConfiguredLabels(config),
        discoveries.offers,
    )
    discoveries.changed = lambda: catalog.rebuild(clock.now_ms())
    users = UserStore(database, clock, tiers.for_users())
    keys = KeyStore(database, clock)
    composer = Composer(config.invoices, tiers)
    return Services(
        config=config,
        clock=clock,
        disk=disk,
        backups=BackupRecord(backup_plan_of(config)),
        job_runs=JobRuns(),
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
        payers=Payers(database, clock),
        overviews=Overviews(database, ledger, clock),
        spending=Spending(database, clock),
        credit_book=CreditBook(database, ledger),
        events=EventLog(database),
        invoices=Invoices(database, clock, composer),
        closing=MonthClosing(database, clock, composer),
        repeats=Repeats(database, clock),
        health=Health(clock),
        catalog=catalog,
        pools=pools,
        discoveries=discoveries,
        probe_results=ProbeResults(database, clock),
        confinements=Confinements(database, clock),
        preferred=PreferredOrders(database, clock),
        provider_keys=ProviderKeys(
            database, clock, MasterKeySource(config.secrets, config.data_dir())
        ),
    )


def usage_keeping(
    config: Config, database: SqliteDatabase, segments: Segments, clock: LedgerClock
) -> UsageKeeping:
    """What keeps the usage log short."""
    return UsageKeeping(
        database,
        segments,
        clock,
        keep_days=config.usage.keep_days,
        keep_bytes=config.usage.keep_bytes,
    )


def delivery_of(config: Config, services: Services) -> EventDelivery | None:
    """What tells the webhook; None where none is configured. Raises ConfigError."""
    if config.webhook.url is None:
        return None
    key = secret(config.webhook.secret, where="webhook.secret")
    return EventDelivery(services.events, services.clock, webhook_to(config.webhook.url, key))


def gateway_of(config: Config, services: Services, adapters: Adapters) -> Gateway:
    """What serves calls."""
    tally = Tally()
    tries = Tries(
        rules=try_rules_of(config),
        adapters=adapters,
        ledger=services.ledger,
        health=services.health,
        keys=services.pools,
        own_keys=services.provider_keys.own,
        clock=services.clock,
        tally=tally,
    )
    return Gateway(
        catalog=services.catalog,
        health=services.health,
        keys=services.pools,
        rules=rules_of(config),
        tries=tries,
        ledger=services.ledger,
        clock=services.clock,
        in_flight=InFlight(CALLS_IN_FLIGHT_MAX, services.disk.refusal),
        tally=tally,
    )


def local_runtime(config: Config, *, serving: bool) -> tuple[LocalRuntime, Arrivals]:
    """The runtime, and what looks after models whose files are missing.

    A command that serves nothing works with any file missing.
    """
    specs = [
        LocalModelSpec(
            id=model.id,
            source=model.source,
            engine=model.engine,
            task=model.task,
            context_length=model.context_length,
            threads=model.threads,
            sequences_max=model.parallel,
            batch_tokens=model.batch_tokens,
            cache_type=model.cache_type,
            flash_attention=model.flash_attention,
            gpu_layers=model.gpu_layers,
            preload=model.preload,
            keep=model.keep,
            keep_alive_s=model.keep_alive_s,
            process_bytes_max=model.process_bytes_max,
            projector=model.projector,
            speculation=model.speculation,
            draft=model.draft,
            adapters=[
                AdapterSource(id=each.id, source=each.source, scale=each.scale)
                for each in model.adapters
            ],
        )
        for model in config.local_models()
    ]
    folder = config.models_folder()
    try:
        pulled = frozenset(model.id for model in config.local.models if model.pull)
        present, missing = located(specs, folder, pulled)
        runtime = LocalRuntime(
            present,
            placement=config.local.placement,
            command=[*_this_program(), "worker"],
            queue_length_max=config.local.queue_length_max,
            memory_bytes_max=config.local.memory_bytes_max,
            cold_wait_s_max=config.local.cold_wait_s_max,
            keep_alive_s=config.local.keep_alive_s,
            process_bytes_max=config.local.process_bytes_max,
            step_s_max=config.local.step_s_max,
        )
        return runtime, Arrivals(runtime, missing, folder, lambda: hub_settings(config))
    except RuntimeConfigError as error:
        if serving:
            raise ConfigError(str(error)) from error
        log.warning("local models are left out: %s", error)
        runtime = LocalRuntime([])
        return runtime, Arrivals(runtime, [], folder, lambda: hub_settings(config))


def _this_program() -> list[str]:
    """The children that run engines and make backups are this very program, frozen or not."""
    return [sys.executable, *([] if getattr(sys, "frozen", False) else ["-m", "app"])]


def tracing_of(config: Config, stack: AsyncExitStack) -> "Tracing | None":
    """What makes and delivers traces, begun, and ended with the stack; None where there is no
    collector. Raises ConfigError."""
    settings = settings_of(config)
    if settings is None:
        return None
    from app.tracing.tracer import Tracing

    tracing = Tracing(settings)
    tracing.delivery.start()
    stack.push_async_callback(tracing.delivery.close)
    return tracing


def adapters_of(config: Config, runtime: LocalRuntime, builder: Builder) -> Mapping[str, Adapter]:
    """One adapter per provider, in the order of the file, and the local runtime first."""
    adapters: dict[str, Adapter] = {}
    if config.local_models():
        per_second = nano_usd(config.local.hardware.price_usd_per_second)
        adapters["local"] = LocalAdapter(
            runtime, price_nano_usd_per_second=per_second, fetch=fetcher_of(config)
        )
    return {**adapters, **builder.adapters()}


def prober_of(config: Config, services: Services, adapters: Adapters) -> Prober:
    """What tries the offers from time to time."""
    return Prober(
        results=services.probe_results,
        health=services.health,
        keys=services.pools,
        house=services.ledger,
        clock=services.clock,
        rate=rate,
        adapters=adapters,
        rules=probe_rules(config),
    )
