"""``turnpike secrets``: new, rotate, forget; and what a start says without the right master key."""

import io
from pathlib import Path

import pytest

from app.identity.master_keys import FILE_NAME
from app.identity.sealing import parse_master_key
from tests.app.cli.terminal import Inside, Turnpike
from tests.appliance import MOCK_PROVIDER

SECRET = "sk-canary-0123456789-abcdefgh"


@pytest.fixture
def sealed(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """A data directory with one provider key in it."""
    inside.out("users", "add", "alice", "--tier", "free")
    monkeypatch.setattr("sys.stdin", io.StringIO(SECRET))
    inside.out("provider-keys", "set", "mock", "--user", "alice")
    return inside


def test_new_prints_a_key_alone_and_touches_nothing(inside: Inside) -> None:
    one, two = inside.out("secrets", "new"), inside.out("secrets", "new")
    assert parse_master_key(one.strip()).kid != parse_master_key(two.strip()).kid
    assert one.count("\n") == 1
    assert not inside.data_dir.exists()


def test_rotate_makes_a_new_key_in_the_file(sealed: Inside) -> None:
    path = sealed.data_dir / FILE_NAME
    before = path.read_text().split()
    said = sealed.out("secrets", "rotate")
    after = path.read_text().split()
    assert after[1:] == before
    kid = parse_master_key(after[0]).kid
    assert said == f"Sealed 1 provider keys under the master key {kid}.\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_rotate_to_a_configured_key(
    sealed: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TP_NEW_MASTER", sealed.out("secrets", "new"))
    config = tmp_path / "config.toml"
    text = config.read_text()
    config.write_text(f'{text}\n[secrets]\nmaster_key = "env:TP_NEW_MASTER"\n')
    refused = sealed.refused("secrets", "rotate")
    assert "secrets.master_key: the wrong master key" in refused
    assert "secrets.old_master_keys" in refused
    made = sealed.data_dir / FILE_NAME
    with config.open("a") as file:
        file.write(f'old_master_keys = ["file:{made}"]\n')
    assert sealed.json("secrets", "rotate")["rewrapped"] == 1
    assert sealed.json("secrets", "rotate")["rewrapped"] == 0
    made.unlink()
    config.write_text(f'{text}\n[secrets]\nmaster_key = "env:TP_NEW_MASTER"\n')
    assert sealed.json("secrets", "rotate")["unreadable"] == 0


def test_a_start_without_the_right_master_key_says_what_to_do(
    sealed: Inside, tmp_path: Path
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(f"[server]\nport = 0\n{MOCK_PROVIDER.format(base_url='http://127.0.0.1:9')}")
    server = Turnpike(sealed.data_dir, config)
    path = sealed.data_dir / FILE_NAME
    right, wrong = path.read_text(), sealed.out("secrets", "new")
    path.write_text(wrong)
    said = server.refused("serve")
    assert f"{path}: the wrong master key" in said
    assert parse_master_key(right.strip()).kid in said
    path.unlink()
    said = server.refused("serve")
    assert "the master key is missing" in said
    assert "turnpike secrets forget" in said
    for canary in (SECRET, right.strip(), wrong.strip()):
        assert canary not in said
    assert not path.exists()


def test_forget_asks_first(sealed: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    (sealed.data_dir / FILE_NAME).unlink()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert sealed.run("secrets", "forget").returncode == 130
    assert len(sealed.json("provider-keys", "list", "--user", "alice")) == 1
    assert sealed.out("secrets", "forget", "--yes") == "Removed 1 provider keys.\n"
    assert sealed.json("provider-keys", "list", "--user", "alice") == []


def test_a_backup_holds_neither_the_master_key_nor_a_key_that_it_sealed(
    sealed: Inside, tmp_path: Path
) -> None:
    target = tmp_path / "backup.tar"
    sealed.out("backup", str(target))
    content = target.read_bytes()
    master = (sealed.data_dir / FILE_NAME).read_bytes().strip()
    for canary in (SECRET.encode(), master, FILE_NAME.encode()):
        assert canary not in content

    # Restored elsewhere it needs the master key's copy, and has all keys then.
    there = Inside(tmp_path / "there", tmp_path / "config.toml")
    there.out("restore", str(target))
    assert "the master key is missing" in there.refused("secrets", "rotate")
    (there.data_dir / FILE_NAME).write_bytes(master)
    assert there.json("secrets", "rotate")["rewrapped"] == 1
    # The one that was older than the rotation still restores beside it.
    there.out("restore", str(target))
    assert there.json("secrets", "rotate")["rewrapped"] == 1
