"""Taking in a bundle: all of it, once, or nothing; by the real `install`, into a tree."""

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from app.config import load
from app.config_carried import CARRIED_FILE, Carried, read_carried
from local_runtime.store.catalog import Store
from tests.app.site_bundle.carried import (
    AT_S,
    Connected,
    one_file,
    program_folder,
    tree,
    turnpike,
)
from tests.small_disk import CAN_MOUNT, small_disk
from tests.tidy.tree import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="services of Linux")


class Site:
    """A tree that `bundle apply` installs into."""

    def __init__(self, root: Path, key: str) -> None:
        self.root = root
        self.key = key
        self.lib = root / "usr/local/lib/turnpike"
        self.data = root / "var/lib/turnpike"
        self.config = root / "etc/turnpike/config.toml"

    def apply(self, bundle: Path, *words: str) -> subprocess.CompletedProcess[str]:
        root = ("--root", self.root, "--trust-key", self.key)
        return turnpike("bundle", "apply", bundle, *root, *words)

    def good(self, bundle: Path, *words: str) -> str:
        done = self.apply(bundle, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, bundle: Path, says: str, *words: str) -> None:
        """It says why, and nothing has changed."""
        before = tree(self.root) if self.root.exists() else None
        done = self.apply(bundle, *words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert says in done.stderr
        assert (tree(self.root) if self.root.exists() else None) == before

    def carried(self) -> Carried:
        found = read_carried(self.data)
        assert found is not None
        return found

    def current(self) -> str:
        return os.readlink(self.lib / "current")


@pytest.fixture
def site(tmp_path: Path, connected: Connected) -> Site:
    return Site(tmp_path / "site", connected.public)


def test_everything_arrives_and_a_second_time_changes_nothing(
    site: Site, connected: Connected, program: Path
) -> None:
    bundle = connected.bundle(program=program)
    told = site.good(bundle, "--dry-run")
    assert "would install Turnpike 1.2.3" in told
    assert not site.root.exists()
    site.good(bundle)
    there = site.lib / "1.2.3"
    assert site.current() == "1.2.3"
    assert (there / "turnpike").read_bytes() == program.read_bytes()
    for document in ("README.md", "LICENSES.txt", "monitoring/alerts.yml", "install"):
        assert (there / document).is_file()
    names = [str(each.name) for each in Store(site.data / "models").every()]
    assert names == ["a/one:Q4_0", "two:Q4_0"]
    assert not list(site.root.rglob(".turnpike-bundle"))
    before = tree(site.root)
    told = site.good(bundle)
    assert "nothing is changed" in told
    assert tree(site.root) == before
    data = json.loads(site.good(bundle, "--json"))
    assert (data["changed"], data["plan"]["program"], data["next"]) == (False, False, [])
    assert json.loads(turnpike("--data-dir", site.data, "config", "show", "--json").stdout)


def test_what_a_killed_call_left_goes_although_all_is_done(
    site: Site, connected: Connected, program: Path
) -> None:
    bundle = connected.bundle(program=program)
    site.good(bundle)
    before = list(tree(site.root))
    for name in (".turnpike-bundle", ".new.1.2.3.77"):  # where a call unpacks, and ``install``
        (site.lib / name / "docs").mkdir(parents=True)
        (site.lib / name / "docs/README.md").write_text("half")
    assert "nothing is changed" in site.good(bundle)
    assert list(tree(site.root)) == before


def test_prices_and_served_models_are_those_of_the_connected_machine(
    site: Site, connected: Connected, program: Path
) -> None:
    site.good(connected.bundle(program=program))
    config = load(site.config, str(site.data))
    assert config.local.hardware.price_usd_per_second == "0.0003"
    served = {each.id: each for each in config.local_models()}
    assert set(served) == {"acme/served", "two"}
    assert served["acme/served"].source == "store:a/one:Q4_0"
    assert served["acme/served"].context_length == 512
    assert served["acme/served"].threads is None  # that is for another machine's processor
    assert config.providers == []
    shown = turnpike("--data-dir", site.data, "config", "show", "--origin").stdout
    assert 'price_usd_per_second = "0.0003"  # bundle' in shown
    # A provider of the site without a price has the carried one, dated prices too.
    lan = (
        '[[providers]]\nid = "lan"\nplugin = "openai_compatible"\nbase_url = "http://10.0.0.7/v1"\n'
    )
    site.config.write_text(f'{lan}[[providers.models]]\nid = "acme/tiny"\n')
    (model,) = load(site.config, str(site.data)).providers[0].models
    assert model.price is not None
    assert (model.price.input, model.prices[0].output) == ("0.20", "0.30")


def test_the_configuration_of_the_site_wins_and_that_is_said(
    site: Site, connected: Connected, program: Path
) -> None:
    bundle = connected.bundle(program=program)
    site.good(bundle)
    mine = '[local.hardware]\nprice_usd_per_second = "0.5"\n'
    mine += '[[local.models]]\nid = "two"\nsource = "file:/srv/two.gguf"\n'
    site.config.write_text(mine)
    told = site.good(bundle)
    assert "wins: the price of this machine's time" in told
    assert "wins: the source of two" in told
    config = load(site.config, str(site.data))
    assert config.local.hardware.price_usd_per_second == "0.5"
    assert [each.source for each in config.local.models if each.id == "two"] == [
        "file:/srv/two.gguf"
    ]


def test_a_configuration_that_waits_for_a_price_gets_it(
    site: Site, connected: Connected, program: Path
) -> None:
    site.config.parent.mkdir(parents=True)
    lan = (
        '[[providers]]\nid = "lan"\nplugin = "openai_compatible"\nbase_url = "http://10.0.0.7/v1"\n'
    )
    site.config.write_text(f'{lan}[[providers.models]]\nid = "acme/tiny"\n')
    site.good(connected.bundle(program=program))
    assert load(site.config, str(site.data)).providers[0].models[0].price is not None
    site.config.write_text(f'{lan}[[providers.models]]\nid = "acme/unknown"\n')
    later = connected.folder / "later.tar"
    os.utime(connected.file, (AT_S + 10**8, AT_S + 10**8))
    connected.created(later.name, program=program)
    site.refused(later, "providers[0].models[0].price: missing")


def test_a_newer_program_replaces_an_older_one_and_not_the_other_way(
    site: Site, connected: Connected, program: Path, tmp_path: Path
) -> None:
    old = connected.bundle(program=program)
    (tmp_path / "new").mkdir()
    new = connected.bundle("new.tar", program=one_file(tmp_path / "new", "1.10.0"))
    site.good(old)
    assert "in place of 1.2.3" in site.good(new)
    assert (site.current(), os.readlink(site.lib / "previous")) == ("1.10.0", "1.2.3")
    site.refused(old, "1.10.0 is installed")
    site.good(old, "--allow-older")
    assert site.current() == "1.2.3"


def test_older_prices_are_refused(site: Site, connected: Connected, program: Path) -> None:
    old = connected.bundle(program=program)
    site.good(old)
    text = connected.file.read_text()
    connected.file.write_text(text.replace('"0.0003"', '"0.0004"'))
    # Everything in it is younger: a bundle is as old as the newest thing in it.
    os.utime(connected.file, (AT_S + 10**8, AT_S + 10**8))
    new = connected.bundle("new.tar", program=program)
    told = site.good(new)
    assert "install Turnpike" not in told
    assert site.carried().hardware["price_usd_per_second"] == "0.0004"
    site.refused(old, "older than the bundle that was applied here last")
    site.good(old, "--allow-older")
    assert site.carried().hardware["price_usd_per_second"] == "0.0003"


def test_what_was_carried_and_is_damaged_is_replaced(
    site: Site, connected: Connected, program: Path
) -> None:
    bundle = connected.bundle(program=program)
    site.good(bundle)
    before = site.carried()
    (site.data / CARRIED_FILE).write_bytes(b"{")
    told = site.good(bundle)
    assert "carried.json is damaged and replaced" in told
    assert "install Turnpike" not in told
    assert site.carried() == before
    assert "nothing is changed" in site.good(bundle)


def test_models_of_earlier_bundles_stay_served(
    site: Site, connected: Connected, program: Path
) -> None:
    site.good(connected.bundle(program=program))
    connected.store.remove(connected.store.every()[1].name)
    os.utime(connected.file, (AT_S + 10**8, AT_S + 10**8))
    site.good(connected.bundle("fewer.tar", program=program))
    config = load(site.config, str(site.data))
    assert {each.id for each in config.local_models()} == {"acme/served", "two"}


def test_models_only_leaves_the_program(site: Site, connected: Connected, program: Path) -> None:
    site.good(connected.bundle(program=program), "--models-only")
    assert not site.lib.exists()
    assert len(Store(site.data / "models").every()) == 2
    assert "install Turnpike 1.2.3" in site.good(connected.folder / "site.tar")


def test_a_folder_is_carried_as_its_archive(
    site: Site, connected: Connected, tmp_path: Path
) -> None:
    folder = program_folder(tmp_path / "p")
    one = connected.created("1.tar", program=folder)
    assert one.sha256 == connected.created("2.tar", program=folder).sha256
    assert one.index.program.part == "turnpike-1.2.3-any-any.tar.gz"
    site.good(connected.folder / "1.tar")
    there = site.lib / "1.2.3"
    assert (there / "_internal/library.so").read_bytes() == b"code" * 50
    assert os.readlink(there / "_internal/link.so") == "library.so"
    assert os.access(there / "turnpike", os.X_OK)
    assert "nothing is changed" in site.good(connected.folder / "1.tar")
    # The archive that it would be carried as is a program too.
    with tarfile.open(connected.folder / "1.tar") as archive:
        archive.extract(one.index.program.part, tmp_path, filter="data")
    again = connected.created("3.tar", program=tmp_path / one.index.program.part)
    assert again.index.program == one.index.program


HERE, ELSEWHERE = (62, 183) if os.uname().machine == "x86_64" else (183, 62)


def elf(machine: int) -> bytes:
    """The first bytes of an executable for Linux."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(44)


@pytest.mark.parametrize(
    ("head", "facts", "says"),
    [
        (
            elf(183 if os.uname().machine == "x86_64" else 62),
            {},
            "The program in it is for linux on",
        ),
        (b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C) + bytes(56), {}, "is for darwin on"),
        (elf(HERE), {"glibc_min": "99.1"}, "glibc 99.1"),
    ],
    ids=["processor", "system", "glibc"],
)
def test_a_program_for_another_machine_is_refused(
    site: Site, connected: Connected, tmp_path: Path, head: bytes, facts: dict[str, str], says: str
) -> None:
    bundle = connected.bundle(program=one_file(tmp_path / "p", head=head, **facts))
    site.refused(bundle, says)
    site.good(bundle, "--models-only")


def test_damage_and_strangers_change_nothing(
    site: Site, connected: Connected, program: Path
) -> None:
    bundle = connected.bundle(program=program)
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b"# Operating Turnpike", b"# Operating turnpike", 1))
    site.refused(bundle, "changed, or damaged")
    bundle.write_bytes(data[:-512])
    site.refused(bundle, "cut short")
    bundle.write_bytes(data)
    site.key = "0" * 64
    site.refused(bundle, "is not trusted here")
    assert not site.root.exists()


@pytest.mark.skipif(not CAN_MOUNT, reason="needs root and mount namespaces")
def test_a_full_disk_is_told_before_anything_is_written(
    connected: Connected, program: Path, tmp_path: Path
) -> None:
    bundle = connected.bundle(program=program)
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        words = ["bundle", "apply", str(bundle), "--root", f"{disk.place}/site"]
        command = [sys.executable, "-m", "app", *words, "--trust-key", connected.public]
        done = subprocess.run(
            disk.inside(*command), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stdout
        assert "are free: nothing was changed. Make room" in done.stderr
        assert list(disk.path.iterdir()) == []


def test_where_the_program_is_not_installed_the_prices_are_what_they_were(
    site: Site, connected: Connected, program: Path, tmp_path: Path
) -> None:
    site.good(connected.bundle(program=program))
    before = (site.data / CARRIED_FILE).read_bytes()
    link = site.root / "usr/local/bin/turnpike"
    link.unlink()
    link.write_text("somebody else's")
    connected.file.write_text(connected.file.read_text().replace('"0.0003"', '"0.0004"'))
    (tmp_path / "new").mkdir()
    newer = connected.bundle("new.tar", program=one_file(tmp_path / "new", "1.3.0"))
    done = site.apply(newer)
    assert done.returncode == 1
    assert "exists and is no link" in done.stderr
    assert (site.data / CARRIED_FILE).read_bytes() == before
    assert site.current() == "1.2.3"
    link.unlink()
    site.good(newer)
    assert site.current() == "1.3.0"
    assert site.carried().hardware["price_usd_per_second"] == "0.0004"


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_the_old_or_the_new_and_goes_on(
    site: Site, connected: Connected, program: Path, tmp_path: Path
) -> None:
    site.good(connected.bundle(program=program))
    connected.file.write_text(connected.file.read_text().replace('"0.0003"', '"0.0004"'))
    (tmp_path / "new").mkdir()
    newer = connected.bundle("new.tar", program=one_file(tmp_path / "new", "1.3.0"))
    words = ["bundle", "apply", str(newer), "--root", str(site.root), "--trust-key", site.key]
    chance = random.Random(os.environ.get("TURNPIKE_SEED", "bundle"))
    times = int(os.environ.get("TURNPIKE_KILLS", "6"))
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-m", "app", *words, "--dry-run"], cwd=ROOT, check=True)
    looking_s = time.monotonic() - began_s  # doing it takes longer
    killed = 0
    for n in range(times):
        with subprocess.Popen(
            [sys.executable, "-m", "app", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            # From where it has looked at half of it on.
            time.sleep(looking_s * (0.5 + chance.random() * (n + 1) / times))
            killed += process.poll() is None
            with contextlib.suppress(ProcessLookupError):  # it had just ended
                os.killpg(process.pid, 9)
        price = load(site.config, str(site.data)).local.hardware.price_usd_per_second
        assert price in {"0.0003", "0.0004"}
        assert site.current() in {"1.2.3", "1.3.0"}
        said = subprocess.run(
            [site.root / "usr/local/bin/turnpike", "--version"], capture_output=True, check=True
        )
        assert said.stdout.split()[-1].decode() == site.current()
    assert killed
    site.good(newer)
    assert site.current() == "1.3.0"
    assert site.carried().hardware["price_usd_per_second"] == "0.0004"
    assert not list(site.root.rglob("*.part"))
    assert not list(tmp_path.rglob(".turnpike-bundle"))
    assert not list(site.lib.glob(".new.*"))
    assert "nothing is changed" in site.good(newer)
