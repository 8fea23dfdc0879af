"""Bodies: what msgspec leaves to us is refused, and the parameter is named."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.body import NESTING_MAX, decode
from app.errors import InvalidRequest
from plugins.chat import ChatRequest

DECODER = msgspec.json.Decoder(ChatRequest)
DECISIVE = (b'"model"', b'"n"')


def refused(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(body, DECODER, DECISIVE)
    return caught.value


def chat(extra: str = "", content: str = '"hi"') -> bytes:
    text = f'{{"model":"m","messages":[{{"role":"user","content":{content}}}]{extra}}}'
    return text.encode()


def test_a_good_body_is_decoded() -> None:
    request = decode(chat(',"n":2,"stop":["a"]'), DECODER, DECISIVE)
    assert (request.model, request.n, request.stop) == ("m", 2, ["a"])
    assert request.given_params() == ["n", "stop"]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, None),
        (b"{", None, "invalid_json"),
        (b"\xff\xfe", None, "invalid_json"),
        (chat(content='"\\ud800"'), None, "invalid_json"),
        (chat(content='"a\\u0000b"'), None, None),
        (b"[]", None, "invalid_value"),
        (b'{"messages":[{"role":"user","content":"x"}]}', "model", "missing_required_parameter"),
        (b'{"model":"m"}', "messages", "missing_required_parameter"),
        (b'{"model":"m","messages":[]}', "messages", "invalid_value"),
        (chat(',"frobnicate":1'), "frobnicate", "unknown_parameter"),
        (chat(',"api_base":"http://x"'), "api_base", "unknown_parameter"),
        (chat(content="3"), "messages[0].content", "invalid_value"),
        (chat(',"temperature":9'), "temperature", "invalid_value"),
        (chat(',"temperature":"hot"'), "temperature", "invalid_value"),
        (chat(',"n":1000000'), "n", "invalid_value"),
        (chat(',"n":1,"n":2'), "n", "duplicate_key"),
        (chat(',"model":"other"'), "model", "duplicate_key"),
        (chat(f',"seed":{10**40}'), "seed", "invalid_value"),
        (chat(',"max_tokens":0'), "max_tokens", "invalid_value"),
        (chat(',"logit_bias":{"5":200}'), "logit_bias[...]", "invalid_value"),
    ],
)
def test_a_bad_body_is_refused_by_name(body: bytes, param: str | None, code: str | None) -> None:
    error = refused(body)
    assert (error.status, error.param, error.code) == (400, param, code)


@pytest.mark.parametrize("depth", [NESTING_MAX + 1, 1_000, 200_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    tools = "[" * depth + "]" * depth
    assert refused(chat(f',"metadata":{{"a":{tools}}}')).status == 400
    assert refused(b"[" * depth).status == 400


def test_brackets_inside_strings_are_not_nesting() -> None:
    text = "[{" * 500 + '\\"' + "[" * 100
    assert decode(chat(content=f'"{text}"'), DECODER, DECISIVE).messages[0].content == (
        "[{" * 500 + '"' + "[" * 100
    )


def test_a_decisive_word_in_the_text_is_not_a_duplicate() -> None:
    request = decode(chat(content='"the \\"model\\" and \\"n\\""'), DECODER, DECISIVE)
    assert request.messages[0].content == 'the "model" and "n"'
    nested = decode(chat(',"tools":[{"model":1},{"model":2}]'), DECODER, DECISIVE)
    assert nested.model == "m"


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    try:
        decode(body, DECODER, DECISIVE)
    except InvalidRequest as error:
        assert error.message
