"""Writes a site's bundle: the same inputs give the same bytes, whole or not at all."""

import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.config import Config
from app.config_carried import CARRIED_FILE
from app.site_bundle.carrying import carried_of
from app.site_bundle.index import CARRIED, INSTALL, PROGRAM, CannotCarry, Part, Program, SiteIndex
from app.site_bundle.program import Carriable, carriable
from local_runtime.store.blobs import open_to_read, sync_folder
from local_runtime.store.bundle import Tell, signature_of
from local_runtime.store.catalog import Manifest, Store
from local_runtime.store.tar import padded

_CHUNK = 4 << 20
_FREE_BYTES_KEPT = 16 << 20


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. ``left_out`` says in words what did not go in."""

    bytes: int
    sha256: str
    index: SiteIndex
    left_out: list[str]


class _Content:
    """Where the bytes of the parts are, by name."""

    def __init__(self, program: IO[bytes]) -> None:
        self.program = program
        self.small: dict[str, bytes] = {}


def create(
    path: Path,
    config: Config,
    config_file: Path | None,
    store: Store,
    models: Sequence[Manifest],
    program: Path,
    key: Ed25519PrivateKey | None,
    tell: Tell = lambda _what, _done, _total: None,
) -> Created:
    """Write the new file ``path``. Raises CannotCarry, StoreError, OSError."""
    if path.exists():
        raise CannotCarry(f"{path} is there already: name another file, or move it away.")
    with carriable(program, path.parent, tell) as found:
        at_ms = _made_at_ms(found, models, config, config_file)
        carried, left_out = carried_of(config, models, at_ms)
        content = _Content(found.file)
        content.small = {CARRIED: msgspec.json.format(msgspec.json.encode(carried), indent=1)}
        content.small |= found.documents
        index = _index(found, content, models, at_ms, tell)
        data = msgspec.json.encode(index)
        head = index.head(data, signature_of(data, key))
        size = index.file_bytes(len(head))
        _check_room(path, size)
        sha256 = _write(path, store, index, head, content, tell)
    return Created(bytes=size, sha256=sha256, index=index, left_out=left_out)


def _made_at_ms(
    program: Carriable, models: Sequence[Manifest], config: Config, file: Path | None
) -> int:
    """When the newest thing that goes in was made; what reproducible builds say where they do."""
    asked = os.environ.get("SOURCE_DATE_EPOCH", "")
    if asked.isdigit():
        return int(asked) * 1000
    times = [program.at_s * 1000, *(each.at_ms for each in models)]
    for each in (file, config.data_dir() / CARRIED_FILE):
        if each is not None and each.exists():
            times.append(each.stat().st_mtime_ns // 1_000_000)
    return max(times)


def _index(
    program: Carriable, content: _Content, models: Sequence[Manifest], at_ms: int, tell: Tell
) -> SiteIndex:
    name = PROGRAM
    if program.form == "folder":
        name = f"turnpike-{program.version}-{program.system}-{program.machine}.tar.gz"
    size = program.file.seek(0, os.SEEK_END)
    program.file.seek(0)
    hashed, done = hashlib.sha256(), 0
    while chunk := program.file.read(_CHUNK):
        hashed.update(chunk)
        done += len(chunk)
        tell("reading the program", done, size)
    # What is taken out by hand stands before what only the program reads.
    parts = [Part(name, size, hashed.hexdigest(), executable=program.form == "file")]
    parts += [
        Part(each, len(data), hashlib.sha256(data).hexdigest(), executable=each == INSTALL)
        for each, data in sorted(content.small.items(), key=lambda item: (item[0] != INSTALL, item))
    ]
    return SiteIndex(
        at_ms=at_ms,
        program=Program(
            part=name,
            form="file" if program.form == "file" else "folder",
            version=program.version,
            edition=program.edition,
            system=program.system,
            machine=program.machine,
            glibc_min=program.glibc_min,
            unpacked_bytes=program.unpacked_bytes,
        ),
        parts=parts,
        models=sorted(models, key=lambda each: each.name),
    )


def _check_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size + _FREE_BYTES_KEPT > free:
        raise CannotCarry(
            f"The bundle takes {size / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free in"
            f" {path.parent}: nothing was written. Name a file on another disk."
        )


def _write(
    path: Path, store: Store, index: SiteIndex, head: bytes, content: _Content, tell: Tell
) -> str:
    """The SHA-256 of the file, which is on the disk when this returns."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            out = _Hashing(file, index.file_bytes(len(head)), tell)
            out.write(head)
            for part in index.members():
                out.write(index.header_of(part))
                with _source(store, part, index, content) as source:
                    out.copy(source, part)
            out.write(index.tail(len(head)))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            raise CannotCarry(f"{path} came into being meanwhile: name another file.")
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno == errno.EFBIG:
            raise CannotCarry(
                f"{path.parent} holds no file of this size: format the disk with exFAT or ext4"
                " instead of FAT32."
            ) from error
        raise
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return out.whole.hexdigest()


def _source(
    store: Store, part: Part, index: SiteIndex, content: _Content
) -> AbstractContextManager[IO[bytes]]:
    if part.name == index.program.part:
        content.program.seek(0)
        return nullcontext(content.program)
    if part.name in content.small:
        return BytesIO(content.small[part.name])
    return os.fdopen(open_to_read(store.blobs.path(part.sha256)), "rb")


class _Hashing:
    """Writes, hashes all that it writes, and each part for itself."""

    def __init__(self, file: IO[bytes], total: int, tell: Tell) -> None:
        self.whole = hashlib.sha256()
        self._file = file
        self._total = total
        self._tell = tell

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.whole.update(data)

    def copy(self, source: IO[bytes], part: Part) -> None:
        """All of ``source``, which must be what the list says. Raises CannotCarry."""
        hashed, size = hashlib.sha256(), 0
        while chunk := source.read(_CHUNK):
            hashed.update(chunk)
            size += len(chunk)
            self.write(chunk)
            self._tell("writing", self._file.tell(), self._total)
        if size != part.bytes or hashed.hexdigest() != part.sha256:
            raise CannotCarry(
                f"{part.name} is not what it was: `turnpike models show --check NAME` finds a model"
                " that was damaged, and `turnpike models rm` with `models pull` mends it."
            )
        self.write(bytes(padded(size) - size))
