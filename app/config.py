"""The TOML file as frozen Structs. Unknown keys and wrong types are refused with the key's path.

``config.example.toml`` shows every setting with its default; ``tests/docs`` compares the two.
"""

import os
import tomllib
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import platformdirs
from msgspec import Meta, field

from app.config_carried import with_carried
from app.config_faults import Fault, explain
from app.config_operations import Backups, Disk, Logs, Tracing
from app.config_providers import Provider
from app.config_routing import Egress, Plugins, Routing, Secrets
from app.config_rules import check
from app.config_types import (
    FEATURES,
    Feature,
    HttpUrl,
    Identifier,
    Modality,
    ModelName,
    Moment,
    Policy,
    ProcessBytes,
    Seconds,
    Table,
    Task,
    Usd,
)
from app.errors import ConfigError
from app.starter import STARTER_MODEL, STARTER_SOURCE, may_start_with_it

NANO_PER_USD = 10**9


class Server(Table, frozen=True):
    """Where it listens and what it bounds."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    data_dir: str | None = None
    body_bytes_max: Annotated[int, Meta(ge=1024, le=1 << 30)] = 16 * 1024 * 1024
    body_idle_seconds_max: Seconds = 30.0
    body_seconds_max: Seconds = 120.0
    unread_seconds_max: Seconds = 60.0
    connections_per_address_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    drain_seconds_max: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    heartbeat_seconds: Seconds = 15.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Tier(Table, frozen=True):
    """What a tier gives each UTC month, what happens past it, and what it costs.

    Where ``per`` is "seat", credit and price count once for each seat of the org, in one pool.
    ``overage_limit_usd`` is how far past the credit a payer's month may go, all seats together.
    """

    monthly_credit_usd: Usd = "0.00"
    overage: Literal["stop", "pay_as_you_go"] = "stop"
    overage_limit_usd: Usd | None = None
    price_usd: Usd = "0.00"
    per: Literal["account", "seat"] = "account"
    org: bool = False
    invoice_days: Annotated[int, Meta(ge=0, le=366)] = 0
    features: list[Feature] = []


class DatedHardwarePrice(Table, frozen=True, kw_only=True):
    """What a second of local compute costs from a moment on."""

    starts: Moment = field(name="from")
    price_usd_per_second: Usd


class Hardware(Table, frozen=True):
    """What local compute is billed as."""

    name: str = "cpu"
    price_usd_per_second: Usd = "0.00001"
    prices: list[DatedHardwarePrice] = []


class LocalAdapter(Table, frozen=True):
    """A LoRA adapter of a local model, served as a model of its own."""

    id: ModelName
    source: Annotated[str, Meta(pattern=r"^(file|package):.*$")]
    scale: Annotated[float, Meta(ge=-100, le=100)] = 1.0


class LocalHub(Table, frozen=True):
    """Where models are pulled from, and whose bundles are trusted."""

    endpoint: HttpUrl = "https://huggingface.co"
    token: str | None = None
    trusted_keys: list[Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]] = []


class LocalModel(Table, frozen=True):
    """A model file served on this machine."""

    id: ModelName
    source: Annotated[str, Meta(pattern=r"^(file|package|store|hf|fake):.*$")]
    pull: bool = False
    engine: Literal["auto", "llama", "torch", "fake"] = "auto"
    task: Literal["auto", "chat", "embedding", "rerank"] = "auto"
    context_length: Annotated[int, Meta(ge=128)] | None = None
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    parallel: Annotated[int, Meta(ge=1, le=64)] = 16
    batch_tokens: Annotated[int, Meta(ge=32, le=8192)] | None = None
    cache_type: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"] = (
        "f16"
    )
    flash_attention: bool | None = None
    gpu_layers: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    preload: bool = True
    keep: bool = False
    keep_alive_s: Annotated[float, Meta(ge=0, le=31_536_000)] | None = None
    process_bytes_max: ProcessBytes | None = None
    projector: Annotated[str, Meta(pattern=r"^(file|package):.*$")] | None = None
    speculation: bool = True
    draft: Annotated[str, Meta(pattern=r"^(file|package):.*$")] | None = None
    adapters: list[LocalAdapter] = []


class Local(Table, frozen=True):
    """The runtime that serves models on the owner's hardware."""

    placement: Literal["inline", "child", "ray"] = "child"
    hardware: Hardware = Hardware()
    queue_length_max: Annotated[int, Meta(ge=0, le=100_000)] = 256
    memory_bytes_max: Annotated[int, Meta(ge=1)] | None = None
    keep_alive_s: Annotated[float, Meta(ge=0, le=31_536_000)] = 0.0
    process_bytes_max: ProcessBytes = "auto"
    cold_wait_s_max: Annotated[float, Meta(ge=0, le=3600)] = 120.0
    step_s_max: Annotated[float, Meta(ge=1, le=3600)] = 120.0
    prefix_sharing: Literal["everyone", "payer", "user", "nobody"] = "everyone"
    models_folder: str | None = None
    hub: LocalHub = LocalHub()
    models: list[LocalModel] = []


