"""Answers' bodies, where what a provider made is odd."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.openai.task_wire import embeddings_body, images_body, transcript_body
from app.gateway.call import Call
from app.identity.principal import Principal
from app.ids import new_call_id
from plugins.contract import Offer, Price, Usage
from plugins.tasks import (
    EmbeddingRequest,
    Embeddings,
    Images,
    Media,
    Transcript,
)


def call(**usage: Any) -> Call:
    """A call at its end."""
    made = Call(
        id=new_call_id(),
        principal=Principal(user_id="u", user_name="ann", key_id="k"),
        request=EmbeddingRequest(model="a/b", input="x"),
        body_bytes=1,
        admitted_at_ms=1_700_000_000_000,
        started_ns=0,
    )
    made.offer = Offer(model="a/b", provider="p", upstream_id="m", price=Price(free=True))
    made.usage = Usage(**usage)
    return made


@given(st.text(), st.sampled_from(["srt", "vtt"]))
def test_no_text_can_end_its_cue(text: str, form: str) -> None:
    """Subtitles are parted by empty lines and known by their arrows."""
    output = Transcript(text=text, segments=[{"start": 0, "end": 1.5, "text": text}])
    told = transcript_body(call(), output, form).decode()
    assert told.count("-->") == 1
    lines = told.removesuffix("\n\n").split("\n")
    assert len(lines) == (3 if form == "srt" else 4)


@pytest.mark.parametrize(
    ("usage", "duration", "end"),
    [({}, 61.5, "00:01:01,500"), ({"audio_ms": 3_723_004}, None, "01:02:03,004")],
)
def test_a_transcript_without_parts_is_one_cue(
    usage: dict[str, int], duration: float | None, end: str
) -> None:
    output = Transcript(text="all of it", duration_s=duration)
    told = transcript_body(call(**usage), output, "srt").decode()
    assert told == f"1\n00:00:00,000 --> {end}\nall of it\n\n"


def test_usage_of_a_transcript_by_tokens() -> None:
    used = call(input_tokens=4, audio_input_tokens=10, output_tokens=5)
    told = json.loads(transcript_body(used, Transcript(text="x"), "json"))
    assert told["usage"] == {
        "type": "tokens",
        "input_tokens": 14,
        "output_tokens": 5,
        "total_tokens": 19,
        "input_token_details": {"audio_tokens": 10, "text_tokens": 4},
    }


def test_an_empty_usage_is_not_shown() -> None:
    assert json.loads(transcript_body(call(), Transcript(text="x"), "json")) == {"text": "x"}
    picture = Images(images=[Media(data=b"1", media_type="image/gif")])
    told = json.loads(images_body(call(images=1, estimated=True), picture, as_url=False))
    assert set(told) == {"created", "data"}


def test_cached_tokens_are_tokens_too() -> None:
    used = call(input_tokens=3, cache_read_tokens=4)
    told = json.loads(embeddings_body(used, Embeddings(vectors=[[0.5]]), as_base64=False))
    assert told["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert told["data"][0]["embedding"] == [0.5]
