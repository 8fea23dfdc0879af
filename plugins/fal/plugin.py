"""The plugin: its settings and how an adapter is built from them."""

from plugins.contract import CONTRACT_VERSION, Plugin, Toolbox
from plugins.fal.wire import FalWire
from plugins.http.client import Client
from plugins.queued.adapter import QueuedAdapter
from plugins.queued.settings import QueuedSettings

QUEUE_URL = "https://queue.fal.run"
DIRECT_URL = "https://fal.run"


class FalSettings(QueuedSettings, frozen=True, kw_only=True):
    """``direct`` asks fal's synchronous host instead of its queue: a little sooner for models that
    answer within seconds, but fal does not try again what its machines lost, and the provider's id
    of a call is known only when it is done. Leaving stops the work there.
    """

    direct: bool = False


def build(settings: FalSettings, toolbox: Toolbox) -> QueuedAdapter:
    """Raises ValueError, with the setting's name first, for what cannot be used."""
    usual = DIRECT_URL if settings.direct else QUEUE_URL
    client = Client(
        settings.base_url or usual, user_agent=toolbox.user_agent, ca_file=settings.ca_file
    )
    return QueuedAdapter(FalWire(direct=settings.direct), client, toolbox, settings.pace())


PLUGIN = Plugin(
    name="fal",
    contract_version=CONTRACT_VERSION,
    title="fal",
    settings=FalSettings,
    build=build,
)
