"""The plugin: its settings and how an adapter is built from them."""

from urllib.parse import urlsplit

from plugins.contract import CONTRACT_VERSION, Plugin, ProviderSettings, Toolbox
from plugins.openai_compatible.adapter import OpenAICompatibleAdapter
from plugins.openai_compatible.upstream import Upstream


class OpenAICompatibleSettings(ProviderSettings, frozen=True, kw_only=True):
    """``base_url`` is the part before ``/chat/completions``; ``api_key`` goes out as a bearer key.

    ``ca_file`` names a PEM file of a certificate authority to trust besides the usual ones, for
    servers on a private network. Certificates are always verified.
    """

    ca_file: str | None = None


def plugin(name: str, *, base_url: str | None = None) -> Plugin:
    """A plugin for one kind of OpenAI-compatible provider; ``base_url`` is its well-known one.

    A preset for a provider is one row: its name and its URL.
    """

    def build(settings: OpenAICompatibleSettings, toolbox: Toolbox) -> OpenAICompatibleAdapter:
        """Raises ValueError, with the setting's name first, for a URL that cannot be used."""
        url = _checked(settings.base_url or base_url)
        upstream = Upstream(url, settings.api_key, toolbox.user_agent, settings.ca_file)
        return OpenAICompatibleAdapter(upstream, settings.api_key, toolbox)

    return Plugin(
        name=name,
        contract_version=CONTRACT_VERSION,
        settings=OpenAICompatibleSettings,
        build=build,
    )


def _checked(base_url: str | None) -> str:
    if not base_url:
        raise ValueError(
            'base_url: missing; give the URL before "/chat/completions", '
            'such as "https://api.example.com/v1"'
        )
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url: expected http:// or https:// and a host, found {base_url!r}")
    if parts.username or parts.password:
        raise ValueError("base_url: holds a password; give the key as api_key")
    return base_url


PLUGIN = plugin("openai_compatible")
