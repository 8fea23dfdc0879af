"""``turnpike bundle create`` and ``show`` as a person types them; ``apply`` has its own tests."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.app.cli.terminal import Inside
from tests.app.site_bundle.carried import Connected, one_file, program_folder, turnpike


@pytest.fixture
def connected(tmp_path: Path) -> Connected:
    folder = tmp_path / "connected"
    folder.mkdir()
    return Connected(folder)


def create(connected: Connected, *words: str | Path) -> tuple[int, str, str]:
    where = ("--config", connected.file, "--data-dir", connected.data)
    done = turnpike(*where, "bundle", "create", connected.folder / "site.tar", *words)
    return done.returncode, done.stdout, done.stderr


def test_it_says_what_went_in_and_what_to_type_at_the_site(
    connected: Connected, tmp_path: Path
) -> None:
    program = one_file(tmp_path / "p", glibc_min="2.36")
    status, said, _ = create(connected, "--model", "a/one", "--program", program)
    assert status == 0
    digest = hashlib.sha256((connected.folder / "site.tar").read_bytes()).hexdigest()
    for line in (
        "turnpike 1.2.3, core edition, for any any",
        "a/one:Q4_0",
        "the models of 1 provider",
        f"SHA-256     {digest}",
        f"public key  {connected.public}",
        f"echo '{digest}  site.tar' | sha256sum -c",
        "tar xf site.tar turnpike",
        f"sudo ./turnpike bundle apply site.tar --trust-key {connected.public}",
    ):
        assert line in said
    assert "two:Q4_0" not in said
    status, _, refused = create(connected, "--model", "a/one", "--program", program)
    assert status == 1
    assert "is there already" in refused
    shown = turnpike("--data-dir", tmp_path / "d", "bundle", "show", connected.folder / "site.tar")
    assert f"Signed with the key {connected.public}, which is not among" in shown.stdout
    assert "acme/tiny at lan" in shown.stdout


def test_as_json(connected: Connected, tmp_path: Path) -> None:
    folder = program_folder(tmp_path / "p")
    status, said, _ = create(connected, "--all-models", "--program", folder, "--unsigned", "--json")
    assert status == 0
    made = json.loads(said)
    assert made["public_key"] is None
    assert [each["id"] for each in made["content"]["models"]] == ["a/one", "two"]
    told = turnpike("bundle", "show", connected.folder / "site.tar", "--json").stdout
    shown = json.loads(told)
    assert (shown["signed_by"], shown["trusted"]) == (None, False)
    assert shown["sha256"] == made["sha256"]
    assert shown["prices"]["prices"]["lan"]["acme/tiny"]["price"]["output"] == "0.60"
    assert "Nobody signed it." in turnpike("bundle", "show", connected.folder / "site.tar").stdout


def test_refusals_say_what_to_do(inside: Inside, tmp_path: Path) -> None:
    site = str(tmp_path / "site.tar")
    assert "--make-key" in inside.refused("bundle", "create", site)
    unsigned = ("bundle", "create", site, "--unsigned")
    assert "`make binary` makes a program" in inside.refused(*unsigned)
    assert "There is no program" in inside.refused(*unsigned, "--program", str(tmp_path / "none"))
    other = tmp_path / "other"
    other.write_bytes(b"#!/bin/sh\n")
    for program in (str(other), str(tmp_path)):
        assert "not a program that `make binary` made" in inside.refused(
            *unsigned, "--program", program
        )
    assert "There is no folder" in inside.refused(
        "bundle", "create", str(tmp_path / "no/site.tar"), "--unsigned"
    )
    assert "is not in the store" in inside.refused(*unsigned, "--model", "acme/none")
    assert "not a public key" in inside.refused("bundle", "apply", site, "--trust-key", "x")
    assert list(tmp_path.glob("*.tar")) == []
    assert list(tmp_path.glob(".*.part")) == []


def test_a_damaged_model_is_not_signed(connected: Connected, tmp_path: Path) -> None:
    blob = next((connected.data / "models/blobs").iterdir())
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    program = one_file(tmp_path / "p")
    status, _, refused = create(connected, "--all-models", "--program", program)
    assert status == 1
    assert "is not what it was" in refused
    assert list(connected.folder.glob("*.tar")) + list(connected.folder.glob(".*.part")) == []
