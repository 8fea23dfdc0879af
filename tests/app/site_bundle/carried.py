"""A connected machine in a folder: a program, a store with two small models, prices, a key."""

import json
import os
import shlex
import struct
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec

from app.config import Config, load
from app.site_bundle.create import Created, create
from app.site_bundle.index import SiteIndex
from local_runtime.store.bundle import signature_of
from local_runtime.store.catalog import Store
from local_runtime.store.importing import import_path
from local_runtime.store.signing import make_key, read_key
from tests.local_runtime.store import gguf_files
from tests.tidy.tree import ROOT

AT_S = 1_790_000_000
CONFIG = """
[local.hardware]
name = "rack"
price_usd_per_second = "0.0003"

[[local.models]]
id = "acme/served"
source = "store:a/one"
context_length = 512
threads = 3

[[providers]]
id = "lan"
plugin = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"

[[providers.models]]
id = "acme/tiny"
price = { input = "0.20", output = "0.60" }

[[providers.models.prices]]
from = "2031-01-01"
input = "0.10"
output = "0.30"
"""


def program_folder(place: Path, version: str = "1.2.3", *, head: bytes = b"", **facts: Any) -> Path:
    """What ``make binary`` packs; its program is a script that runs this source."""
    folder = place / f"turnpike-{version}"
    (folder / "_internal").mkdir(parents=True)
    edition = {"edition": "core", "version": version, **facts}
    (folder / "_internal/turnpike-edition.json").write_text(json.dumps(edition))
    (folder / "_internal/library.so").write_bytes(b"code" * 50)
    (folder / "_internal/link.so").symlink_to("library.so")
    (folder / "_internal/LICENSES.txt").write_text("theirs")
    (folder / "monitoring").mkdir()
    (folder / "monitoring/alerts.yml").write_text("groups: []\n")
    for each in ("install", "turnpike.service", "turnpike.socket", "README.md"):
        (folder / each).write_bytes((ROOT / "packaging" / each).read_bytes())
    (folder / "install").chmod(0o755)
    (folder / "turnpike").write_bytes(head or script(version))
    (folder / "turnpike").chmod(0o755)
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (AT_S, AT_S), follow_symlinks=False)
    return folder


def script(version: str) -> bytes:
    """Says its version, and is this source for the rest."""
    return (
        f'#!/bin/sh\n[ "$1" != --version ] || {{ echo "turnpike {version}"; exit; }}\n'
        f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)}"
        ' -m app "$@"\nexit\n'
    ).encode()


def one_file(place: Path, version: str = "1.2.3", *, head: bytes = b"", **facts: Any) -> Path:
    """The same as one file: a front, the folder, and where that is."""
    folder = program_folder(place, version, **facts)
    plain = BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, str(path.relative_to(folder)), recursive=False)
    front = head or script(version)
    file = place / f"turnpike-{version}-file"
    packed = plain.getvalue()
    footer = b"TURNPIKE" + struct.pack("<QQ", len(front), len(packed))
    file.write_bytes(front + packed + footer)
    file.chmod(0o755)
    return file


class Connected:
    """The machine that bundles are made on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "config.toml"
        self.file.write_text(CONFIG)
        os.utime(self.file, (AT_S, AT_S))
        self.data = folder / "data"
        self.store = Store(self.data / "models")
        for seed, name in enumerate(["a/one", "two"]):
            path = folder / f"m{seed}-Q4_0.gguf"
            path.write_bytes(gguf_files.whole(500, seed=seed))
            import_path(self.store, path, name, link=False)
        self.public = make_key(self.data / "bundle_key.pem")
        self.key = read_key(self.data / "bundle_key.pem")

    @property
    def config(self) -> Config:
        return load(self.file, str(self.data))

    def bundle(self, name: str = "site.tar", *, program: Path, signed: bool = True) -> Path:
        """A bundle of everything."""
        self.created(name, program=program, signed=signed)
        return self.folder / name

    def created(self, name: str, *, program: Path, signed: bool = True) -> Created:
        return create(
            self.folder / name,
            self.config,
            self.file,
            self.store,
            self.store.every(),
            program,
            self.key if signed else None,
        )

    def forged(self, path: Path, index: SiteIndex, members: list[tuple[bytes, bytes]]) -> Path:
        """A bundle with this list, signed by us, and these headers and contents behind it."""
        data = msgspec.json.encode(index)
        whole = index.head(data, signature_of(data, self.key))
        for head, content in members:
            whole += head + content + bytes(-len(content) % 512)
        whole += bytes(1024 + -(len(whole) + 1024) % 10240)
        path.write_bytes(whole)
        return path


def turnpike(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, from this source."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TURNPIKE_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *map(str, words)],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def tree(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in it: mode, time and content."""
    found = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        content = b""
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (seen.st_mode, seen.st_mtime_ns, content)
    return found
