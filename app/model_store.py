"""The store of models as configured: its folder, the Hub behind it, whose bundles are trusted."""

import os

from app.config import Config, secret
from local_runtime.store.catalog import Store
from local_runtime.store.hub import HubSettings


def open_store(config: Config) -> Store:
    """The models' folder, made where it is missing. Raises StoreError, OSError."""
    folder = config.models_folder()
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Store(folder)


def hub_settings(config: Config, token: str | None = None) -> HubSettings:
    """Where models are pulled from, and with which token: ``token`` ("env:NAME" or "file:PATH")
    before the configured one before HF_TOKEN. Raises ConfigError.
    """
    hub = config.local.hub
    found = (
        secret(token, where="--token")
        if token is not None
        else secret(hub.token, where="local.hub.token") or os.environ.get("HF_TOKEN")
    )
    return HubSettings(hub.endpoint.rstrip("/"), found or None)


def trusted_keys(config: Config) -> list[str]:
    """The public keys whose bundles are taken in."""
    return list(config.local.hub.trusted_keys)
