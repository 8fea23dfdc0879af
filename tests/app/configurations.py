"""Configurations of every shape, for laws that hold for all of them."""

import re
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from app.config import Config

REFERENCES = frozenset(
    {"api_key", "key", "secret", "token", "master_key", "old_master_keys", "headers"}
)
# "@" could be a password in a URL, which is not shown; other texts have every character there is.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@"), max_size=12)
_REFERENCE = st.sampled_from(["env:A_KEY", "file:/run/secrets/key", 'file:C:\\a "b"'])
_SETTING_NAMES = st.sampled_from(["a", "b c", "ü", "deep", "x.y", '"', "n\n"])
SETTINGS = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.times()
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_SETTING_NAMES, inner, max_size=3),
    max_leaves=6,
)


def raw_configurations() -> st.SearchStrategy[dict[str, Any]]:
    """Decoded files of right types; the rules between keys may be broken."""
    return values(inspect.type_info(Config), "")


def values(kind: inspect.Type, name: str) -> st.SearchStrategy[Any]:
    """Values of a type, as they stand in a file."""
    if isinstance(kind, inspect.StructType):
        return _tables(kind)
    if isinstance(kind, inspect.UnionType):
        return st.one_of(*(values(t, name) for t in kind.types if not _is_none(t)))
    if isinstance(kind, inspect.ListType):
        return st.lists(values(kind.item_type, name), min_size=kind.min_length or 0, max_size=2)
    if isinstance(kind, inspect.DictType):
        if isinstance(kind.value_type, inspect.AnyType):
            return st.dictionaries(_SETTING_NAMES, SETTINGS, max_size=3)
        keys, inner = values(kind.key_type, ""), values(kind.value_type, name)
        return st.dictionaries(keys, inner, max_size=2)
    if isinstance(kind, inspect.LiteralType):
        return st.sampled_from(kind.values)
    return _scalars(kind, name)


def _scalars(kind: inspect.Type, name: str) -> st.SearchStrategy[Any]:
    if isinstance(kind, inspect.BoolType):
        return st.booleans()
    if isinstance(kind, inspect.IntType):
        low = kind.ge if kind.ge is not None else -(2**63)
        return st.integers(low, kind.le if kind.le is not None else 2**63 - 1)
    if isinstance(kind, inspect.FloatType):
        low_f = kind.ge if kind.ge is not None else kind.gt
        return st.floats(low_f, kind.le, exclude_min=kind.gt is not None, allow_nan=False)
    if isinstance(kind, inspect.StrType):
        if name in REFERENCES:
            return _REFERENCE
        if kind.pattern is not None:
            matching = st.from_regex(re.compile(kind.pattern))
            return matching.filter(lambda text: "@" not in text and len(text) < 100)
        return TEXT.filter(lambda t: (kind.min_length or 0) <= len(t) <= (kind.max_length or 99))
    raise AssertionError(f"{kind} is not a type that a file has")


def _tables(kind: inspect.StructType) -> st.SearchStrategy[dict[str, Any]]:
    required = {f.encode_name: values(f.type, f.name) for f in kind.fields if f.required}
    optional = {f.encode_name: values(f.type, f.name) for f in kind.fields if not f.required}
    return st.fixed_dictionaries(required, optional=optional)


def _is_none(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.NoneType)


def configurations() -> st.SearchStrategy[Config]:
    """The same as Structs."""
    return raw_configurations().map(lambda raw: msgspec.convert(raw, Config))
