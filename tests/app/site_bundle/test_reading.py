"""A bundle is what was signed, to the last byte, or it is refused."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.site_bundle.index import Part, SiteIndex, decode_index
from app.site_bundle.reading import opened
from local_runtime.store.blobs import StoreError
from local_runtime.store.bundle import BundleRefused, read_bundle, write_bundle
from local_runtime.store.catalog import Store
from local_runtime.store.signing import make_key
from local_runtime.store.tar import header
from tests.app.site_bundle.carried import Connected, one_file

Members = list[tuple[bytes, bytes]]


def index_of(path: Path) -> SiteIndex:
    with opened(path, None, allow_unsigned=True) as found:
        return found.index


def members_of(path: Path, index: SiteIndex) -> Members:
    with tarfile.open(path) as archive:
        found = []
        for part in index.members():
            file = archive.extractfile(part.name)
            assert file is not None
            found.append((index.header_of(part), file.read()))
        return found


def refused(path: Path, says: str | None, *keys: str) -> None:
    with pytest.raises(BundleRefused, match=says), opened(path, keys):
        pass


def test_it_is_a_plain_archive_with_the_program_first(connected: Connected, program: Path) -> None:
    path = connected.bundle(program=program)
    with tarfile.open(path) as archive:
        names = archive.getnames()
        taken = archive.extractfile("turnpike")
        assert taken is not None
        assert taken.read() == program.read_bytes()
        assert archive.getmember("turnpike").mode == 0o755
        assert archive.getmember("install").mode == 0o755
    assert names[:4] == ["bundle.json", "bundle.sig", "turnpike", "install"]
    assert {"README.md", "monitoring/alerts.yml", "LICENSES.txt", "carried.json"} < set(names)
    assert sum(name.startswith("blobs/sha256-") for name in names) == 2


def test_the_same_inputs_give_the_same_bytes(connected: Connected, program: Path) -> None:
    one, two = (
        connected.created("1.tar", program=program),
        connected.created("2.tar", program=program),
    )
    data = (connected.folder / "1.tar").read_bytes()
    assert data == (connected.folder / "2.tar").read_bytes()
    assert one.sha256 == two.sha256
    assert one.bytes == len(data)
    with opened(connected.folder / "1.tar", [connected.public]) as found:
        assert found.file_sha256 == one.sha256
        assert found.signed_by == connected.public


class Whole:
    """A bundle's bytes, a file to write others into, and who signed it."""

    def __init__(self, folder: Path) -> None:
        connected = Connected(folder)
        self.key = connected.public
        self.content = connected.bundle(program=one_file(folder)).read_bytes()
        self.path = folder / "changed.tar"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


@settings(max_examples=300)
@given(at=st.integers(0, 2**32), other=st.integers(1, 255))
@example(at=513, other=128)  # the list, no longer UTF-8
@example(at=None, other=128)  # the signature
def test_any_changed_byte_is_refused(whole: Whole, at: int | None, other: int) -> None:
    """Headers, padding and the empty end too."""
    path, key, content = whole.path, whole.key, whole.content
    at = content.index(b'"signature":"') + 20 if at is None else at % len(content)
    path.write_bytes(content[:at] + bytes([content[at] ^ other]) + content[at + 1 :])
    refused(path, None, key)


@settings(max_examples=200)
@given(at=st.integers(0, 2**32), more=st.binary(min_size=1, max_size=2000))
def test_any_cut_and_anything_more_is_refused(whole: Whole, at: int, more: bytes) -> None:
    path, key, content = whole.path, whole.key, whole.content
    path.write_bytes(content[: at % len(content)])
    refused(path, None, key)
    path.write_bytes(content + more)
    refused(path, None, key)
    path.write_bytes(content)
    with opened(path, [key]):
        pass  # it was the change


def test_whose_signature_it_is_matters(connected: Connected, program: Path) -> None:
    path = connected.bundle(program=program)
    refused(path, "is not trusted here", make_key(connected.folder / "other.pem"))
    with opened(path, None) as found:
        assert found.signed_by == connected.public
    unsigned = connected.bundle("unsigned.tar", program=program, signed=False)
    refused(unsigned, "--allow-unsigned", connected.public)
    with opened(unsigned, [], allow_unsigned=True) as found:
        assert found.signed_by is None


def test_both_kinds_of_bundle_name_the_command_of_the_other(
    connected: Connected, program: Path
) -> None:
    models = connected.folder / "models.tar"
    write_bundle(connected.store, models, connected.store.every(), connected.key)
    refused(models, "models import-bundle", connected.public)
    with pytest.raises(BundleRefused, match="turnpike bundle apply"):
        read_bundle(
            Store(connected.folder / "there"),
            connected.bundle(program=program),
            [connected.public],
        )


Forged = Callable[
    [SiteIndex, list[tuple[bytes, bytes]]], tuple[SiteIndex, list[tuple[bytes, bytes]]]
]


