"""What ``turnpike bundle apply`` brought to a site: its price book, and the models that it serves.

It lies in the data directory, in a file of its own, so that nobody's configuration is rewritten.
It fills in what the configuration leaves open: the price of a provider's model that has none, the
price of this machine's time where no price is given, and local models of names that are free. What
the configuration says itself always wins.
"""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from app.config_faults import Steps
from app.errors import ConfigError

CARRIED_FILE = "carried.json"
FORMAT = 1
PRICE_KEYS = ("price", "price_per_second", "prices", "free")
HARDWARE_KEYS = ("price_usd_per_second", "prices")
CARRIED_KEYS = frozenset({*PRICE_KEYS, *HARDWARE_KEYS})
"""Of a provider's model, or of the hardware."""
_AGAIN = (
    "Apply the bundle again, with `turnpike bundle apply`, or take the file out of a backup, which"
    " is a tar"
)


class Carried(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tables as the configuration has them. ``prices`` is by provider and model; ``at_ms`` is how
    old the bundle is (milliseconds since 1970), ``bundle`` the SHA-256 of its index once all of it
    was taken in.
    """

    format: int = FORMAT
    at_ms: int = 0
    bundle: str = ""
    hardware: dict[str, Any] = {}
    prices: dict[str, dict[str, dict[str, Any]]] = {}
    models: list[dict[str, Any]] = []


class CarriedDamaged(ConfigError):
    """What was carried cannot be read any more; the message says how it comes back."""


def read_carried(data_dir: Path) -> Carried | None:
    """None where no bundle was applied. Raises CarriedDamaged, or ConfigError for one that a newer
    program wrote.
    """
    path = data_dir / CARRIED_FILE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None  # whoever may not look into the data directory does not serve from it either
    except OSError as error:
        raise CarriedDamaged(f"{path}: cannot be read: {error.strerror}. {_AGAIN}") from error
    return decode_carried(data, str(path))


def decode_carried(data: bytes, source: str) -> Carried:
    """Raises CarriedDamaged, ConfigError."""
    try:
        carried = msgspec.json.decode(data, type=Carried)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CarriedDamaged(
            f"{source}: damaged, or from a newer Turnpike ({error}). {_AGAIN}"
        ) from error
    if carried.format != FORMAT:
        raise ConfigError(f"{source}: from a newer Turnpike; install that, and apply it again")
    return carried


def with_carried(raw: dict[str, Any], data_dir: str | None) -> tuple[dict[str, Any], list[Steps]]:
    """The decoded file with what was carried into its data directory, and where that now stands.

    ``data_dir`` wins over the file's. Raises ConfigError.
    """
    carried = read_carried(_data_dir(raw, data_dir))
    return (raw, []) if carried is None else overlaid(raw, carried)


def carried_places(file: Path | None, data_dir: str | None) -> list[Steps]:
    """Where what was carried stands in a configuration that can be loaded. Raises ConfigError."""
    raw: dict[str, Any] = {}
    if file is not None:
        raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    return with_carried(raw, data_dir)[1]


def overlaid(raw: dict[str, Any], carried: Carried) -> tuple[dict[str, Any], list[Steps]]:
    """The same for what is given; ``raw`` stays as it is. A file that is wrong is left alone."""
    found = copy.deepcopy(raw)
    added: list[Steps] = []
    local = found.get("local", {})
    if isinstance(local, dict):
        _add_hardware(local, carried, added)
        _add_models(local, carried, added)
        if local:
            found["local"] = local
    for at, provider in enumerate(_tables(found.get("providers"))):
        book = carried.prices.get(str(provider.get("id")), {})
        for n, model in enumerate(_tables(provider.get("models"))):
            terms = book.get(str(model.get("id")))
            if terms and not any(key in model for key in PRICE_KEYS):
                model.update(copy.deepcopy(terms))
                added += [("providers", at, "models", n, key) for key in terms]
    return found, added


def _add_hardware(local: dict[str, Any], carried: Carried, added: list[Steps]) -> None:
    hardware = local.get("hardware", {})
    if not isinstance(hardware, dict) or any(key in hardware for key in HARDWARE_KEYS):
        return
    terms = {key: value for key, value in carried.hardware.items() if key not in hardware}
    if terms:
        local["hardware"] = {**hardware, **copy.deepcopy(terms)}
        added += [("local", "hardware", key) for key in terms]


def _add_models(local: dict[str, Any], carried: Carried, added: list[Steps]) -> None:
    models = local.get("models", [])
    if not isinstance(models, list):
        return
    taken = {str(model.get("id")) for model in _tables(models)}
    for model in _tables(models):
        taken |= {str(each.get("id")) for each in _tables(model.get("adapters"))}
    more = [each for each in carried.models if str(each.get("id")) not in taken]
    if more:
        added += [("local", "models", len(models) + n) for n in range(len(more))]
        local["models"] = [*models, *copy.deepcopy(more)]


def _tables(value: Any) -> list[dict[str, Any]]:
    """The tables of a list, where it is one; their places stay what they are."""
    if not isinstance(value, list):
        return []
    return [each if isinstance(each, dict) else {} for each in value]


def _data_dir(raw: dict[str, Any], data_dir: str | None) -> Path:
    server = raw.get("server")
    said = server.get("data_dir") if isinstance(server, dict) else None
    given = data_dir or said
    if isinstance(given, str) and given:
        return Path(given).expanduser()
    try:
        return Path(platformdirs.user_data_dir("turnpike", appauthor=False))
    except RuntimeError:
        return Path()  # a user without a home, who is told where the folder is needed
