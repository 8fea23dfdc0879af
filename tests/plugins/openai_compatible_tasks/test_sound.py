"""Speech and transcripts at an OpenAI-compatible provider."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.contract import AdapterError, FailureKind, Usage
from plugins.openai_compatible.tasks.dialects import GROQ
from plugins.openai_compatible.tasks.media import length_ms, picture_type, sound_type, video_ms
from plugins.tasks import Media, Speech, SpeechRequest, Transcript, TranscriptionRequest
from tests.plugins.openai_compatible_tasks.conftest import Carry
from tests.upstreams.tasks import PlayedTasks, form_of, mp4, wav

SOUND = Media(data=wav(0.5), media_type="audio/wav", name="said.wav")


def speech(**fields: Any) -> SpeechRequest:
    return SpeechRequest(**{"model": "acme/say", "input": "Grüße an alle", **fields})


def heard(**fields: Any) -> TranscriptionRequest:
    return TranscriptionRequest(**{"model": "acme/hear", "file": SOUND, **fields})


async def test_speech_is_sound_and_its_characters_count(carry: Carry, played: PlayedTasks) -> None:
    output, usage = await carry(speech(voice="alloy", response_format="wav", speed=1.5))
    assert isinstance(output, Speech)
    assert (output.audio.data, output.audio.media_type) == (wav(), "audio/wav")
    assert (usage.characters, usage.input_tokens, usage.estimated) == (13, 4, True)
    assert played.asked[0].target == "/v1/audio/speech"
    assert played.asked[0].json() == {
        "model": "m",
        "input": "Grüße an alle",
        "voice": "alloy",
        "response_format": "wav",
        "speed": 1.5,
    }


@pytest.mark.parametrize(
    ("kind", "body", "media_type"),
    [
        ("application/octet-stream", b"ID3\x04rest", "audio/mpeg"),
        ("application/octet-stream", b"\x01\x02\x03\x04", "audio/mpeg"),
        ("audio/L16; rate=24000", b"\x01\x02", "audio/l16"),
        ("", wav(), "audio/wav"),
    ],
)
async def test_the_type_of_sound_is_told_or_found_out(
    carry: Carry, played: PlayedTasks, kind: str, body: bytes, media_type: str
) -> None:
    played.body, played.kind = body, kind or "application/octet-stream"
    output, _ = await carry(speech())
    assert isinstance(output, Speech)
    assert output.audio.media_type == media_type


@pytest.mark.parametrize(
    ("kind", "body", "failure"),
    [
        ("application/json", b'{"error": {"message": "no voice"}}', FailureKind.UPSTREAM),
        ("application/json", b'{"fine": true}', FailureKind.PROTOCOL),
        ("text/html", b"<html>sorry</html>", FailureKind.PROTOCOL),
        ("audio/mpeg", b"", FailureKind.PROTOCOL),
        ("image/png", b"\x89PNG\r\n\x1a\n", FailureKind.PROTOCOL),
    ],
)
async def test_what_is_no_sound_is_a_failure(
    carry: Carry, played: PlayedTasks, kind: str, body: bytes, failure: FailureKind
) -> None:
    played.body, played.kind = body, kind
    with pytest.raises(AdapterError) as failed:
        await carry(speech())
    assert failed.value.kind is failure


@pytest.mark.parametrize(
    ("fields", "dialect", "asked_for"),
    [
        ({}, {}, b"json"),
        ({"response_format": "text"}, {}, b"json"),
        ({"response_format": "srt"}, {}, b"verbose_json"),
        ({"response_format": "vtt"}, {}, b"verbose_json"),
        ({"response_format": "verbose_json"}, {}, b"verbose_json"),
        ({"response_format": "json"}, {"dialect": GROQ}, b"verbose_json"),
    ],
)
async def test_a_transcript_is_asked_for_with_its_times_where_they_are_needed(
    carry: Carry, played: PlayedTasks, fields: dict[str, Any], dialect: Any, asked_for: bytes
) -> None:
    output, usage = await carry(heard(**fields), **dialect)
    assert isinstance(output, Transcript)
    assert output.text == "Hello there, world."
    form = form_of(played.asked[0])
    assert form["response_format"][0][2] == asked_for
    assert form["file"] == [("said.wav", "audio/wav", wav(0.5))]
    if asked_for == b"verbose_json":
        assert usage == Usage(audio_ms=2500)
        assert output.segments is not None
        assert [each["end"] for each in output.segments] == [1.25, 2.5]
    else:  # as long as the file says
        assert (usage.audio_ms, usage.output_tokens, usage.estimated) == (500, 5, True)


async def test_all_parameters_of_a_transcript_are_sent(carry: Carry, played: PlayedTasks) -> None:
    output, _ = await carry(
        heard(
            language="en",
            prompt="names: Ada",
            temperature=0.25,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    )
    form = form_of(played.asked[0])
    assert form["temperature"][0][2] == b"0.25"
    assert form["language"][0][2] == b"en"
    assert [each[2] for each in form["timestamp_granularities[]"]] == [b"word", b"segment"]
    assert isinstance(output, Transcript)
    assert output.words == [{"word": "Hello", "start": 0.0, "end": 0.5}]


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"type": "duration", "seconds": 9}, Usage(audio_ms=9000)),
        ({"prompt_audio_seconds": 3}, Usage(audio_ms=3000)),
        (
            {
                "type": "tokens",
                "input_tokens": 14,
                "input_token_details": {"audio_tokens": 10, "text_tokens": 4},
                "output_tokens": 5,
                "total_tokens": 19,
            },
            Usage(input_tokens=4, audio_input_tokens=10, output_tokens=5),
        ),
    ],
)
async def test_usage_is_by_tokens_or_by_seconds(
    carry: Carry, played: PlayedTasks, told: Any, usage: Usage
) -> None:
    played.transcript_usage = told
    assert (await carry(heard()))[1] == usage


@pytest.mark.parametrize(
    "told", [{"seconds": 1e12}, {"seconds": -1}, {"input_tokens": 10**12}, "no", 7, {}, []]
)
async def test_nonsense_in_usage_costs_only_the_numbers(
    carry: Carry, played: PlayedTasks, told: Any
) -> None:
    played.transcript_usage = told
    _, usage = await carry(heard())
    assert (usage.audio_ms, usage.estimated) == (500, True)


@pytest.mark.parametrize(
    "segments",
    [
        [{"text": "x"}],
        [{"start": "0", "end": 1, "text": "x"}],
        [{"start": -1, "end": 1, "text": "x"}],
        [{"start": 0, "end": 1e300, "text": "x"}],
        [{"start": 0, "end": 1, "text": None}],
        [{"start": True, "end": 1, "text": "x"}],
        [],
    ],
)
async def test_segments_without_sense_are_left_out(
    carry: Carry, played: PlayedTasks, segments: Any
) -> None:
    played.spoil = lambda answer: {**answer, "segments": segments}
    output, _ = await carry(heard(response_format="verbose_json"))
    assert isinstance(output, Transcript)
    assert output.segments is None
    assert output.text == "Hello there, world."


@pytest.mark.parametrize("spoil", [lambda _: {}, lambda _: {"text": 4}, lambda _: ["text"]])
async def test_a_reply_without_text_is_a_failure(
    carry: Carry, played: PlayedTasks, spoil: Any
) -> None:
    played.spoil = spoil
    with pytest.raises(AdapterError) as failed:
        await carry(heard())
    assert failed.value.kind is FailureKind.PROTOCOL


def test_lengths_of_media() -> None:
    assert length_ms(Media(data=wav(2, rate=16000))) == 2000
    assert length_ms(Media(data=b"ID3" + bytes(31_997))) == 2000
    assert length_ms(Media(data=b"")) == 1
    assert video_ms(mp4(2.5)) == 2500
    assert video_ms(b"ftypmvhd") == 0


@given(st.binary(max_size=200), st.sampled_from([b"", wav(0.01)[:40], mp4()[:40], b"RIFF"]))
def test_no_bytes_are_too_odd_to_be_measured(data: bytes, before: bytes) -> None:
    media = Media(data=before + data)
    assert length_ms(media) >= 1
    assert video_ms(before + data) >= 0
    assert isinstance(picture_type(before + data) + sound_type(before + data), str)
