"""What has the shape of a secret is taken out of a line, and ordinary words are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.identity.key_format import new_key
from app.logs.formats import JsonLines, TextLines
from app.logs.redact import GONE, redact
from tests.app.logs.writing import record

SECRET = "aB3dE5gH7jK9mN1pQ4sT"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: {SECRET}",
        f"AUTHORIZATION=Basic {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f'{{"proxy-authorization": "Basic {SECRET}"}}',
        f"sent bearer {SECRET} on",
        f"Cookie: session={SECRET}; other={SECRET}",
        f"x-api-key: {SECRET}",
        f'"api_key": "{SECRET}"',
        f"password={SECRET}",
        f"client_secret={SECRET}&x=1",
        f"sk-{SECRET}",
        f"sk-ant-api03-{SECRET}",
        f"gsk_{SECRET}",
        f"hf_{SECRET}",
        f"whsec_{SECRET}",
        f"AKIA{SECRET[:16].upper()}",
        f"AIza{SECRET}{SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}",
        f"GET https://bucket.example/a/b?X-Amz-Signature={SECRET}&X-Amz-Expires=60 gave 403",
        f"postgres://user:{SECRET}@db/turnpike",
        f"https://{SECRET}@host/",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    ],
)
def test_secrets_are_taken_out_in_both_formats(text: str) -> None:
    assert SECRET.lower() not in redact(text).lower()
    for formatter in (TextLines(), JsonLines()):
        line = formatter.format(record("before %s after", text, model=text))
        assert SECRET.lower() not in line.lower()
        assert GONE in line
        try:
            raise ValueError(text)
        except ValueError:
            line = formatter.format(record("it broke"))
        assert SECRET.lower() not in line.lower()


def test_of_our_own_keys_the_public_part_stays() -> None:
    key, parts = new_key()
    for text in (key, f"?key={key}", f"({key})", f"{key}/x"):
        assert parts.secret[:8] not in redact(text)
    assert redact(f"the key {key} is used") == f"the key tp_{parts.prefix}_{GONE} is used"


@pytest.mark.parametrize(
    "text",
    [
        "providers[0].api_key: env:GROQ_API_KEY is not set",
        "api_key: expected a string in quotes, found a whole number",
        "call 0197f000-aaaa-7bbb-8ccc-0123456789ab: attempt 1 at groq failed: timeout",
        "https://api.example/v1 cannot be reached",
        "a task-something-rather-long-0123456789 ended",
        "max_tokens: 12345678901234567890",
        "user_0197f000aaaa7bbb8ccc0123456789ab key_0197f000aaaa7bbb8ccc0123456789ab",
        "HuggingFaceTB/SmolLM2-135M-Instruct: warm after 0.5 s",
        "authorization: Bearer *** content-length: 221",
        "send the key as `Authorization` header",
        "basic understanding of bearers",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text


@given(st.text(), st.text())
def test_whatever_stands_around_a_key_it_is_taken_out(before: str, after: str) -> None:
    key, parts = new_key()
    assert parts.secret not in redact(f"{before} {key} {after}")
