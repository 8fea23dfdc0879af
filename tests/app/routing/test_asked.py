"""What routing reads out of a request."""

from typing import Any

import msgspec
import pytest

from app.routing.asked import modalities_of, names_of, preferences_of, semantic_params
from app.routing.names import Name, read
from plugins.chat import ChatRequest
from plugins.tasks import EmbeddingRequest, ImageRequest, Media


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "acme/tiny", "messages": [{"role": "user", "content": "x"}], **fields}
    return msgspec.convert(body, ChatRequest)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, []),
        ({"stream": True, "stream_options": {}, "max_tokens": 5, "n": 1}, []),
        ({"n": 2, "logprobs": False, "tools": []}, ["n"]),
        ({"temperature": 0.5, "user": "u"}, ["temperature", "user"]),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, []),
        ({"tools": [{}], "tool_choice": "auto"}, ["tools"]),
        ({"tools": [{}], "tool_choice": "required"}, ["tool_choice", "tools"]),
        ({"response_format": {"type": "text"}}, []),
        ({"response_format": {"type": "json_object"}}, ["response_format"]),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            ["response_format", "structured_outputs"],
        ),
        ({"models": ["a/b"], "provider": {"only": ["x"]}}, []),
    ],
)
def test_parameters_that_ask_for_something(fields: dict[str, Any], found: list[str]) -> None:
    assert sorted(semantic_params(chat(**fields))) == found


def test_modalities_are_those_of_the_parts() -> None:
    parts = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": "data:"}},
        {"type": "input_audio", "input_audio": {}},
    ]
    request = chat(messages=[{"role": "user", "content": parts}])
    assert modalities_of(request) == {"image", "audio"}
    assert modalities_of(chat()) == frozenset()
    drawing = ImageRequest(model="m", prompt="a", image=[Media(data=b"x")])
    assert modalities_of(drawing) == {"image"}
    assert drawing.task == "image-to-image"
    assert semantic_params(EmbeddingRequest(model="m", input="x", dimensions=64)) == ["dimensions"]


def test_names_and_preferences() -> None:
    request = chat(models=["b/c", "acme/tiny"], provider={"sort": "price"})
    assert names_of(request) == ("acme/tiny", "b/c")
    wish = preferences_of(request)
    assert wish is not None
    assert wish.sort == "price"
    assert preferences_of(chat()) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/b", Name("a/b")),
        ("a/b:groq", Name("a/b", provider="groq")),
        ("a/b:cheapest", Name("a/b", policy="cheapest")),
        ("short", Name("a/b", provider="groq")),
        ("short:fastest", Name("a/b", policy="fastest")),
        ("a/b:", Name("a/b", provider="")),
    ],
)
def test_names_as_clients_write_them(text: str, name: Name) -> None:
    assert read(text, {"short": "a/b:groq"}) == name
