"""The plugin: its settings and how an adapter is built from them."""

from plugins.anthropic.adapter import AnthropicAdapter
from plugins.contract import CONTRACT_VERSION, Plugin, ProviderSettings, Toolbox
from plugins.http.client import Client

BASE_URL = "https://api.anthropic.com"


class AnthropicSettings(ProviderSettings, frozen=True, kw_only=True):
    """``base_url`` is the part before ``/v1/messages``; a call's key goes out as ``x-api-key``.

    ``ca_file`` names a PEM file of a certificate authority to trust besides the usual ones.
    """

    ca_file: str | None = None


def _build(settings: AnthropicSettings, toolbox: Toolbox) -> AnthropicAdapter:
    """Raises ValueError, with the setting's name first, for a URL that cannot be used."""
    url = settings.base_url or BASE_URL
    client = Client(url, user_agent=toolbox.user_agent, ca_file=settings.ca_file)
    return AnthropicAdapter(client, toolbox)


PLUGIN = Plugin(
    name="anthropic",
    contract_version=CONTRACT_VERSION,
    title="Anthropic",
    settings=AnthropicSettings,
    build=_build,
)
