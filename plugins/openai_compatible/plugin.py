"""The plugins: one per preset, their settings, and how an adapter is built from them."""

from collections.abc import Mapping

import msgspec

from plugins.contract import CONTRACT_VERSION, Plugin, ProviderSettings, Toolbox
from plugins.http.client import Client
from plugins.openai_compatible.adapter import DiscoveringAdapter, OpenAICompatibleAdapter
from plugins.openai_compatible.preset import Preset
from plugins.openai_compatible.presets import GENERIC, PRESETS

_RESERVED = frozenset(
    {
        *("authorization", "api-key", "host", "content-length", "content-type", "accept"),
        *("accept-encoding", "transfer-encoding", "connection", "cookie"),
    }
)


class OpenAICompatibleSettings(ProviderSettings, frozen=True, kw_only=True):
    """``base_url`` is the part before ``/chat/completions``; a call's key goes out as a bearer key.

    ``ca_file`` names a PEM file of a certificate authority to trust besides the usual ones, for
    servers on a private network. Certificates are always verified. ``headers`` are sent with every
    request, such as ``HTTP-Referer`` for OpenRouter or ``X-HF-Bill-To`` for Hugging Face; no keys.
    """

    ca_file: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class AzureSettings(OpenAICompatibleSettings, frozen=True, kw_only=True):
    """``base_url`` is ``https://RESOURCE.openai.azure.com/openai/v1``, and the models' upstream ids
    are the names of deployments. ``api_version`` (such as ``2024-10-21``) asks for the API from
    before v1, which has the deployment in its path; ``/v1`` may then be left out.
    """

    api_version: str | None = None


def plugin(preset: Preset) -> Plugin:
    """The plugin for one kind of provider."""

    def build(settings: OpenAICompatibleSettings, toolbox: Toolbox) -> OpenAICompatibleAdapter:
        """Raises ValueError, with the setting's name first, for one that cannot be used."""
        url = settings.base_url or preset.base_url
        if not url:
            raise ValueError(
                'base_url: missing; give the URL before "/chat/completions", '
                'such as "https://api.example.com/v1"'
            )
        version = settings.api_version if isinstance(settings, AzureSettings) else None
        if version is not None:
            url = url.rstrip("/").removesuffix("/v1")
        headers = {**dict(preset.headers), **_checked(settings.headers)}
        client = Client(
            url, user_agent=toolbox.user_agent, ca_file=settings.ca_file, headers=headers
        )
        kind = OpenAICompatibleAdapter if preset.listing is None else DiscoveringAdapter
        return kind(client, toolbox, preset, api_version=version)

    return Plugin(
        name=preset.name,
        title=preset.title,
        needs_key=preset.needs_key,
        contract_version=CONTRACT_VERSION,
        settings=AzureSettings if preset.name == "azure_openai" else OpenAICompatibleSettings,
        build=build,
    )


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Names in lower case. Raises ValueError for what would not be a header of its own."""
    checked = {}
    for name, value in headers.items():
        lower = name.lower()
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"headers: {name!r} is no header's name")
        if lower in _RESERVED:
            raise ValueError(f"headers: {name!r} is set by the appliance itself")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"headers: the value of {name!r} has characters that no header has")
        checked[lower] = value
    return checked


PLUGIN = plugin(GENERIC)
PRESET_PLUGINS: tuple[Plugin, ...] = tuple(plugin(preset) for preset in PRESETS)
