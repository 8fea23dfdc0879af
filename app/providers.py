"""Providers as configured → the adapters, keys and deadlines that calls go by.

Called at the start and at every reload. A provider whose adapter would be built the same way keeps
the one that it has, and its connections with it.
"""

import logging
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import msgspec

from app import version
from app.billing.prices import price_from_config
from app.billing.resolution import BillingApi
from app.clock import Clock
from app.config import Config, secret
from app.config_providers import Provider, ProviderModel
from app.errors import ConfigError
from app.gateway.attempt import Deadlines
from app.routing.key_pools import ProviderKey
from plugins.builtin import BUILTIN
from plugins.contract import Adapter, ModelEntry, Plugin, ProviderSettings, Toolbox
from plugins.discover import discover
from plugins.http.fetch import Fetcher
from plugins.vetting import PluginRefused

log = logging.getLogger("turnpike.providers")
SHIPPED = frozenset(plugin.name for plugin in BUILTIN)
VIDEO_BYTES_MAX = 512 * 1024 * 1024
VIDEO_SECONDS_MAX = 120.0
USER_AGENT = f"turnpike/{version.VERSION}"


def find_plugins(config: Config) -> Mapping[str, Plugin]:
    """Every plugin that can be used, by name. Raises ConfigError for one that cannot."""
    told = config.plugins
    folder = Path(told.folder).expanduser() if told.folder else None
    try:
        return discover(folder=folder, allow=told.allow)
    except PluginRefused as error:
        raise ConfigError(str(error)) from error


class Builder:
    """Builds the adapters of one configuration."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._plugins = find_plugins(config)
        self._fetcher = fetcher_of(config)

    def adapters(
        self, before: Config | None = None, built: Mapping[str, Adapter] | None = None
    ) -> dict[str, Adapter]:
        """One adapter per provider, in the order of the file; those of ``built`` that ``before``
        configured just so are kept. Raises ConfigError."""
        kept: dict[str, Adapter] = {}
        if before is not None and built is not None and before.egress == self._config.egress:
            same = {each.id: _makings(each) for each in before.providers}
            kept = {
                each.id: built[each.id]
                for each in self._config.providers
                if each.id in built
                and same.get(each.id) == _makings(each)
                and (each.plugin in SHIPPED or before.plugins == self._config.plugins)
            }
        return {
            provider.id: kept.get(provider.id) or self._adapter(provider, f"providers[{at}]")
            for at, provider in enumerate(self._config.providers)
        }

    def adapter(self, at: int) -> Adapter:
        """The adapter of one provider, by its place in the file. Raises ConfigError."""
        return self._adapter(self._config.providers[at], f"providers[{at}]")

    def warn_of_missing_keys(self) -> None:
        """Say which providers will refuse every call but those with users' own keys."""
        for provider in self._config.providers:
            needs_key = self._plugins[provider.plugin].needs_key
            if needs_key and not (provider.api_key or provider.api_keys):
                log.warning(
                    "provider %s has no api_key: only users with a key of their own can call it",
                    provider.id,
                )

    def _adapter(self, provider: Provider, where: str) -> Adapter:
        plugin = self._plugins.get(provider.plugin)
        if plugin is None:
            known = ", ".join(sorted(self._plugins))
            raise ConfigError(f"{where}.plugin: no plugin {provider.plugin!r}; there are: {known}")
        raw = dict(provider.settings)
        if provider.base_url is not None:
            raw["base_url"] = provider.base_url
        try:
            settings: ProviderSettings = msgspec.convert(raw, plugin.settings)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}.settings: {error}") from error
        billing = provider.billing
        toolbox = Toolbox(
            provider_id=provider.id,
            models=tuple(_entry(model) for model in provider.models),
            log=logging.getLogger(f"turnpike.provider.{provider.id}"),
            monotonic_ns=self._clock.monotonic_ns,
            user_agent=USER_AGENT,
            fetch=self._fetcher,
            request_id_header=None if billing is None else billing.request_id_header,
        )
        try:
            return plugin.build(settings, toolbox)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error


def fetcher_of(config: Config, *, large: bool = False) -> Fetcher:
    """What reads URLs of callers and providers; ``large``: videos too. Raises ConfigError."""
    if not large:
        return Fetcher(_networks(config), USER_AGENT)
    return Fetcher(
        _networks(config), USER_AGENT, bytes_max=VIDEO_BYTES_MAX, seconds_max=VIDEO_SECONDS_MAX
    )


def provider_keys(config: Config) -> list[ProviderKey]:
    """The operator's keys, read from where the configuration says they are. Raises ConfigError."""
    found = []
    for at, provider in enumerate(config.providers):
        where = f"providers[{at}]"
        first = secret(provider.api_key, where=f"{where}.api_key")
        if first is not None:
            found.append(ProviderKey(provider=provider.id, name="api_key", secret=first))
        for n, each in enumerate(provider.api_keys):
            text = secret(each.key, where=f"{where}.api_keys[{n}].key")
            found.append(
                ProviderKey(
                    provider=provider.id, name=f"api_keys[{n}]", secret=text, weight=each.weight
                )
            )
        if first is None and not provider.api_keys:
            found.append(ProviderKey(provider=provider.id, name="none", secret=None))
    return found


def deadlines(config: Config) -> dict[str, Deadlines]:
    """How long an attempt may take, by provider."""
    found = {
        provider.id: Deadlines(
            first_event_s=provider.first_event_seconds_max,
            idle_s=provider.idle_seconds_max,
            total_s=provider.seconds_max,
        )
        for provider in config.providers
    }
    # On one's own machine a call may wait for a model to load and for its turn.
    found["local"] = Deadlines(first_event_s=600.0, idle_s=120.0, total_s=1800.0)
    return found


def billing_apis(config: Config) -> list[BillingApi]:
    """The providers that are asked afterwards what calls cost. Raises ConfigError."""
    return [
        BillingApi(
            provider=provider.id,
            url=provider.billing.url,
            api_key=secret(provider.billing.api_key, where=f"providers[{at}].billing.api_key"),
        )
        for at, provider in enumerate(config.providers)
        if provider.billing is not None
    ]


def _makings(provider: Provider) -> tuple[object, ...]:
    """All of a provider that its adapter is built from."""
    return (
        provider.plugin,
        provider.base_url,
        provider.settings,
        provider.models,
        None if provider.billing is None else provider.billing.request_id_header,
    )


def _entry(model: ProviderModel) -> ModelEntry:
    return ModelEntry(
        id=model.id,
        upstream_id=model.upstream_id or model.id,
        tasks=tuple(model.tasks),
        price=price_from_config(model),
        context_length=model.context_length,
        output_tokens_max=model.output_tokens_max,
        supported_params=_set(model.supported_params),
        input_modalities=_set(model.input_modalities),
        output_modalities=_set(model.output_modalities),
        quantization=model.quantization,
        is_model_author=model.is_model_author,
    )


def _set(names: Sequence[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _networks(config: Config) -> list[IPv4Network | IPv6Network]:
    found = []
    for at, text in enumerate(config.egress.allowed_networks):
        try:
            found.append(ip_network(text))
        except ValueError as error:
            raise ConfigError(f"egress.allowed_networks[{at}]: {error}") from error
    return found
