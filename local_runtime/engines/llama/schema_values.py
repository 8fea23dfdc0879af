"""Whether a value given in a schema (``enum``) keeps to the other keywords beside it."""

import math
import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Any

_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
}
_SIZES: dict[str, type[str] | type[list[Any]] | type[dict[str, Any]]] = {
    "Length": str,
    "Items": list,
    "Properties": dict,
}
KNOWN = frozenset(
    {"enum", "type", "multipleOf", *_BOUNDS}
    | {f"{side}{size}" for size in _SIZES for side in ("min", "max")}
)


def is_of(value: Any, name: str) -> bool:
    """Whether a value has the JSON Schema type ``name``."""
    if name == "integer":
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[name])


def fits(value: Any, flat: dict[str, Any]) -> bool:
    """Whether the keywords of ``KNOWN`` hold for it, ``enum`` aside."""
    types = flat.get("type")
    if types is not None and not any(is_of(value, name) for name in types):
        return False
    if is_of(value, "number"):
        if not math.isfinite(value):
            return False
        step = flat.get("multipleOf")
        if step is not None and Decimal(str(value)) % Decimal(str(step)):
            return False
        return all(check(value, flat[key]) for key, check in _BOUNDS.items() if key in flat)
    for name, kind in _SIZES.items():
        if isinstance(value, kind):
            least, most = flat.get(f"min{name}", 0), flat.get(f"max{name}")
            return len(value) >= least and (most is None or len(value) <= most)
    return True