class UsageLog(Table, frozen=True):
    """How long single calls are kept. The ledger and the sums per hour and day stay for ever."""

    keep_days: Annotated[int, Meta(ge=1, le=36_500)] = 90
    keep_bytes: Annotated[int, Meta(ge=1_000_000)] = 10_000_000_000


class Webhook(Table, frozen=True):
    """Who is told when a credit or a limit is nearly, or wholly, used up."""

    url: HttpUrl | None = None
    secret: str | None = None


class Invoices(Table, frozen=True):
    """What stands on every invoice."""

    seller_name: str = ""
    seller_address: list[str] = []
    number_prefix: Annotated[str, Meta(max_length=32)] = ""
    currency_note: str = "All amounts are in US dollars."


def _default_tiers() -> dict[str, Tier]:
    return {
        "free": Tier(monthly_credit_usd="0.10"),
        "pro": Tier(
            monthly_credit_usd="2.00",
            overage="pay_as_you_go",
            price_usd="9.00",
            features=["spending_limits"],
        ),
        "team": Tier(
            monthly_credit_usd="2.00",
            overage="pay_as_you_go",
            price_usd="20.00",
            per="seat",
            org=True,
            features=["resource_groups", "spending_limits", "provider_switches"],
        ),
        "enterprise": Tier(
            monthly_credit_usd="2.00",
            overage="pay_as_you_go",
            per="seat",
            org=True,
            invoice_days=30,
            features=list(FEATURES),
        ),
    }


class Config(Table, frozen=True):
    """The whole file."""

    server: Server = Server()
    tiers: dict[Identifier, Tier] = field(default_factory=_default_tiers)
    routing: Routing = Routing()
    providers: list[Provider] = []
    plugins: Plugins = Plugins()
    egress: Egress = Egress()
    secrets: Secrets = Secrets()
    local: Local = Local()
    usage: UsageLog = UsageLog()
    webhook: Webhook = Webhook()
    invoices: Invoices = Invoices()
    logs: Logs = Logs()
    tracing: Tracing = Tracing()
    backups: Backups = Backups()
    disk: Disk = Disk()

    def data_dir(self) -> Path:
        """The directory that holds everything this appliance remembers."""
        if self.server.data_dir:
            return Path(self.server.data_dir).expanduser()
        try:
            return Path(platformdirs.user_data_dir("turnpike", appauthor=False))
        except RuntimeError as error:
            raise ConfigError(
                "server.data_dir: this user has no home directory; name a folder with `data_dir`"
                " under [server], or with --data-dir"
            ) from error

    def models_folder(self) -> Path:
        """The folder of the models that were pulled and imported."""
        if self.local.models_folder:
            return Path(self.local.models_folder).expanduser()
        return self.data_dir() / "models"

    def backups_folder(self) -> Path:
        """The folder of the backups that are made without being asked for."""
        if self.backups.folder:
            return Path(self.backups.folder).expanduser().absolute()
        return self.data_dir().absolute() / "backups"

    def local_models(self) -> list[LocalModel]:
        """The configured local models; the starter model, where there is one, if nothing is."""
        if self.local.models or self.providers or not may_start_with_it():
            return list(self.local.models)
        return [LocalModel(id=STARTER_MODEL, source=STARTER_SOURCE)]


def nano_usd(usd: str) -> int:
    """Exact nano-USD of a decimal string of at most nine places."""
    return int(Decimal(usd).scaleb(9).to_integral_exact())


