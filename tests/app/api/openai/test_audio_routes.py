"""``/v1/audio/speech`` and ``/v1/audio/transcriptions`` with OpenAI's own client."""

from typing import Any

import openai
import pytest

from tests.app.api.openai.shop import BODY_BYTES_MAX, Shop
from tests.upstreams.tasks import PlayedTasks, form_of, wav

FILE = ("said.wav", wav(0.5), "audio/wav")


async def test_speech_is_sound(ann: openai.AsyncOpenAI, shop: Shop) -> None:
    answer = await ann.audio.speech.with_raw_response.create(
        model="acme/say", input="Hello there", voice="alloy"
    )
    assert answer.content == wav()
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-inference-provider"] == "played"
    assert await shop.charged() == [("completed", 11 * 15_000)]


async def test_speech_is_not_kept_for_repeats(ann: openai.AsyncOpenAI, played: PlayedTasks) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ann.audio.speech.create(
            model="acme/say",
            input="Hello",
            voice="alloy",
            extra_headers={"Idempotency-Key": "k"},
        )
    assert refused.value.param == "Idempotency-Key"
    assert played.asked == []


async def test_json_in_place_of_sound_is_an_error(
    ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks
) -> None:
    played.body = b'{"error": "no"}'
    with pytest.raises(openai.InternalServerError):
        await ann.audio.speech.create(model="acme/say", input="Hello", voice="alloy")
    assert await shop.charged() == [("failed", 0)]


async def test_a_transcript(ann: openai.AsyncOpenAI, shop: Shop, played: PlayedTasks) -> None:
    played.transcript_usage = {"type": "duration", "seconds": 3}
    found = await ann.audio.transcriptions.create(
        model="acme/hear", file=FILE, language="en", temperature=0.5, stream=False
    )
    assert found.text == "Hello there, world."
    usage: Any = found.usage
    assert (usage.type, usage.seconds) == ("duration", 3.0)
    form = form_of(played.asked[0])
    assert form["file"] == [("said.wav", "audio/wav", wav(0.5))]
    assert form["temperature"][0][2] == b"0.5"
    assert await shop.charged() == [("completed", 300_000)]


async def test_a_verbose_transcript(ann: openai.AsyncOpenAI) -> None:
    found = await ann.audio.transcriptions.create(
        model="acme/hear",
        file=FILE,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert (found.language, found.duration) == ("english", 2.5)
    assert found.segments is not None
    assert [each.text for each in found.segments] == [" Hello there,", " world."]
    assert found.words is not None
    assert found.words[0].word == "Hello"


SRT = """\
1
00:00:00,000 --> 00:00:01,250
Hello there,

2
00:00:01,250 --> 00:00:02,500
world.

"""
VTT = """\
WEBVTT

00:00:00.000 --> 00:00:01.250
Hello there,

00:00:01.250 --> 00:00:02.500
world.

"""


@pytest.mark.parametrize(
    ("form", "text", "kind"),
    [
        ("text", "Hello there, world.\n", "text/plain; charset=utf-8"),
        ("srt", SRT, "text/plain; charset=utf-8"),
        ("vtt", VTT, "text/vtt; charset=utf-8"),
    ],
)
async def test_a_transcript_as_text(
    ann: openai.AsyncOpenAI, form: Any, text: str, kind: str
) -> None:
    headers = {"Idempotency-Key": "k"}
    for _ in range(2):
        raw = await ann.audio.transcriptions.with_raw_response.create(
            model="acme/hear", file=FILE, response_format=form, extra_headers=headers
        )
        assert raw.text == text
        assert raw.headers["content-type"] == kind
    assert raw.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"file": ("a.wav", b"", "audio/wav")}, "file"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"temperature": 7}, "temperature"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"model": ""}, "model"),
    ],
)
async def test_transcriptions_that_cannot_be(
    ann: openai.AsyncOpenAI, played: PlayedTasks, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ann.audio.transcriptions.create(**{"model": "acme/hear", "file": FILE, **fields})
    assert refused.value.param == param
    assert played.asked == []


async def test_a_file_that_is_too_large(ann: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await ann.audio.transcriptions.create(
            model="acme/hear", file=("a.wav", bytes(BODY_BYTES_MAX), "audio/wav")
        )
    assert refused.value.status_code == 413
