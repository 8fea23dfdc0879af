"""Bundles: what was signed arrives whole; what was changed, or reaches outside, is refused."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from local_runtime.store.blobs import StoreError
from local_runtime.store.bundle import BundleRefused, read_bundle, write_bundle
from local_runtime.store.catalog import Store
from local_runtime.store.importing import import_path
from local_runtime.store.names import StoreName
from local_runtime.store.signing import make_key, read_key, sign
from tests.local_runtime.store import gguf_files


class Site:
    """A store with two models, a key, and a bundle of both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "here")
        for seed, name in enumerate(["a/one", "two"]):
            path = folder / f"m{seed}-Q4_0.gguf"
            path.write_bytes(gguf_files.whole(500, seed=seed))
            import_path(self.store, path, name, link=False)
        self.public = make_key(folder / "key.pem")
        self.key = read_key(folder / "key.pem")
        self.bundle = folder / "models.tar"
        write_bundle(self.store, self.bundle, self.store.every(), self.key)
        self.there = Store(folder / "there")

    def taken(self, data: bytes | None = None, *, allow_unsigned: bool = False) -> list[str]:
        if data is not None:
            self.bundle.write_bytes(data)
        keys = [self.public]
        read = read_bundle(self.there, self.bundle, keys, allow_unsigned=allow_unsigned)
        return [str(each.name) for each in read]

    def refused(self, data: bytes, says: str) -> None:
        with pytest.raises(BundleRefused, match=says):
            self.taken(data)
        assert self.there.every() == []
        assert list(self.there.blobs.partial.iterdir()) == []

    def members(self) -> list[tuple[tarfile.TarInfo, bytes]]:
        with tarfile.open(self.bundle) as archive:
            found = []
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found.append((member, file.read()))
            return found


