"""What bytes are is decided by the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.http.media_types import NotWhatItSays, media_type

SAMPLES = {
    "image/png": b"\x89PNG\r\n\x1a\n....",
    "image/jpeg": b"\xff\xd8\xff\xe0....",
    "image/gif": b"GIF89a....",
    "image/webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    "image/avif": b"\x00\x00\x00\x1cftypavif....",
    "image/heic": b"\x00\x00\x00\x1cftypheic....",
    "audio/wav": b"RIFF\x10\x00\x00\x00WAVEfmt ",
    "audio/mpeg": b"ID3\x04....",
    "audio/ogg": b"OggS\x00....",
    "audio/flac": b"fLaC....",
    "video/mp4": b"\x00\x00\x00\x1cftypisom....",
    "video/webm": b"\x1aE\xdf\xa3....",
    "application/pdf": b"%PDF-1.7",
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_each_format_is_known_by_its_mark(kind: str) -> None:
    for said in ("", "application/octet-stream", "text/plain", "text/html", "image/x-unknown"):
        assert media_type(SAMPLES[kind], said) == kind
    for other in SAMPLES:
        assert media_type(SAMPLES[kind], f"{other.upper()}; charset=x") == kind


@pytest.mark.parametrize(
    ("kind", "said", "named"),
    [
        ("image/jpeg", "image/jpg", "image/jpeg"),
        ("audio/mpeg", "audio/mp3", "audio/mpeg"),
        ("video/mp4", "audio/mp4", "audio/mp4"),
        ("video/mp4", "audio/x-m4a", "audio/x-m4a"),
        ("video/webm", "audio/webm;codecs=opus", "audio/webm"),
        ("audio/ogg", "application/ogg", "application/ogg"),
    ],
)
def test_sender_s_name_is_kept_where_the_bytes_cannot_tell(
    kind: str, said: str, named: str
) -> None:
    assert media_type(SAMPLES[kind], said) == named


def test_mpeg_audio_without_a_tag() -> None:
    for head in (b"\xff\xfb\x90\x00", b"\xff\xf3\x40\x00", b"\xff\xfa\x90\x00"):
        assert media_type(head, "") == "audio/mpeg"
    for head in (b"\xff\xfb\xf0\x00", b"\xff\xfb\x9c\x00", b"\xff\xe1\x90\x00", b"\xff\xfb"):
        assert media_type(head, "") == ""


@pytest.mark.parametrize("kind", SAMPLES)
def test_known_format_that_it_is_not(kind: str) -> None:
    for data in (b"", b"hello", b"\x00" * 100):
        with pytest.raises(NotWhatItSays, match="content is not"):
            media_type(data, kind)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<!DOCTYPE HTML><p>", ""),
        (b"\n  <html><body>", "image/svg+xml"),
        (b"<script>alert(1)</script>", "application/json"),
        (b"hello", "text/html; charset=utf-8"),
        (b"hello", "application/xhtml+xml"),
    ],
)
def test_pages_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(NotWhatItSays, match="HTML"):
        media_type(data, said)


def test_other_formats_go_by_their_name() -> None:
    assert media_type(b'{"a": 1}', "Application/JSON; charset=utf-8") == "application/json"
    assert media_type(b"hello", "") == ""
    assert media_type(b"\x00\x01", "application/octet-stream") == ""


@given(st.binary(max_size=64), st.text(max_size=20))
def test_any_bytes_under_any_name(data: bytes, said: str) -> None:
    try:
        found = media_type(data, said)
    except NotWhatItSays:
        return
    assert found == found.strip().lower()
