"""One file to carry in: from a connected machine to a site that has no network and nothing else.

The commands are those of the operators' page, ``packaging/README.md``.
"""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_readme import blocks
from tests.frozen.alone import MODEL
from tests.frozen.conftest import ROOT
from tests.frozen.test_binary import LOADER, bare_root
from tests.local_runtime.calls import smollm_path
from tests.packaging.test_install_as_root import own_mounts

BUSYBOX = Path("/usr/bin/busybox")
PAGE = (ROOT / "packaging" / "README.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## A site without a network") :].partition("\n## ")[0]
PRICES = """
[local.hardware]
name = "rack"
price_usd_per_second = "0.0123"
"""
NANO_PER_SECOND = 12_300_000

pytestmark = [
    pytest.mark.skipif(not own_mounts(), reason="needs root and namespaces"),
    pytest.mark.skipif(not LOADER.exists(), reason="written for glibc on x86-64"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox for the site's shell and tar"),
]


def commands() -> tuple[list[str], list[str]]:
    """What the page says for the connected machine, and what for the site."""
    connected, site = blocks("console", SECTION)
    return connected.splitlines(), site.splitlines()


def connected_machine(place: Path, program: Path) -> tuple[Path, str, str]:
    """A bundle, its sum and the public key, by the page's commands."""
    place.mkdir()
    config, data = place / "config.toml", place / "data"
    config.write_text(PRICES)
    tool = [str(program), "--config", str(config), "--data-dir", str(data)]
    said = ""
    for line in commands()[0]:
        words = shlex.split(line)
        assert words[0] == "turnpike"
        if words[1:3] == ["models", "pull"]:  # there is no network here either
            model = shutil.copy(smollm_path(), place)
            words = ["turnpike", "models", "import", str(model), "--name", MODEL]
        where = [word.replace("/var/lib/turnpike/", f"{place}/") for word in words[1:]]
        done = subprocess.run(
            [*tool, *where],
            env={"TURNPIKE_UNPACK_DIR": str(place)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said += done.stdout
    (made,) = place.glob("*.tar")
    digest, key = (re.search(rf"{word} +([0-9a-f]{{64}})\n", said) for word in ("256", "key"))
    assert digest
    assert key
    assert hashlib.sha256(made.read_bytes()).hexdigest() == digest[1]
    assert f"sudo ./turnpike bundle apply {made.name} --trust-key {key[1]}" in said
    return made, digest[1], key[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A root with the C library, a shell with the usual tools, and a user for the service."""
    root = bare_root(tmp_path / "root", BUSYBOX)
    (root / "turnpike").unlink()
    for name in ("bin", "etc", "root"):
        (root / name).mkdir()
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nturnpike:x:990:990::/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nturnpike:x:990:\n")
    (root / "tmp").chmod(0o1777)
    (root / "dev/null").chmod(0o666)
    install = ["chroot", str(root), "/bin/busybox", "--install", "-s", "/bin"]
    subprocess.run(install, check=True)
    tmp_path.chmod(0o755)
    return root


@pytest.mark.timeout(400)
def test_the_whole_journey_of_a_bundle(one_file: Path, site: Path, tmp_path: Path) -> None:
    made, digest, key = connected_machine(tmp_path / "connected", one_file)
    made.rename(site / "root" / "site.tar")
    have_strace = shutil.which("strace") is not None
    trace = tmp_path / "trace"
    given = [line.replace("$SUM", digest).replace("$KEY", key) for line in commands()[1]]
    again = [line for line in given if "apply" in line]
    done = subprocess.run(
        [
            "unshare", "--net", sys.executable, "-m", "tests.frozen.at_a_site",
            str(site), str(trace) if have_strace else "", *given[:-1], *again, given[-1],
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert "site.tar: OK" in told["said"][0]
    assert "nothing is changed" in told["said"][-2]
    assert told["text"]
    assert told["status"] == "0", told["told"]
    assert "Traceback" not in told["told"]
    (row,) = told["usage"]
    assert (row["model"], row["provider"], row["outcome"]) == (MODEL, "local", "truncated")
    # Rounded up once, to the nano.
    assert row["cost_nano_usd"] == -(-row["compute_ns"] * NANO_PER_SECOND // 10**9)
    assert row["cost_nano_usd"] > 0
    data = site / "var/lib/turnpike"
    assert {each.stat().st_uid for each in (data, *data.rglob("*"))} == {990}
    assert (site / "usr/local/lib/turnpike/current/README.md").read_text() == PAGE
    if not have_strace:
        pytest.skip("the journey went well; strace is missing, so its sockets were not looked at")
    assert (told["ready"], told["traced"]) == (200, "0")
    assert_no_socket_but_its_own(trace.read_text().splitlines())


def calls(lines: list[str], name: str) -> Iterator[str]:
    """What follows the name of a system call, for each time that it was made."""
    for line in lines:
        found = re.search(rf"\d+ +(?:<\.\.\. )?{name}(?:\(| resumed>)(.*)", line)
        if found:
            yield found[1]


def assert_no_socket_but_its_own(lines: list[str]) -> None:
    """From the start of the server to its end, in all of its processes."""
    for made in calls(lines, "socket"):
        # AF_UNIX: the C library asks a daemon of this machine (nscd) for the user's name.
        assert made.startswith(("AF_UNIX,", "AF_INET, SOCK_STREAM")), made
    listening = [made for made in calls(lines, "socket") if made.startswith("AF_INET")]
    assert len(listening) == 1
    bound = list(calls(lines, "bind"))
    assert [each for each in bound if 'inet_addr("127.0.0.1")' in each] == bound
    assert len(bound) == 1
    for each in calls(lines, "connect"):
        assert 'sun_path="/var/run/nscd/socket"' in each, each
    for each in calls(lines, "socketpair"):
        assert each.startswith("AF_UNIX,"), each
    # What is sent goes to whoever connected: no call names an address to send to.
    for name in ("sendto", "sendmsg", "sendmmsg"):
        for each in calls(lines, name):
            assert "sa_family=AF_INET" not in each, each
            assert "AF_NETLINK" not in each, each
    assert list(calls(lines, "listen"))
    assert list(calls(lines, "accept4")), "nobody was seen to connect: the trace shows nothing"


def test_the_trace_is_read_right() -> None:
    foreign = [
        "7  socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = 3",
        "7  socket(AF_NETLINK, SOCK_RAW|SOCK_CLOEXEC, NETLINK_ROUTE) = 3",
        '7  connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("9.9.9.9")}, 16)',
    ]
    own = [
        "7  socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 3",
        '7  bind(3, {sa_family=AF_INET, sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        "7  listen(3, 65535) = 0",
        "7  accept4(3, NULL, NULL, SOCK_CLOEXEC) = 4",
    ]
    assert_no_socket_but_its_own(own)
    for line in foreign:
        with pytest.raises(AssertionError):
            assert_no_socket_but_its_own([*own, line])


def test_the_folder_edition_carries_itself_too(folder: Path, tmp_path: Path) -> None:
    tool = [str(folder / "turnpike"), "--data-dir", str(tmp_path / "data")]
    env = {"HOME": str(tmp_path / "home"), "PATH": ""}

    def run(*words: str) -> str:
        done = subprocess.run(
            [*tool, *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    key = run("models", "bundle", "--make-key").strip()
    made = json.loads(run("bundle", "create", "site.tar", "--json"))
    assert made["content"]["program"]["form"] == "folder"
    assert made["public_key"] == key
    run("bundle", "apply", "site.tar", "--home", "--trust-key", key)
    there = tmp_path / "home/.local/bin/turnpike"
    told = subprocess.run([there, "version", "--json"], env=env, capture_output=True, check=True)
    assert json.loads(told.stdout)["turnpike"] == made["content"]["program"]["version"]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    place = there.resolve().parent
    assert names <= {str(path.relative_to(place)) for path in place.rglob("*")}