def archived(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_what_was_written_arrives(site: Site) -> None:
    assert site.taken() == ["a/one:Q4_0", "two:Q4_0"]
    for name in ("a/one", "two"):
        ours, theirs = site.store.get(StoreName(name)), site.there.get(StoreName(name))
        assert ours == theirs
        assert site.there.weights_path(theirs).read_bytes() == (
            site.store.weights_path(ours).read_bytes()
        )
    assert site.taken() == ["a/one:Q4_0", "two:Q4_0"]  # again changes nothing


def test_the_private_key_is_its_owners_alone_and_is_not_overwritten(site: Site) -> None:
    path = site.folder / "key.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match="is there already"):
        make_key(path)


def test_another_key_is_not_trusted(site: Site) -> None:
    with pytest.raises(BundleRefused, match="is not trusted here"):
        read_bundle(site.there, site.bundle, ["0" * 64])
    with pytest.raises(BundleRefused, match="is not trusted here"):
        read_bundle(site.there, site.bundle, [], allow_unsigned=True)


def test_an_unsigned_one_needs_a_word(site: Site) -> None:
    site.bundle.unlink()
    write_bundle(site.store, site.bundle, site.store.every(), None)
    with pytest.raises(BundleRefused, match="--allow-unsigned"):
        site.taken()
    assert len(site.taken(allow_unsigned=True)) == 2


def test_every_cut_is_refused(site: Site) -> None:
    data = site.bundle.read_bytes()
    end = len(data.rstrip(b"\0"))
    for length in [*range(0, end, 397), end - 1]:
        site.refused(data[:length], "cut short|not what was promised|missing|is damaged")


def test_every_flipped_bit_is_refused(site: Site) -> None:
    """In the headers, the list, the signature and the content."""
    data = site.bundle.read_bytes()
    end = len(data.rstrip(b"\0"))
    accepted = 0
    for at in range(0, end, 211):
        changed = bytearray(data)
        changed[at] ^= 4
        site.bundle.write_bytes(changed)
        try:
            site.taken()
        except StoreError:
            assert site.there.every() == []
        else:
            accepted += 1  # padding between members
            for manifest in site.there.every():
                site.there.remove(manifest.name)
    assert accepted < 12


def other_key(site: Site) -> bytes:
    members = site.members()
    public, signature = sign(Ed25519PrivateKey.generate(), members[0][1])
    mixed = {"key": site.public, "signature": signature}
    assert public != site.public
    return archived([members[0], (members[1][0], msgspec.json.encode(mixed)), *members[2:]])


def changed_list(site: Site) -> bytes:
    members = site.members()
    text = members[0][1].replace(b'"a/one"', b'"b/one"')
    return archived([(members[0][0], text), *members[1:]])


def signed_anew(site: Site, change: Callable[[dict[str, object]], None]) -> bytes:
    """A list with something bad in it, by a trusted key: the list itself is checked too."""
    members = site.members()
    index = msgspec.json.decode(members[0][1])
    change(index)
    text = msgspec.json.encode(index)
    public, signature = sign(site.key, text)
    signed = msgspec.json.encode({"key": public, "signature": signature})
    return archived([(members[0][0], text), (members[1][0], signed), *members[2:]])


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def after_the_list(site: Site, *more: tuple[tarfile.TarInfo, bytes]) -> bytes:
    members = site.members()
    return archived([*members[:2], *more, *members[2:]])


HOSTILE: dict[str, tuple[Callable[[Site], bytes], str]] = {
    "another's signature": (other_key, "signature is wrong"),
    "a changed list": (changed_list, "signature is wrong"),
    "nothing": (lambda _site: b"", "cut short"),
    "no archive": (lambda _site: b"x" * 5000, "not a tar archive"),
    "a file outside": (
        lambda site: after_the_list(site, (entry("../../etc/cron.d/x"), b"x")), "outside of itself"
    ),
    "an absolute path": (
        lambda site: after_the_list(site, (entry("/etc/x"), b"x")), "outside of itself"
    ),
    "a symbolic link": (
        lambda site: after_the_list(site, (entry("x", tarfile.SYMTYPE, "/etc"), b"")),
        "a symbolic link",
    ),
    "a hard link": (
        lambda site: after_the_list(site, (entry("x", tarfile.LNKTYPE, "/etc/passwd"), b"")),
        "a hard link",
    ),
    "a device": (lambda site: after_the_list(site, (entry("x", tarfile.CHRTYPE), b"")), "a device"),
    "a pipe": (lambda site: after_the_list(site, (entry("x", tarfile.FIFOTYPE), b"")), "a pipe"),
    "a folder": (lambda site: after_the_list(site, (entry("x", tarfile.DIRTYPE), b"")), "a folder"),
    "an endless name": (
        lambda site: after_the_list(site, (entry("x" * 5000), b"")), "an unusual entry"
    ),
    "another file": (lambda site: after_the_list(site, (entry("x"), b"x")), "where blobs/sha256-"),
    "more at the end": (
        lambda site: archived([*site.members(), (entry("y"), b"y")]), "more than it says"
    ),
    "a bomb of a list": (
        lambda _site: archived([(entry("bundle.json"), b" " * (17 << 20))]), "too large"
    ),
    "a blob of another size": (
        lambda site: archived([*site.members()[:2], (site.members()[2][0], b"short")]),
        "bytes instead of",
    ),
    "a size that is impossible": (
        lambda site: _with_size(site, b"\xff" * 12), "impossible|is damaged"
    ),
    "a model named outside": (
        lambda site: signed_anew(site, lambda i: _model(i).update(id="../x")), "not the name"
    ),
    "a file named outside": (
        lambda site: signed_anew(site, lambda i: _file(i).update(name="../../x.gguf")), "file name"
    ),
    "code": (
        lambda site: signed_anew(site, lambda i: _file(i).update(name="x.py")), "only GGUF"
    ),
    "an unknown field": (lambda site: signed_anew(site, lambda i: i.update(run="x")), "be read"),
    "another format": (lambda site: signed_anew(site, lambda i: i.update(format=2)), "version"),
}  # fmt: skip


def _model(index: dict[str, object]) -> dict[str, object]:
    models = index["models"]
    assert isinstance(models, list)
    found: dict[str, object] = models[0]
    return found


def _file(index: dict[str, object]) -> dict[str, object]:
    files = _model(index)["files"]
    assert isinstance(files, list)
    found: dict[str, object] = files[0]
    return found


def _with_size(site: Site, size: bytes) -> bytes:
    data = bytearray(site.bundle.read_bytes())
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_hostile_is_refused(site: Site, what: str) -> None:
    make, says = HOSTILE[what]
    before = sorted(os.listdir(site.folder))
    site.refused(make(site), says)
    assert sorted(os.listdir(site.folder)) == before


def test_a_blob_with_a_bad_header_is_refused_though_signed(site: Site) -> None:
    """Trust in the sender does not replace looking at what llama.cpp would read."""
    bad = bytearray(gguf_files.whole(500, seed=9))
    bad[16:24] = (2**40).to_bytes(8, "little")
    path = site.folder / "bad-Q4_0.gguf"
    path.write_bytes(gguf_files.whole(500, seed=9))
    manifest = import_path(site.store, path, "bad", link=False)
    partial = site.store.blobs.partial_path("bad")
    partial.write_bytes(bad)
    digest = site.store.blobs.adopt(partial)
    file = msgspec.structs.replace(manifest.files[0], sha256=digest)
    site.bundle.unlink()
    write_bundle(
        site.store, site.bundle, [msgspec.structs.replace(manifest, files=[file])], site.key
    )
    site.refused(site.bundle.read_bytes(), r"bad-Q4_0\.gguf: .* too many")
