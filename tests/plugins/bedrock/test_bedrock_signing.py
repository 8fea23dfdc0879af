"""Signatures are AWS's: its published test vectors, and those of its own client library."""

from datetime import UTC, datetime

import pytest

from plugins.bedrock.plugin import PLUGIN, BedrockSettings
from plugins.bedrock.signing import AccessKey, BearerKey, Headers, Scope, key_of, sign
from plugins.contract import Adapter, AdapterError, FailureKind
from tests.plugins.anthropic.answers import answer
from tests.plugins.bedrock.conftest import BEARER, NEWER, OLDER, SIGNING, TEMPORARY, ask, toolbox
from tests.upstreams.bedrock import PlayedBedrock

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SUITE_TOKEN = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
FORM = (("content-type", "application/x-www-form-urlencoded"),)

# The Signature Version 4 test suite (awslabs/aws-c-auth, tests/aws-sig-v4-test-suite), by name.
SUITE = {
    "get-vanilla": (
        ("GET", "/", (), b"", None),
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "get-vanilla-with-session-token": (
        ("GET", "/", (), b"", SUITE_TOKEN),
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
    ),
    "post-x-www-form-urlencoded": (
        ("POST", "/", FORM, b"Param1=value1", None),
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    "get-space": (
        ("GET", "/example space/", (), b"", None),
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    "get-utf8": (
        ("GET", "/ሴ", (), b"", None),
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
}


@pytest.mark.parametrize("name", SUITE)
def test_aws_s_own_vectors(name: str) -> None:
    (method, path, headers, body, token), signature = SUITE[name]
    given: Headers = headers
    found = sign(
        AccessKey(key_id="AKIDEXAMPLE", secret=SECRET, session_token=token),
        Scope(region="us-east-1", service="service"),
        datetime(2015, 8, 30, 12, 36, tzinfo=UTC),
        method=method,
        host="example.amazonaws.com",
        path=path,
        headers=given,
        body=body,
    )
    assert dict(found)["authorization"].endswith(f"Signature={signature}")
    assert dict(found)["x-amz-date"] == "20150830T123600Z"


# Made with botocore's SigV4Auth for these requests: the path is encoded twice in what is signed.
MODEL = "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
ARN = (
    "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile"
    "%2Fus.amazon.nova-pro-v1%3A0/converse-stream"
)


@pytest.mark.parametrize(
    ("path", "token", "signature"),
    [
        (MODEL, None, "f8ca14eab252d9fc33aafad23d301dc8f2c3b56fcf5ebed836434f6c2b6aed4c"),
        (ARN, None, "ebfa35d4befeccd476a5c38ed0963460168124b520d6f44ebccec393930b6357"),
        (
            MODEL,
            "session/token+==",
            "e6aec52951e32e5080ab46621cd27776372319e46d91ace3f93a8b67aa066e13",
        ),
        (
            ARN,
            "session/token+==",
            "3293ed741134b13992513a99aaf32f755018811dfef1c12f350c4f87f5dbf53b",
        ),
    ],
)
def test_model_ids_in_the_path(path: str, token: str | None, signature: str) -> None:
    found = sign(
        AccessKey(key_id="AKIDEXAMPLE", secret=SECRET, session_token=token),
        Scope(region="us-east-1"),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        method="POST",
        host="bedrock-runtime.us-east-1.amazonaws.com",
        path=path,
        headers=(("content-type", "application/json"),),
        body=b'{"messages":[]}',
    )
    assert dict(found)["authorization"].endswith(f"Signature={signature}")
    assert dict(found).get("x-amz-security-token") == token


def test_a_colon_tells_keys_apart() -> None:
    assert key_of(None) is None
    assert key_of("ABSKabc=") == BearerKey("ABSKabc=")
    assert key_of("AKID:se/cr+et") == AccessKey(key_id="AKID", secret="se/cr+et")
    assert key_of("AKID:s:t=") == AccessKey(key_id="AKID", secret="s", session_token="t=")
    for bad in (":secret", "AKID:", "AKID::token"):
        with pytest.raises(AdapterError) as caught:
            key_of(bad)
        assert caught.value.kind is FailureKind.AUTH
        assert bad not in str(caught.value)


def test_keys_do_not_show_themselves() -> None:
    for key in (key_of("AKIDEXAMPLE:secret-half:token-part"), key_of("ABSKbearer")):
        assert not any(word in f"{key!r} {key}" for word in ("secret", "token", "ABSK", "AKID"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [OLDER, NEWER])
@pytest.mark.parametrize("key", [SIGNING, TEMPORARY, BEARER])
async def test_provider_takes_every_kind_of_key(
    adapter: Adapter, played: PlayedBedrock, key: str, model: str, stream: bool
) -> None:
    found, _, _ = await answer(adapter, ask(stream, model=model, key=key))
    assert found["finish"] == "stop"
    assert played.models == [model]


@pytest.mark.parametrize("key", ["AKIDPLAYED:wrong-secret", "ABSKwrong", None])
async def test_wrong_keys_are_refused(adapter: Adapter, key: str | None) -> None:
    with pytest.raises(AdapterError) as caught:
        await answer(adapter, ask(key=key))
    assert caught.value.kind is FailureKind.AUTH
    assert caught.value.message == "the provider refused the appliance's credentials"


def test_settings() -> None:
    with pytest.raises(ValueError, match=r"^region: missing"):
        PLUGIN.build(BedrockSettings(base_url="https://example.com"), toolbox())
    with pytest.raises(ValueError, match=r"^region: not an AWS region"):
        PLUGIN.build(BedrockSettings(region="evil.example.com/"), toolbox())
    host = "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com"
    assert PLUGIN.build(BedrockSettings(base_url=host), toolbox()).offers()
