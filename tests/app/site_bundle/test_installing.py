"""The program of a bundle into its place: out of its archive, for its user, into a home."""

import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from app.config_carried import CARRIED_FILE
from app.site_bundle.installing import unpack
from app.site_bundle.place import as_owner_of
from local_runtime.store.bundle import BundleRefused
from tests.app.site_bundle.carried import Connected, one_file, script, tree, turnpike

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="services of Linux")


def packed(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> BytesIO:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for each in members:
            info, data = each if isinstance(each, tuple) else (each, b"")
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    out.seek(0)
    return out


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("archive", "size", "says"),
    [
        (packed((member("p/turnpike"), b"12345")), 4, "more than it says"),
        (packed((member("p/turnpike"), b"12345")), 6, "less than it says"),
        (packed((member("p/big"), bytes(100 << 20))), 10, "more than it says"),
        (packed((member("p/../../x"), b"1")), 1, "refused"),
        (packed((member("p//etc/x"), b"1")), 1, ""),
        (packed(member("p/x", tarfile.SYMTYPE, "../../../etc/passwd")), 0, "refused"),
        (packed(member("p/x", tarfile.LNKTYPE, "/etc/passwd")), 0, "refused"),
        (packed(member("p/x", tarfile.CHRTYPE)), 0, "refused"),
        (BytesIO(b"no archive"), 0, "refused"),
        (BytesIO(packed((member("p/x"), b"1")).getvalue()[:-30]), 1, "refused"),
    ],
)
def test_an_archive_that_lies_or_reaches_out_is_refused(
    tmp_path: Path, archive: BytesIO, size: int, says: str
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    archive.seek(0)
    if says:
        with pytest.raises(BundleRefused, match=says):
            unpack(archive, into, size)
    else:
        unpack(archive, into, size)  # its name is taken as one in the folder
        assert (into / "etc/x").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["into"]
    assert sum(each.stat().st_size for each in into.rglob("*") if each.is_file()) <= max(size, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_what_is_written_for_the_service_is_the_services() -> None:
    # Where others may go: a test's own folder lies in one that only its user may enter.
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        os.chown(one, 12345, 12346)
        before = (os.geteuid(), os.getegid(), os.getgroups())
        with as_owner_of(Path(one)):
            Path(one, "file").write_text("x")
            with pytest.raises(PermissionError):
                Path(other, "file").write_text("x")
        found = Path(one, "file").stat()
        assert (found.st_uid, found.st_gid) == (12345, 12346)
        assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_into_a_home_without_a_shell_or_a_service(
    connected: Connected, program: Path, tmp_path: Path
) -> None:
    bundle = connected.bundle(program=program)
    home = tmp_path / "home"
    home.mkdir()
    nothing = {"HOME": str(home), "PATH": "", "XDG_DATA_HOME": str(home / "share")}
    words = ("bundle", "apply", "--home", "--trust-key", connected.public)
    done = turnpike(*words, bundle, **nothing)
    assert done.returncode == 0, done.stderr
    (tmp_path / "new").mkdir()
    newer = connected.bundle("new.tar", program=one_file(tmp_path / "new", "1.3.0"))
    assert turnpike(*words, newer, **nothing).returncode == 0
    before = tree(home)
    assert "nothing is changed" in turnpike(*words, newer, **nothing).stdout
    assert tree(home) == before
    ran = subprocess.run(
        [home / ".local/bin/turnpike", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "turnpike 1.3.0\n"
    assert sorted(each.name for each in (home / ".local/lib/turnpike").iterdir()) == [
        "1.2.3", "1.3.0", "current", "previous",
    ]  # fmt: skip
    assert (home / "share/turnpike" / CARRIED_FILE).is_file()
    link = home / ".local/bin/turnpike"
    link.unlink()
    link.write_bytes(script("0"))
    refused = turnpike(*words, newer, **nothing)
    assert "was not made by Turnpike" in refused.stderr
    assert msgspec.json.decode((home / "share/turnpike" / CARRIED_FILE).read_bytes())
