"""Another configuration for a running appliance: SIGHUP, ``POST /api/reload``, ``turnpike reload``.

What can change without a restart: providers with their models, prices, keys and labels, how calls
are routed, how and at which level it logs, when and where it makes backups, and how much room it
keeps on the disk. All of it is read and built first, so a file with a
mistake in it changes nothing; then it is swapped at once. Calls that run keep what they were
planned with.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import msgspec

from app.api.admin.wire import Reloaded
from app.api.services import Services
from app.billing.prices import PriceBook
from app.billing.resolution import Resolution
from app.config import Config
from app.errors import ConfigError, Unprocessable
from app.gateway.adapters import Adapters
from app.gateway.serve import Gateway
from app.gateway.tries import TryRules
from app.jobs.discover_models import sources_of
from app.jobs.probe_offers import probe_rules
from app.logs.output import LogOutput
from app.providers import Builder, billing_apis, deadlines, provider_keys
from app.routing.labels import ConfiguredLabels
from app.routing.plan import Rules
from app.routing.probes import Prober
from app.storage.backup_folder import BackupFolder, BackupPlan, identity_of
from plugins.contract import Adapter

log = logging.getLogger("turnpike.reload")
RELOADED = ("providers", "routing", "egress", "plugins", "logs", "backups", "disk")


def rules_of(config: Config) -> Rules:
    """The operator's part in every plan."""
    routing = config.routing
    return Rules(
        default_policy=routing.default_policy,
        preferred=tuple(routing.preferred),
        aliases=routing.aliases,
    )


class Reloader:
    """Swaps the parts."""

    def __init__(
        self,
        reread: Callable[[], Config] | None,
        services: Services,
        gateway: Gateway,
        adapters: Adapters,
        resolution: Resolution,
        prober: Prober,
        logs: LogOutput | None = None,
    ) -> None:
        self._reread = reread
        self._services = services
        self._gateway = gateway
        self._adapters = adapters
        self._resolution = resolution
        self._prober = prober
        self._logs = logs
        self._one_at_a_time = asyncio.Lock()
        self.around: Callable[[], AbstractContextManager[None]] = nullcontext
        """Entered while the configuration is read and taken over."""

    async def reload(self) -> Reloaded:
        """Read the file again and take over what can be. Raises ConfigError; then nothing has
        changed."""
        if self._reread is None:
            raise Unprocessable("This appliance runs without a configuration file.")
        async with self._one_at_a_time:
            with self.around():
                return await self._reload(self._reread)

    async def _reload(self, reread: Callable[[], Config]) -> Reloaded:
        before = self._services.config
        read = await asyncio.to_thread(reread)
        config = taken_over(before, read)
        await self._take_over(before, config)
        reloaded = Reloaded(
            changed=_differing(before, config), needs_restart=_differing(config, read)
        )
        log.info("configuration reloaded: %s", ", ".join(reloaded.changed) or "no change")
        if reloaded.needs_restart:
            tables = ", ".join(f"[{name}]" for name in reloaded.needs_restart)
            log.warning("only a restart takes over what changed in %s: turnpike restart", tables)
        return reloaded

    async def _take_over(self, before: Config, config: Config) -> None:
        services, clock = self._services, self._services.clock
        current = self._adapters.current
        built = Builder(config, clock).adapters(before, current)
        keys, apis = provider_keys(config), billing_apis(config)
        prices, labels = PriceBook(config), ConfiguredLabels(config)
        plan = await asyncio.to_thread(backup_plan_of, config)
        use_logs = None if self._logs is None else self._logs.prepare(config)
        await _start([each for name, each in built.items() if current.get(name) is not each])
        # From here on nothing can fail.
        if "local" in current:
            built = {"local": current["local"], **built}
        self._adapters.replace(built)
        services.pools.replace(keys)
        services.config = config
        services.catalog.reconfigure(built, clock.now_ms(), prices, labels)
        self._gateway.rules = rules_of(config)
        self._gateway.tries.rules = try_rules_of(config)
        self._resolution.replace(apis)
        services.discoveries.replace(sources_of(config))
        services.catalog.rebuild(clock.now_ms())
        self._prober.replace(probe_rules(config))
        services.backups.plan = plan
        services.disk.reconfigure(
            free_bytes_min=config.disk.free_bytes_min, ballast_bytes=config.disk.ballast_bytes
        )
        if use_logs is not None:
            use_logs()


def taken_over(before: Config, read: Config) -> Config:
    """The configuration that runs after a reload: what can change is as it was read."""
    taken = {name: getattr(read, name) for name in RELOADED}
    server = msgspec.structs.replace(before.server, log_level=read.server.log_level)
    return msgspec.structs.replace(before, **taken, server=server)


def backup_plan_of(config: Config) -> BackupPlan | None:
    """Which backups are made without being asked for; None where there is no folder for them."""
    if not config.backups.folder:
        return None
    return BackupPlan(
        folder=BackupFolder(config.backups_folder(), identity_of(config.data_dir())),
        every_hours=config.backups.every_hours,
        keep=config.backups.keep,
    )


def _differing(one: Config, other: Config) -> list[str]:
    names = Config.__struct_fields__
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def try_rules_of(config: Config) -> TryRules:
    """The operator's part in how offers are tried."""
    return TryRules(
        attempts_max=config.routing.attempts_max,
        hedge_after_s=config.routing.hedge_after_seconds,
        deadlines=deadlines(config),
        billed_later=frozenset(each.id for each in config.providers if each.billing is not None),
        prefix_sharing=config.local.prefix_sharing,
    )


async def _start(adapters: list[Adapter]) -> None:
    started = []
    try:
        for adapter in adapters:
            await adapter.start()
            started.append(adapter)
    except OSError as error:
        for adapter in started:
            await adapter.close()
        raise ConfigError(f"a provider cannot be started: {error}") from error
