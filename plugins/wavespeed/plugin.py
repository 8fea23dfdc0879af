"""The plugin: its settings and how an adapter is built from them."""

from plugins.contract import CONTRACT_VERSION, Plugin, Toolbox
from plugins.http.client import Client
from plugins.queued.adapter import QueuedAdapter
from plugins.queued.settings import QueuedSettings
from plugins.wavespeed.wire import WaveSpeedWire

BASE_URL = "https://api.wavespeed.ai"


class WaveSpeedSettings(QueuedSettings, frozen=True, kw_only=True):
    """``base_url`` is the part before ``/api/v3``."""


def build(settings: WaveSpeedSettings, toolbox: Toolbox) -> QueuedAdapter:
    """Raises ValueError, with the setting's name first, for what cannot be used."""
    client = Client(
        settings.base_url or BASE_URL, user_agent=toolbox.user_agent, ca_file=settings.ca_file
    )
    return QueuedAdapter(WaveSpeedWire(), client, toolbox, settings.pace())


PLUGIN = Plugin(
    name="wavespeed",
    contract_version=CONTRACT_VERSION,
    title="WaveSpeed",
    settings=WaveSpeedSettings,
    build=build,
)
