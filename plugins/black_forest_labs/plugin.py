"""The plugin: its settings and how an adapter is built from them."""

from plugins.black_forest_labs.wire import HOSTS, BlackForestLabsWire
from plugins.contract import CONTRACT_VERSION, Plugin, Toolbox
from plugins.http.client import Client
from plugins.queued.adapter import QueuedAdapter
from plugins.queued.settings import QueuedSettings

BASE_URL = "https://api.bfl.ai"


class BlackForestLabsSettings(QueuedSettings, frozen=True, kw_only=True):
    """``base_url`` is the part before ``/v1``; ``https://api.eu.bfl.ai`` keeps work in the EU."""


def build(settings: BlackForestLabsSettings, toolbox: Toolbox) -> QueuedAdapter:
    """Raises ValueError, with the setting's name first, for what cannot be used."""
    client = Client(
        settings.base_url or BASE_URL,
        user_agent=toolbox.user_agent,
        ca_file=settings.ca_file,
        hosts=HOSTS,
    )
    return QueuedAdapter(BlackForestLabsWire(), client, toolbox, settings.pace())


PLUGIN = Plugin(
    name="black_forest_labs",
    contract_version=CONTRACT_VERSION,
    title="Black Forest Labs",
    settings=BlackForestLabsSettings,
    build=build,
)
