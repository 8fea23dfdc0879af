"""Refusals in the gateway's words, and what of the provider's own words gets through."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.contract import AdapterError, FailureKind
from plugins.http import failures

SECRET = "very-secret-value"


def refusal(status: int, body: bytes = b"", **headers: str) -> AdapterError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return failures.refusal(status, named.get, body, SECRET)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, FailureKind.UPSTREAM),
        (400, FailureKind.BAD_REQUEST),
        (401, FailureKind.AUTH),
        (402, FailureKind.NO_CREDIT),
        (403, FailureKind.AUTH),
        (404, FailureKind.NOT_FOUND),
        (405, FailureKind.UPSTREAM),
        (408, FailureKind.TIMEOUT),
        (410, FailureKind.NOT_FOUND),
        (413, FailureKind.BAD_REQUEST),
        (422, FailureKind.BAD_REQUEST),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.UPSTREAM),
        (501, FailureKind.UPSTREAM),
        (502, FailureKind.UPSTREAM),
        (503, FailureKind.OVERLOADED),
        (504, FailureKind.TIMEOUT),
        (529, FailureKind.OVERLOADED),
    ],
)
def test_status_names_the_kind(status: int, kind: FailureKind) -> None:
    error = refusal(status)
    assert (error.kind, error.status) == (kind, status)
    assert error.message


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens",
        "the request exceeds the available context size, try increasing it",
        "input is longer than the model's context length",
        "Prompt too long: context window of 4096 exceeded",
    ],
)
def test_prompt_that_does_not_fit_is_known_by_its_words(message: str) -> None:
    error = refusal(400, json.dumps({"error": {"message": message}}).encode())
    assert (error.kind, error.message) == (FailureKind.CONTEXT_LENGTH, message)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_prompt_that_does_not_fit_is_known_by_its_code(status: int) -> None:
    body = b'{"error": {"message": "no", "code": "context_length_exceeded"}}'
    assert refusal(status, body).kind is FailureKind.CONTEXT_LENGTH


def test_exhausted_quota_is_not_a_rate_limit() -> None:
    body = b'{"error": {"message": "over", "type": "insufficient_quota"}}'
    assert refusal(429, body).kind is FailureKind.NO_CREDIT


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b'{"error": {"message": "too hot", "param": "temperature"}}', "too hot", "temperature"),
        (b'{"error": "plain"}', "plain", None),
        (b'{"object": "error", "message": "old vllm", "param": null}', "old vllm", None),
        (b'{"detail": "fastapi"}', "fastapi", None),
        (b'{"error": {"message": "a\\u0000b\\n\\tc"}}', "a b c", None),
        (b"not json", "the provider refused the request", None),
        (b"[" * 5000, "the provider refused the request", None),
        (b"\xff\xfe", "the provider refused the request", None),
        (b'{"error": 7}', "the provider refused the request", None),
    ],
)
def test_words_about_the_request_reach_the_caller(
    body: bytes, message: str, param: str | None
) -> None:
    error = refusal(400, body)
    assert (error.message, error.param) == (message, param)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429, 500, 503])
def test_all_other_words_stay_in_the_log(status: int) -> None:
    error = refusal(status, b'{"error": {"message": "account 4711"}}')
    assert "4711" not in error.message
    assert "4711" in error.detail


@pytest.mark.parametrize("key", [SECRET, "sk-proj-abc123", "hf_abcdef", "sk-ab***yz"])
@pytest.mark.parametrize("status", [400, 401, 500])
def test_keys_are_never_repeated(status: int, key: str) -> None:
    error = refusal(status, json.dumps({"error": {"message": f"key {key} is bad"}}).encode())
    assert key not in error.message + error.detail
    assert key not in refusal(status, f"<html>{key}</html>".encode()).detail


@given(st.text(max_size=3000))
def test_words_are_one_short_printable_line(text: str) -> None:
    cleaned = failures.clean(text, SECRET)
    assert len(cleaned) <= 512
    assert cleaned.isprintable()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("61", 60.0),
        ("9" * 400, 60.0),
        ("inf", 60.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2020 07:28:30 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:30 GMT", 60.0),
        ("Wed, 41 Oct 2026 07:28:30 GMT", None),
    ],
)
def test_retry_after_in_both_forms(value: str, seconds: float | None) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    for status in (429, 503, 529):
        assert refusal(status, retry_after=value, date=date).retry_after_s == seconds


def test_retry_after_date_without_the_reply_s_own_date() -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    seconds = refusal(429, retry_after=until).retry_after_s
    assert seconds is not None
    assert 25 < seconds <= 30
