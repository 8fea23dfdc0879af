"""Whether providers can be reached, and take the keys that they are called with.

Each gets one request at most: its list of models, where the plugin can ask for that and there is a
key to ask with, and else a connection that nothing is sent on. All are asked at the same time.
"""

import asyncio
from collections.abc import Callable

from app.clock import SystemClock
from app.config import Config, secret
from app.config_faults import Steps, shown
from app.config_providers import Provider
from app.doctor.finding import Finding, Teller
from app.errors import ConfigError
from app.providers import Builder, find_plugins
from plugins.contract import Adapter, AdapterError, Discovering, FailureKind, Reaching

SECONDS_MAX = 10.0
_tell = Teller("providers")


def check_providers(
    config: Config, *, offline: bool, in_the_file: Callable[[Steps], Steps] = tuple
) -> list[Finding]:
    """Asks each; with ``offline`` nobody. Those that cannot be built were told elsewhere.

    ``in_the_file``: see ``app.config_survey.Survey``.
    """
    if not config.providers:
        return [_tell.ok("providers.none", "none are configured")]
    if offline:
        return [_tell.ok("providers.not_asked", "not asked (--offline)")]
    try:
        builder = Builder(config, SystemClock())
        plugins = find_plugins(config)
    except ConfigError:
        return [_tell.ok("providers.not_asked", "not asked: their plugins cannot be loaded")]
    adapters = []
    for at, provider in enumerate(config.providers):
        try:
            adapter = builder.adapter(at)
        except ConfigError:
            continue
        setting = shown(in_the_file(("providers", at)))
        adapters.append((setting, provider, adapter, plugins[provider.plugin].needs_key))

    async def ask_all() -> list[Finding]:
        return await asyncio.gather(*(_ask(*each) for each in adapters))

    return asyncio.run(ask_all())


async def _ask(setting: str, provider: Provider, adapter: Adapter, needs_key: bool) -> Finding:
    key = _key_of(provider)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            await adapter.start()
            try:
                return await _said(provider, adapter, key, needs_key)
            finally:
                await adapter.close()
    except TimeoutError:
        text = f"{provider.id} did not answer within {SECONDS_MAX:.0f} s"
        return _unreachable(text, provider, setting)
    except OSError as error:
        return _unreachable(f"{provider.id}: {error}", provider, setting)
    except AdapterError as error:
        return _of_failure(error, provider, setting)


async def _said(provider: Provider, adapter: Adapter, key: str | None, needs_key: bool) -> Finding:
    if isinstance(adapter, Discovering) and (key is not None or not needs_key):
        entries = await adapter.discover(key)
        taken = "takes the key and " if key is not None else ""
        return _tell.ok("provider.ok", f"{provider.id} {taken}lists {len(entries)} models")
    if isinstance(adapter, Reaching):
        await adapter.reach()
        return _tell.ok("provider.ok", f"{provider.id} can be reached; its key was not tried")
    return _tell.ok("provider.ok", f"{provider.id} cannot be asked: its plugin has no way to")


def _of_failure(error: AdapterError, provider: Provider, setting: str) -> Finding:
    why = f"{error.message}" + (f" ({error.detail})" if error.detail else "")
    if error.kind is FailureKind.AUTH:
        # Its own words are not shown: they may repeat the key.
        what = "the key" if provider.api_key or provider.api_keys else "to answer without a key"
        status = "" if error.status is None else f" (HTTP {error.status})"
        return _tell.problem(
            "provider.key_refused",
            f"{provider.id} refuses {what}{status}",
            f"Put a key that is good where {setting}.api_key says that it is",
            path=setting,
        )
    if error.kind in {FailureKind.CONNECT, FailureKind.TIMEOUT}:
        return _unreachable(f"{provider.id}: {why}", provider, setting)
    if error.kind is FailureKind.RATE_LIMITED:
        return _tell.ok("provider.ok", f"{provider.id} answers, and asks to wait: {error.message}")
    # It is there, and does not list its models: that is no reason to doubt the rest.
    return _tell.warning(
        "provider.no_list",
        f"{provider.id} answers, but not with its models: {why}",
        f"Check {setting}.base_url; if calls work, nothing is wrong",
        path=setting,
    )


def _unreachable(text: str, provider: Provider, setting: str) -> Finding:
    where = provider.base_url or "its usual address"
    said = text.lower()
    by_date = "certificate" in said and ("not yet valid" in said or "expired" in said)
    first = "Look at the machine's clock (date): certificates go by it. " if by_date else ""
    return _tell.problem(
        "provider.unreachable",
        text,
        f"{first}Check {setting}.base_url ({where}), the network and HTTPS_PROXY;"
        " --offline asks nobody",
        path=setting,
    )


def _key_of(provider: Provider) -> str | None:
    """The first key that there is; one that cannot be had was told with the configuration."""
    for reference in (provider.api_key, *(each.key for each in provider.api_keys)):
        try:
            found = secret(reference, where="")
        except ConfigError:
            continue
        if found is not None:
            return found
    return None
