"""How long a recording can be: never less than it is, and exact where the format says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.sound_length import (
    BYTES_PER_S_MIN,
    FRAMES_MAX,
    sound_ms_max,
    unknown_sound_ms_max,
)
from tests.app.gateway.recordings import (
    MP3_128K_FRAME,
    OPUS_HEAD,
    adts,
    box,
    flac,
    mp4,
    ogg,
    ogg_page,
    wav,
    webm,
)

MP3_FRAME_MS = 1152 * 1000 / 44_100
ID3 = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
KNOWN = [
    wav(16_000),
    flac(441_000),
    ogg([48_000 * 3]),
    MP3_128K_FRAME * 50,
    adts() * 50,
    mp4(61_500, 61_500),
    webm(61_500.0),
    webm(None, [0, 5_000, 61_000]),
]


@given(st.binary(max_size=3_000))
def test_any_bytes_have_a_length(data: bytes) -> None:
    assert sound_ms_max(data) >= 0
    assert unknown_sound_ms_max(len(data)) * BYTES_PER_S_MIN >= len(data) * 1000


@given(st.sampled_from(KNOWN), st.data())
def test_damaged_files_have_a_length_too(file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(file)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, min(len(file), 200) - 1))] = data.draw(st.integers(0, 255))
    assert sound_ms_max(bytes(damaged)) >= 0
    assert sound_ms_max(file[: data.draw(st.integers(0, len(file)))]) >= 0


@given(
    st.integers(1, 50_000),
    st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_plain_samples_are_counted(samples: int, rate: int, channels: int, width: int) -> None:
    found = sound_ms_max(wav(samples, rate, channels, width))
    assert 0 <= found - samples * 1000 / rate < 1


def test_a_wav_that_understates_its_data_is_counted_to_the_end() -> None:
    file = bytearray(wav(32_000))
    at = file.index(b"data") + 4
    for size in (0, 2, 2**32 - 1):
        file[at : at + 4] = size.to_bytes(4, "little")
        assert sound_ms_max(bytes(file)) == 2_000
    # A byte rate that is too high is not what players go by.
    file[28:32] = (2**31).to_bytes(4, "little")
    assert sound_ms_max(bytes(file)) == 2_000


def test_a_wav_of_compressed_samples_counts_as_unknown() -> None:
    file = bytearray(wav(32_000))
    file[20:22] = (0x11).to_bytes(2, "little")  # ADPCM
    assert sound_ms_max(bytes(file)) == unknown_sound_ms_max(len(file))
    file[20:22] = (0xFFFE).to_bytes(2, "little")  # extensible, without what that needs
    assert sound_ms_max(bytes(file)) == unknown_sound_ms_max(len(file))


@given(st.integers(1, 2**36 - 1), st.sampled_from([8_000, 16_000, 44_100, 96_000]))
def test_flac_says_its_samples(samples: int, rate: int) -> None:
    found = sound_ms_max(flac(samples, rate, body=0))
    assert 0 <= found - samples * 1000 / rate < 2


def test_flac_that_lies_lasts_as_long_as_plain_samples_would() -> None:
    seconds = 30
    file = flac(1, body=44_100 * 4 * seconds)
    assert seconds * 1000 * 16 // 17 - 10 <= sound_ms_max(file)
    silent = flac(0)
    assert sound_ms_max(silent) == unknown_sound_ms_max(len(silent))


@given(st.lists(st.integers(-1, 48_000 * 600), min_size=1, max_size=20))
def test_ogg_lasts_up_to_its_furthest_page(granules: list[int]) -> None:
    file = ogg(granules)
    found = sound_ms_max(file)
    said = max(0, *granules) * 1000 / 48_000
    assert 0 <= found - max(said, len(file) * 1000 // 128_000) < 2


def test_ogg_of_several_streams_one_after_the_other() -> None:
    second = ogg_page(OPUS_HEAD, 0, serial=2, first=True) + ogg_page(b"x", 96_000, serial=2)
    assert sound_ms_max(ogg([48_000]) + second) == 3_000


@pytest.mark.parametrize(
    ("head", "rate"),
    [
        (b"\x01vorbis" + bytes(4) + b"\x02" + (44_100).to_bytes(4, "little"), 44_100),
        (b"Speex   " + bytes(28) + (16_000).to_bytes(4, "little"), 16_000),
        (b"\x7fFLAC\x01\x00\x00\x01fLaC" + bytes(14) + (22_050 << 4).to_bytes(3, "big"), 22_050),
    ],
)
def test_ogg_of_other_codecs(head: bytes, rate: int) -> None:
    assert sound_ms_max(ogg([rate * 7], head)) == 7_000


def test_ogg_that_is_not_understood_counts_as_unknown() -> None:
    film = ogg([48_000], b"\x80theora")
    assert sound_ms_max(film) == unknown_sound_ms_max(len(film))
    orphan = ogg([48_000]) + ogg_page(b"x", 48_000, serial=9)
    assert sound_ms_max(orphan) == unknown_sound_ms_max(len(orphan))
    # What lies between pages is no sound that the pages tell of.
    junk = ogg([48_000]) + bytes(7_500) + ogg_page(b"x", 96_000)
    assert sound_ms_max(junk) == 2_000 + 10_000


@given(
    st.lists(
        st.tuples(st.integers(1, 14), st.integers(0, 2), st.booleans()), min_size=1, max_size=30
    ),
    st.sampled_from([(3, 1), (2, 2), (0, 4)]),
    st.binary(max_size=40).filter(lambda junk: b"\xff" not in junk),
)
def test_frames_of_mp3_are_counted_whatever_their_rates(
    frames: list[tuple[int, int, bool]], kind: tuple[int, int], junk: bytes
) -> None:
    version, divisor = kind
    first = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    other = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    file, lasts = b"", 0.0
    for index, at, padded in frames:
        rate = (44_100, 48_000, 32_000)[at] // divisor
        kbits = (first if version == 3 else other)[index - 1]
        samples = 1152 if version == 3 else 576
        length = samples // 8 * kbits * 1000 // rate + padded
        head = bytes([0xFF, 0xE3 | version << 3, index << 4 | at << 2 | padded << 1, 0])
        file += head + bytes(length - 4)
        lasts += samples * 1000 / rate
    assert 0 <= sound_ms_max(file) - lasts < 1.1
    between = sound_ms_max(file + junk + file)
    assert 0 <= between - 2 * lasts - len(junk) * 1000 / BYTES_PER_S_MIN < 1.2


def test_a_tag_with_a_cover_is_no_sound() -> None:
    frames = MP3_128K_FRAME * 100
    assert sound_ms_max(ID3 + frames) == sound_ms_max(frames) == -(-100 * MP3_FRAME_MS // 1)
    only = b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + frames
    assert sound_ms_max(only) == unknown_sound_ms_max(len(only))


def test_frames_of_aac_are_counted() -> None:
    assert sound_ms_max(adts() * 125) == 8_000
    assert sound_ms_max(adts(2_000) * 125) == 8_000


def test_more_frames_than_are_looked_at_count_as_unknown() -> None:
    file = adts(7) * (FRAMES_MAX + 750)
    assert sound_ms_max(file) == FRAMES_MAX * 64 + 7_000


@pytest.mark.parametrize("wide", [False, True])
def test_mp4_lasts_as_long_as_its_longest_track(wide: bool) -> None:
    assert sound_ms_max(mp4(61_500, 61_400, wide=wide)) == 61_750
    assert sound_ms_max(mp4(10, 61_400, wide=wide)) == 61_650


def test_mp4_that_does_not_say_counts_as_unknown() -> None:
    fragmented = mp4(0, 0, more=box(b"mvex", bytes(8)))
    for file in (fragmented, mp4(0, 0), mp4(5, 5, scale=0), mp4(2**32 - 1, 5), mp4(5, 5)[:300]):
        assert sound_ms_max(file) == unknown_sound_ms_max(len(file))


def test_webm_says_its_length_or_where_its_last_cluster_begins() -> None:
    assert sound_ms_max(webm(61_500.2)) == 61_501
    # Blocks lie up to 32.768 s behind the beginning of their cluster.
    assert sound_ms_max(webm(None, [0, 5_000, 61_000])) == 61_000 + 32_768


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), -5.0, 0.0, None])
def test_webm_that_does_not_say_counts_as_unknown(duration: float | None) -> None:
    file = webm(duration)
    assert sound_ms_max(file) == unknown_sound_ms_max(len(file))


@pytest.mark.parametrize("piece", [b"\0\0\0\x08moov", b"\0\0\0\x08ftyp", b"\xec\x80", b"\xff\xfb"])
def test_a_forged_file_does_not_keep_the_processor(piece: bytes) -> None:
    head = b"\x1a\x45\xdf\xa3\x80" if piece == b"\xec\x80" else b""
    file = head + piece * 200_000
    assert sound_ms_max(file) >= unknown_sound_ms_max(len(file)) * 9 // 10