def renamed(name: str) -> Forged:
    """The last document has another name, in the list and in the archive."""

    def change(index: SiteIndex, members: Members) -> tuple[SiteIndex, Members]:
        at = len(index.parts) - 1
        part = msgspec.structs.replace(index.parts[at], name=name)
        forged = msgspec.structs.replace(index, parts=[*index.parts[:at], part])
        members[at] = (
            header(name, part.bytes, mode=0o644, at_s=index.at_ms // 1000),
            members[at][1],
        )
        return forged, members

    return change


def entry(kind: bytes, link: str = "") -> Forged:
    """A document's entry in the archive is something else than a file."""

    def change(index: SiteIndex, members: Members) -> tuple[SiteIndex, Members]:
        info = tarfile.TarInfo(index.parts[2].name)
        info.type, info.linkname, info.size = kind, link, index.parts[2].bytes
        members[2] = (info.tobuf(tarfile.GNU_FORMAT), members[2][1])
        return index, members

    return change


def twice(index: SiteIndex, members: Members) -> tuple[SiteIndex, Members]:
    parts = [*index.parts, index.parts[-1]]
    members.insert(len(index.parts), members[len(index.parts) - 1])
    return msgspec.structs.replace(index, parts=parts), members


def sized(size: int) -> Forged:
    """The list says another size of a document than it has."""

    def change(index: SiteIndex, members: Members) -> tuple[SiteIndex, Members]:
        part = msgspec.structs.replace(index.parts[2], bytes=index.parts[2].bytes + size)
        return msgspec.structs.replace(
            index, parts=[*index.parts[:2], part, *index.parts[3:]]
        ), members

    return change


HOSTILE: dict[str, tuple[Forged, str]] = {
    "a path out of it": (renamed("../../etc/cron.d/x"), "impossible name"),
    "an absolute path": (renamed("/etc/x"), "impossible name"),
    "deep in folders": (renamed("a/b/c"), "impossible name"),
    "a hidden name": (renamed(".profile"), "impossible name"),
    "a blob's name": (renamed("blobs/x"), "impossible name"),
    "the list's name": (renamed("bundle.json"), "impossible name"),
    "a name with a line in it": (renamed("a\nb"), "impossible name"),
    "another's name in capitals": (renamed("INSTALL"), "one file twice"),
    "one name twice": (twice, "one file twice"),
    "a symbolic link": (entry(tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
    "a hard link": (entry(tarfile.LNKTYPE, "/etc/passwd"), "a hard link"),
    "a device": (entry(tarfile.CHRTYPE), "a device"),
    "a pipe": (entry(tarfile.FIFOTYPE), "a pipe"),
    "a folder": (entry(tarfile.DIRTYPE), "a folder"),
    "a sparse file": (entry(tarfile.GNUTYPE_SPARSE), "an unusual entry"),
    "a longer file": (sized(100_000), "cut short"),
    "a shorter file": (sized(-1), "was changed"),
    "an impossible size": (sized(-(10**9)), "no proper SHA-256 or size"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_trusted_key_signed_is_looked_at_too(
    connected: Connected, program: Path, what: str
) -> None:
    change, says = HOSTILE[what]
    path = connected.bundle(program=program)
    index = index_of(path)
    forged, members = change(index, members_of(path, index))
    refused(connected.forged(path, forged, members), says, connected.public)


def test_a_list_that_lacks_the_program_is_refused(connected: Connected, program: Path) -> None:
    index = index_of(connected.bundle(program=program))
    for gone in ("turnpike", "install", "carried.json"):
        parts = [each for each in index.parts if each.name != gone]
        with pytest.raises(BundleRefused, match="lacks"):
            decode_index(msgspec.json.encode(msgspec.structs.replace(index, parts=parts)))
    with pytest.raises(BundleRefused, match="newer Turnpike"):
        decode_index(msgspec.json.encode(msgspec.structs.replace(index, format=2)))


def test_a_link_to_a_bundle_is_followed_and_a_folder_is_none(
    connected: Connected, program: Path
) -> None:
    path = connected.bundle(program=program)
    link = connected.folder / "link.tar"
    link.symlink_to(path)
    with opened(link, [connected.public]) as found:
        assert found.index.parts[0].name == "turnpike"
    with pytest.raises(StoreError, match="is not a file"), opened(connected.folder, []):
        pass


def test_parts_are_hashed_once_more_when_they_are_taken(
    connected: Connected, program: Path
) -> None:
    path = connected.bundle(program=program)
    with opened(path, [connected.public]) as found:
        part: Part = found.index.part("README.md")
        data = path.read_bytes()
        at = data.index(b"# Operating Turnpike")
        path.write_bytes(data[:at] + b"@" + data[at + 1 :])
        with pytest.raises(BundleRefused, match="changed while it was read"):
            found.content(part)
