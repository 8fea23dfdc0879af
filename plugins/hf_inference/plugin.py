"""The plugin: its settings and how an adapter is built from them."""

from plugins.contract import CONTRACT_VERSION, Plugin, ProviderSettings, Toolbox
from plugins.hf_inference.adapter import HfInferenceAdapter
from plugins.http.client import Client

BASE_URL = "https://router.huggingface.co/hf-inference"
_BILL_TO = "x-hf-bill-to"


class HfInferenceSettings(ProviderSettings, frozen=True, kw_only=True):
    """``base_url`` is the part before ``/models/…``; a call's key goes out as a bearer key.

    ``bill_to`` is the organization that pays (``X-HF-Bill-To``). ``ca_file`` names a PEM file of a
    certificate authority to trust besides the usual ones.
    """

    bill_to: str | None = None
    ca_file: str | None = None


def _build(settings: HfInferenceSettings, toolbox: Toolbox) -> HfInferenceAdapter:
    """Raises ValueError, with the setting's name first, for one that cannot be used."""
    headers = {} if settings.bill_to is None else {_BILL_TO: _checked(settings.bill_to)}
    url = settings.base_url or BASE_URL
    client = Client(url, user_agent=toolbox.user_agent, ca_file=settings.ca_file, headers=headers)
    return HfInferenceAdapter(client, toolbox)


def _checked(bill_to: str) -> str:
    if not bill_to or not bill_to.isascii() or not bill_to.isprintable():
        raise ValueError("bill_to: expected the name of an organization")
    return bill_to


PLUGIN = Plugin(
    name="hf-inference",
    contract_version=CONTRACT_VERSION,
    title="HF Inference",
    settings=HfInferenceSettings,
    build=_build,
)
