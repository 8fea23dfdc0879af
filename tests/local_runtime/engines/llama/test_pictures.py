"""What is looked at before a picture is decoded: formats, sizes, wholeness; bombs are refused."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_runtime.engines.llama.pictures import (
    BYTES_MAX,
    PIXELS_MAX,
    SIDE_MAX,
    BadPicture,
    Picture,
    examine,
)
from tests.local_runtime import drawing

MAKERS = {"png": drawing.png, "jpeg": drawing.jpeg, "gif": drawing.gif, "bmp": drawing.bmp}


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


def refused(data: bytes) -> str:
    with pytest.raises(BadPicture) as caught:
        examine(data)
    return str(caught.value)


@pytest.mark.parametrize("kind", MAKERS)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
@settings(max_examples=20, deadline=None)
def test_good_ones(kind: str, width: int, height: int) -> None:
    assert examine(MAKERS[kind](width, height)) == Picture(kind, width, height)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_cut_is_refused(kind: str) -> None:
    """A GIF and a JPEG may lose what follows their last pixel."""
    whole = MAKERS[kind](20, 20)
    for length in range(len(whole) - 2):
        refused(whole[:length])


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"])
@given(rest=st.binary(max_size=300))
@settings(max_examples=200)
def test_noise_behind_a_good_start_is_refused(start: bytes, rest: bytes) -> None:
    refused(start + rest)


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_changed_bytes_do_no_harm(kind: str, data: st.DataObject) -> None:
    content = bytearray(MAKERS[kind](40, 30))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[at] = data.draw(st.integers(0, 255))
    try:
        picture = examine(bytes(content))
    except BadPicture:
        return
    assert picture.width * picture.height <= PIXELS_MAX


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * BYTES_MAX, "20 MiB"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP is not read here. Send a PNG or a JPEG."),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"ID3\x03", "no picture"),
    ],
)
def test_what_is_no_picture(data: bytes, words: str) -> None:
    assert words in refused(data)


@pytest.mark.parametrize(
    ("width", "height"), [(0, 5), (5, 0), (SIDE_MAX + 1, 1), (2**31 - 1, 1), (9000, 9000)]
)
def test_sizes_that_are_refused(width: int, height: int) -> None:
    packed = zlib.compress(b"\0" * 100)
    assert "pixels" in refused(drawing.png_of(header(width, height), packed))


def test_a_bomb_is_refused_before_it_fills_the_memory() -> None:
    """Twenty megabytes that would become twenty thousand."""
    packed = zlib.compressobj(9)
    piece = packed.compress(b"\0" * (1 << 26)) + packed.flush(zlib.Z_FULL_FLUSH)
    bomb = drawing.png_of(header(100, 100), piece * 100)
    tracemalloc.start()
    assert "more data" in refused(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize(
    "change",
    [
        lambda: header(8, 8, depth=3),
        lambda: header(8, 8, depth=16, colour=3),
        lambda: header(8, 8, colour=5),
        lambda: header(8, 8, interlace=2),
    ],
)
def test_headers_that_lie(change: Callable[[], bytes]) -> None:
    assert "header" in refused(drawing.png_of(change(), zlib.compress(b"\0" * 1000)))


def test_a_palette_is_needed() -> None:
    assert "cut short" in refused(drawing.png_of(header(8, 8, colour=3), zlib.compress(b"\0" * 72)))


def test_interlaced_ones_are_read() -> None:
    """Adam7 makes more rows of the same pixels, so the data is a little longer."""
    rows = 0
    for left, top, across, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
                                    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):  # fmt: skip
        wide, high = -(-(33 - left) // across), -(-(21 - top) // down)
        rows += high * (1 + 3 * wide) if wide > 0 else 0
    data = drawing.png_of(header(33, 21, interlace=1), zlib.compress(b"\0" * rows))
    assert examine(data) == Picture("png", 33, 21)


def test_a_jpeg_of_a_thousand_scans() -> None:
    whole = drawing.jpeg()
    scan = whole[whole.index(b"\xff\xda") : -2]
    assert "scans" in refused(whole[:-2] + scan * 1000 + b"\xff\xd9")


def test_other_kinds_of_jpeg() -> None:
    for marker in (0xC3, 0xC9, 0xCB):
        assert "baseline" in refused(drawing.jpeg().replace(b"\xff\xc0", bytes([0xFF, marker]), 1))