def load(path: Path | None, data_dir: str | None = None) -> Config:
    """Read the file (all defaults without one); ``data_dir`` wins over the file's.

    What a bundle carried into the data directory fills the gaps. Raises ConfigError with the path
    to the key, what was expected and what was found.
    """
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML: {error}") from error
    raw, _ = with_carried(raw, data_dir)
    return parse(raw, source=str(path or "defaults"), data_dir=data_dir)


def parse(raw: dict[str, Any], *, source: str, data_dir: str | None = None) -> Config:
    """Check a decoded file. What it leaves out of a shipped tier keeps that tier's default.

    Raises ConfigError for the first mistake; ``app.config_survey`` finds all of them.
    """
    raw = with_moments_as_text(raw)
    try:
        config = convert(raw)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {explained(str(error), raw)}") from error
    if data_dir is not None:
        server = msgspec.structs.replace(config.server, data_dir=data_dir)
        config = msgspec.structs.replace(config, server=server)
    check(config, source)
    return config


def convert(raw: dict[str, Any]) -> Config:
    """The file as Structs, its rules unchecked. Raises msgspec.ValidationError."""
    return msgspec.convert(_with_tier_defaults(raw), Config)


def explained(message: str, raw: dict[str, Any]) -> Fault:
    """What msgspec says about a decoded file, in words."""
    return explain(message, raw, _CHOICES, _fault, keys_at)


def keys_at(steps: Sequence[str | int]) -> list[str]:
    """The keys that the table at a place of the file may have; none where any may stand."""
    info: Any = msgspec.inspect.type_info(Config)
    for step in steps:
        if isinstance(info, msgspec.inspect.UnionType):
            info = next((t for t in info.types if hasattr(t, "fields")), None)
        if isinstance(info, msgspec.inspect.StructType):
            info = next((f.type for f in info.fields if f.encode_name == step), None)
        elif isinstance(info, msgspec.inspect.DictType):
            info = info.value_type
        elif isinstance(info, msgspec.inspect.ListType):
            info = info.item_type
        else:
            return []
    if isinstance(info, msgspec.inspect.UnionType):
        info = next((t for t in info.types if hasattr(t, "fields")), None)
    found = getattr(info, "fields", ())
    return [each.encode_name for each in found]


def _with_tier_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """A key that the file leaves out of a shipped tier keeps that tier's default."""
    tiers = raw.get("tiers")
    if not isinstance(tiers, dict):
        return raw
    shipped: dict[str, Any] = {
        name: msgspec.to_builtins(tier) for name, tier in _default_tiers().items()
    }
    merged = {
        name: {**shipped.get(name, {}), **tier} if isinstance(tier, dict) else tier
        for name, tier in tiers.items()
    }
    return {**raw, "tiers": shipped | merged}


def with_moments_as_text(value: Any) -> Any:
    """TOML's own dates as text, so that it makes no difference whether they are in quotes."""
    if isinstance(value, dict):
        return {key: with_moments_as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_moments_as_text(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


def _fault(raw: dict[str, Any]) -> str:
    """What msgspec says about a decoded file, or an empty string."""
    try:
        msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


_CHOICES = {
    "log_level": ("debug", "info", "warning", "error"),
    "overage": ("stop", "pay_as_you_go"),
    "placement": ("inline", "child", "ray"),
    "engine": ("auto", "llama", "torch", "fake"),
    "tasks": get_args(Task),
    "default_policy": get_args(Policy),
    "input_modalities": get_args(Modality),
    "output_modalities": get_args(Modality),
    "per": ("account", "seat"),
    "features": FEATURES,
    "format": ("text", "json"),
}


def secret(value: str | None, *, where: str) -> str | None:
    """Resolve ``env:NAME`` or ``file:PATH``.

    A literal is refused, and not repeated in the message: such files get shared and committed.
    """
    if value is None:
        return None
    scheme, _, rest = value.partition(":")
    if scheme == "env" and rest:
        found = os.environ.get(rest)
        if not found:
            raise ConfigError(f"{where}: environment variable {rest} is not set")
        return found.strip()
    if scheme == "file" and rest:
        try:
            found = Path(rest).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: {rest} cannot be read: {error}") from error
        if not found:
            raise ConfigError(f"{where}: {rest} is empty")
        return found
    raise ConfigError(f'{where}: expected "env:NAME" or "file:PATH", found a literal value')
