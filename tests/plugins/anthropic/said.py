"""What callers say: messages with pictures and files, whole conversations, JSON schemas."""

import base64
import json
from typing import Any

from hypothesis import strategies as st

from tests.plugins.anthropic.conftest import PNG
from tests.upstreams.anthropic_rules import signature_of

Json = dict[str, Any]
PICTURE = "data:image/jpeg;base64," + base64.b64encode(PNG).decode()
PDF = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7 x").decode()
TEXT = st.text(max_size=30)
IDS = st.text(min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PARTS = st.lists(
    TEXT.map(lambda text: {"type": "text", "text": text})
    | st.sampled_from(
        [
            {"type": "image_url", "image_url": {"url": PICTURE}},
            {"type": "file", "file": {"filename": "x.pdf", "file_data": PDF}},
        ]
    ),
    max_size=3,
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """A conversation as OpenAI's API takes one: every call is answered, in any order."""
    messages: list[Json] = [{"role": "user", "content": "begin"}]
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["system", "user", "assistant", "tools"]))
        if kind == "tools":
            messages += draw(exchanges(number))
        elif kind == "assistant":
            messages.append({"role": kind, "content": draw(TEXT)})
        else:
            content = TEXT if kind == "system" else TEXT | PARTS
            messages.append({"role": kind, "content": draw(content)})
    return messages


@st.composite
def exchanges(draw: st.DrawFn, number: int) -> list[Json]:
    names = draw(st.lists(st.sampled_from(["weather", "noop"]), min_size=1, max_size=3))
    ids = [f"{number}-{n}-{draw(IDS)}" for n in range(len(names))]
    calls = [
        {
            "id": given_id,
            "type": "function",
            "function": {
                "name": name,
                "arguments": json.dumps(draw(st.dictionaries(TEXT, JSON, max_size=3))),
            },
        }
        for given_id, name in zip(ids, names, strict=True)
    ]
    details = None
    if draw(st.booleans()):
        text = draw(TEXT)
        details = [{"type": "reasoning.text", "text": text, "signature": signature_of(text)}]
    said = {"role": "assistant", "content": draw(st.none() | TEXT), "tool_calls": calls}
    results = [
        {"role": "tool", "tool_call_id": given_id, "content": draw(TEXT | PARTS)}
        for given_id in draw(st.permutations(ids))
    ]
    return [{**said, "reasoning_details": details}, *results]


def user(*parts: Json) -> list[Json]:
    return [{"role": "user", "content": list(parts)}]


LEAVES = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "boolean", "null"])},
    optional={
        "description": TEXT,
        "enum": st.lists(TEXT, max_size=2),
        "format": st.sampled_from(["date", "hex", "uuid"]),
        "minimum": st.integers(),
        "pattern": TEXT,
        "$ref": st.just("#/$defs/a"),
    },
)
SCHEMAS: st.SearchStrategy[Json] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(TEXT, inner, max_size=3)},
            optional={
                "required": st.lists(TEXT, max_size=2),
                "additionalProperties": st.booleans(),
                "$defs": st.dictionaries(TEXT, inner, max_size=2),
                "maxProperties": st.integers(0, 9),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={"minItems": st.integers(0, 3), "uniqueItems": st.booleans()},
        ),
        st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner, "anyOf": st.lists(inner, max_size=2)}),
    ),
    max_leaves=8,
)
