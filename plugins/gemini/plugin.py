"""The plugin: its settings and how an adapter is built from them."""

from plugins.contract import CONTRACT_VERSION, Plugin, ProviderSettings, Toolbox
from plugins.gemini.adapter import GeminiAdapter
from plugins.http.client import Client

BASE_URL = "https://generativelanguage.googleapis.com/v1beta"


class GeminiSettings(ProviderSettings, frozen=True, kw_only=True):
    """``base_url`` is the part before ``/models/…``; a call's key goes out as ``x-goog-api-key``.

    ``ca_file`` names a PEM file of a certificate authority to trust besides the usual ones.
    """

    ca_file: str | None = None


def _build(settings: GeminiSettings, toolbox: Toolbox) -> GeminiAdapter:
    """Raises ValueError, with the setting's name first, for one that cannot be used."""
    url = settings.base_url or BASE_URL
    client = Client(url, user_agent=toolbox.user_agent, ca_file=settings.ca_file)
    return GeminiAdapter(client, toolbox)


PLUGIN = Plugin(
    name="gemini",
    contract_version=CONTRACT_VERSION,
    title="Google Gemini",
    settings=GeminiSettings,
    build=_build,
)
