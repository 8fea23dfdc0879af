"""Forms: what OpenAI's client sends is read as it was meant, and garbage is the caller's fault."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.openai.references import picture_of
from app.api.openai.uploads import (
    PART_HEADERS_MAX,
    PARTS_MAX,
    Form,
    is_form,
    read_form,
    the_file,
)
from app.errors import BodyTooLarge, CallError, InvalidRequest, WrongContentType
from plugins.openai_compatible.tasks.forms import encode_form
from plugins.tasks import Media

FILES = ("image", "file")
KIND = "multipart/form-data; boundary=B"


def scope_of(kind: str, **headers: str) -> Any:
    found = [(b"content-type", kind.encode("latin-1", "replace"))]
    found += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": found}


def read(
    body: bytes, kind: str = KIND, *, piece: int = 10**9, bytes_max: int = 10**6, **headers: str
) -> Form:
    """The form in ``body``, which arrives in pieces of a size."""
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)] or [b""]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    return asyncio.run(read_form(scope_of(kind, **headers), receive, bytes_max, FILES))


def part(head: str, content: bytes = b"x") -> bytes:
    return b"--B\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def text(name: str, value: str = "x") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value.encode())


END = b"--B--\r\n"
names = st.sampled_from(["model", "prompt", "n"])
contents = st.binary(max_size=300)


@given(
    st.dictionaries(names, st.text(max_size=50)),
    st.lists(st.tuples(st.text("abc.é ", max_size=12), contents), max_size=4),
    st.integers(1, 200),
)
def test_what_was_sent_is_what_is_read(
    fields: dict[str, str], files: list[tuple[str, bytes]], piece: int
) -> None:
    """However the network cuts it, and whatever bytes the files hold."""
    sent: list[Any] = list(fields.items())
    sent += [
        ("image[]", Media(data=data, media_type="image/png", name=name)) for name, data in files
    ]
    body, kind = encode_form(sent)
    form = read(body, kind, piece=piece)
    assert form.tree == fields
    assert [each.data for each in form.files.get("image", [])] == [data for _, data in files]
    assert all(each.media_type == "image/png" for each in form.files.get("image", []))
    assert form.body_bytes == len(body)
    again, kind = encode_form(sent)
    assert read(again, kind).digest == form.digest


@given(st.binary(max_size=400), st.integers(1, 64))
def test_garbage_is_the_callers_fault(body: bytes, piece: int) -> None:
    try:
        read(body, piece=piece)
    except CallError as error:
        assert 400 <= error.status < 500


@given(st.data(), st.integers(1, 64))
def test_a_form_with_damage_is_read_or_refused(data: st.DataObject, piece: int) -> None:
    file = (
        'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png'
    )
    good = text("model", "m") + text("a[b][]", "1") + part(file, b"\x89PNG\r\n--B") + END
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[at] = data.draw(st.integers(0, 255))
        else:
            del body[at : at + data.draw(st.integers(1, 20))]
        if not body:
            return
    try:
        form = read(bytes(body), piece=piece)
    except CallError as error:
        assert 400 <= error.status < 500
    else:
        assert isinstance(form.tree, dict)


@given(st.text(max_size=80))
def test_any_content_type_is_a_form_or_refused(kind: str) -> None:
    for each in (kind, f"multipart/form-data; {kind}", f"multipart/form-data; boundary={kind}"):
        try:
            read(text("a") + END, each)
        except CallError as error:
            assert 400 <= error.status < 500


def test_names_with_brackets_are_lists_and_objects() -> None:
    form = read(
        text("timestamp_granularities[]", "word")
        + text("timestamp_granularities[]", "segment")
        + text("provider[order][]", "a")
        + text("provider[order][]", "b")
        + text("provider[zdr]", "true")
        + END
    )
    assert form.tree == {
        "timestamp_granularities": ["word", "segment"],
        "provider": {"order": ["a", "b"], "zdr": "true"},
    }


@pytest.mark.parametrize(
    "fields",
    [
        text("a") + text("a"),
        text("a") + text("a[]"),
        text("a[]") + text("a"),
        text("a[b]") + text("a[]"),
        text("a[b]") + text("a[b][c]"),
    ],
)
def test_a_field_that_comes_twice(fields: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(fields + END)
    assert (refused.value.code, refused.value.param) == ("duplicate_key", "a")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", KIND),
        (text("a"), KIND),  # no end
        (END, "multipart/form-data"),
        (END, "multipart/form-data; boundary="),
        (END, "multipart/form-data; boundary=" + "x" * 300),
        (b"\n".join([b"--B", b'Content-Disposition: form-data; name="a"', b"", b"x"]), KIND),
        (part("X-Nothing: here") + END, KIND),
        (part('Content-Disposition: attachment; name="a"') + END, KIND),
        (part("Content-Disposition: form-data") + END, KIND),
        (text("") + END, KIND),
        (text("__proto__") + END, KIND),
        (text("a" * 200) + END, KIND),
        (text("a[b][c][d][e][f]") + END, KIND),
        (text("a\x00") + END, KIND),
        (part('Content-Disposition: form-data; name="a"', b"\xff\xfe") + END, KIND),
        (part('Content-Disposition: form-data; name="a"; filename="x"') + END, KIND),
        (part('Content-Disposition: form-data; name="a"\r\nX: ' + "y" * 9000) + END, KIND),
        (
            part(
                'Content-Disposition: form-data; name="a"'
                + "".join(f"\r\nX-{n}: y" for n in range(PART_HEADERS_MAX))
            )
            + END,
            KIND,
        ),
        (b"".join(text(f"a{n}") for n in range(PARTS_MAX + 1)) + END, KIND),
    ],
)
def test_forms_that_cannot_be(body: bytes, kind: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body, kind)
    assert refused.value.status == 400


def test_as_many_parts_as_allowed_and_what_follows_the_end() -> None:
    form = read(b"".join(text(f"a{n}") for n in range(PARTS_MAX)) + END + b"epilogue", piece=7)
    assert len(form.tree) == PARTS_MAX


@pytest.mark.parametrize("length", ["500", None])
def test_a_body_past_the_bound(length: str | None) -> None:
    headers: dict[str, Any] = {} if length is None else {"content_length": length}
    with pytest.raises(BodyTooLarge):
        read(text("a", "x" * 400) + END, bytes_max=300, **headers)


def test_what_is_no_form_or_compressed() -> None:
    with pytest.raises(WrongContentType):
        read(b"{}", "application/json")
    with pytest.raises(WrongContentType):
        read(END, content_encoding="gzip")
    assert is_form(scope_of("Multipart/Form-Data; boundary=x"))
    assert not is_form(scope_of("application/json"))


def test_file_names_are_names_alone() -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="{}"\r\nContent-Type: {}'
    form = read(part(head.format("../../etc/pass\x01wd", "text/<html>")) + END)
    found = the_file(form, "file")
    assert found is not None
    assert (found.name, found.media_type) == ("passwd", "")
    twice = part(head.format("a", "audio/wav; x=y")) * 2 + END
    form = read(twice)
    assert form.files["file"][0].media_type == "audio/wav"
    with pytest.raises(InvalidRequest):
        the_file(form, "file")


def test_another_file_is_another_digest() -> None:
    digests = {
        read(body + END).digest
        for body in (
            text("model", "a") + text("prompt", "b"),
            text("model", "ab") + text("prompt", ""),
            text("model", "a"),
            part('Content-Disposition: form-data; name="file"; filename="a"', b"a"),
            part('Content-Disposition: form-data; name="file"; filename="b"', b"a"),
        )
    }
    assert len(digests) == 5


@given(
    st.recursive(
        st.none() | st.text(max_size=40) | st.integers(),
        lambda inner: st.dictionaries(st.sampled_from(["image_url", "url", "file_id"]), inner),
        max_leaves=4,
    )
)
def test_any_reference_is_a_picture_or_refused(found: Any) -> None:
    try:
        picture = picture_of(found, "images[0]")
    except InvalidRequest as error:
        assert str(error.param).startswith("images[0]")
    else:
        assert picture.data or (picture.url or "").startswith("http")
