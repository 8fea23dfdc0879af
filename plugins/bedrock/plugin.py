"""The plugin: its settings and how an adapter is built from them."""

import re

from plugins.bedrock.adapter import BedrockAdapter
from plugins.contract import CONTRACT_VERSION, Plugin, ProviderSettings, Toolbox
from plugins.http.client import Client

_REGION = re.compile(r"[a-z]{2,3}(?:-[a-z]+){1,3}-\d{1,2}")
_REGION_IN_HOST = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")


class BedrockSettings(ProviderSettings, frozen=True, kw_only=True):
    """``region`` is AWS's (``us-east-1``): it makes the URL, and signatures are good for it only.
    ``base_url`` is the part before ``/model``, where another one is meant.

    A call's key is ``ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]`` or a Bedrock API key.
    ``ca_file`` names a PEM file of a certificate authority to trust besides the usual ones.
    """

    region: str | None = None
    ca_file: str | None = None


def _build(settings: BedrockSettings, toolbox: Toolbox) -> BedrockAdapter:
    """Raises ValueError, with the setting's name first, for what cannot be used."""
    region, url = settings.region, settings.base_url
    if region is None and url is not None and (found := _REGION_IN_HOST.search(url)):
        region = found[1]
    if region is None:
        raise ValueError('region: missing; give the AWS region, such as "us-east-1"')
    if not _REGION.fullmatch(region):
        raise ValueError(f"region: not an AWS region: {region!r}")
    url = url or f"https://bedrock-runtime.{region}.amazonaws.com"
    client = Client(url, user_agent=toolbox.user_agent, ca_file=settings.ca_file)
    return BedrockAdapter(client, toolbox, base_url=url, region=region)


PLUGIN = Plugin(
    name="bedrock",
    contract_version=CONTRACT_VERSION,
    title="Amazon Bedrock",
    settings=BedrockSettings,
    build=_build,
)
