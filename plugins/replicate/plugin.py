"""The plugin: its settings and how an adapter is built from them."""

from plugins.contract import CONTRACT_VERSION, Plugin, Toolbox
from plugins.http.client import Client
from plugins.queued.adapter import QueuedAdapter
from plugins.queued.settings import QueuedSettings
from plugins.replicate.wire import ReplicateWire

BASE_URL = "https://api.replicate.com"


class ReplicateSettings(QueuedSettings, frozen=True, kw_only=True):
    """``base_url`` is the part before ``/v1``."""


def build(settings: ReplicateSettings, toolbox: Toolbox) -> QueuedAdapter:
    """Raises ValueError, with the setting's name first, for what cannot be used."""
    client = Client(
        settings.base_url or BASE_URL, user_agent=toolbox.user_agent, ca_file=settings.ca_file
    )
    return QueuedAdapter(ReplicateWire(), client, toolbox, settings.pace())


PLUGIN = Plugin(
    name="replicate",
    contract_version=CONTRACT_VERSION,
    title="Replicate",
    settings=ReplicateSettings,
    build=build,
)
