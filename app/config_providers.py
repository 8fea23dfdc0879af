"""The tables about providers: what they serve, at what price, and with which keys."""

from typing import Annotated, Any

from msgspec import Meta, field

from app.config_types import (
    HeaderName,
    HttpUrl,
    Identifier,
    Label,
    Modality,
    ModelName,
    Moment,
    Seconds,
    Table,
    Task,
    Usd,
)


class _Surcharges(Table, frozen=True):
    """What a price may have beside input and output, in USD per million tokens, per image, per
    million characters spoken, per second of sound heard or video made, or per call.
    """

    cache_read: Usd | None = None
    cache_write: Usd | None = None
    reasoning: Usd | None = None
    audio_input: Usd | None = None
    audio_output: Usd | None = None
    image: Usd | None = None
    characters: Usd | None = None
    audio_second: Usd | None = None
    video_second: Usd | None = None
    per_request: Usd | None = None


class TokenPrice(_Surcharges, frozen=True, kw_only=True):
    """A price as exact decimals: ``input`` and ``output`` in USD per million tokens."""

    input: Usd | None = None
    output: Usd | None = None


class DatedPrice(_Surcharges, frozen=True, kw_only=True):
    """The whole price of a model from a moment on: per token, or per second of compute, or both."""

    starts: Moment = field(name="from")
    input: Usd | None = None
    output: Usd | None = None
    per_second: Usd | None = None


class ProviderModel(Table, frozen=True):
    """One model that a provider serves. Without a price it is refused, unless ``free`` is true."""

    id: ModelName
    upstream_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    tasks: Annotated[list[Task], Meta(min_length=1)] = field(
        default_factory=lambda: ["conversational"]
    )
    price: TokenPrice | None = None
    price_per_second: Usd | None = None
    prices: list[DatedPrice] = []
    free: bool = False
    context_length: Annotated[int, Meta(ge=1)] | None = None
    output_tokens_max: Annotated[int, Meta(ge=1)] | None = None
    supported_params: list[str] | None = None
    input_modalities: list[Modality] | None = None
    output_modalities: list[Modality] | None = None
    quantization: str | None = None
    is_model_author: bool = False
    labels: list[Label] = []


class ProviderBilling(Table, frozen=True):
    """Where a provider says afterwards what calls cost: Hugging Face's partner billing protocol."""

    url: HttpUrl
    request_id_header: HeaderName = "Inference-Id"
    api_key: str | None = None


class ApiKey(Table, frozen=True):
    """One of several keys for a provider; ``weight`` is its share of the calls."""

    key: str
    weight: Annotated[int, Meta(ge=1, le=1000)] = 1


class Discover(Table, frozen=True):
    """Take over what the provider itself says that it serves. Where it says no price, ``price`` is
    the price, or ``free`` says that there is none; what has neither cannot be called. ``only`` and
    ``ignore`` are patterns of names, with ``*`` for any characters.
    """

    every_seconds: Seconds = 3600.0
    price: TokenPrice | None = None
    free: bool = False
    only: list[str] = []
    ignore: list[str] = []


class Provider(Table, frozen=True):
    """A company or machine that serves models, and the plugin that speaks to it."""

    id: Identifier
    plugin: str
    base_url: str | None = None
    api_key: str | None = None
    api_keys: list[ApiKey] = []
    labels: list[Label] = []
    trust_cost: bool = False
    settings: dict[str, Any] = {}
    models: list[ProviderModel] = []
    billing: ProviderBilling | None = None
    discover: Discover | None = None
    probe: bool = True
    first_event_seconds_max: Seconds = 60.0
    idle_seconds_max: Seconds = 30.0
    seconds_max: Seconds = 600.0
