"""Where the master keys come from: configured, or made once and kept in a file."""

import stat
from pathlib import Path

import pytest

from app.config_routing import Secrets
from app.errors import ConfigError
from app.identity.master_keys import FILE_NAME, MasterKeySource
from app.identity.sealing import MasterKeys, new_master_key, parse_master_key


def loaded(source: MasterKeySource) -> MasterKeys:
    keys = source.load()
    assert keys is not None
    return keys


def test_a_made_key_is_found_again_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    source = MasterKeySource(Secrets(), tmp_path)
    assert source.load() is None
    assert list(tmp_path.iterdir()) == []
    made = source.make()
    path = tmp_path / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == [FILE_NAME]
    assert loaded(MasterKeySource(Secrets(), tmp_path)).kids == made.kids
    path.chmod(0o644)
    loaded(source)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_renewed_key_stands_first_and_the_old_ones_stay(tmp_path: Path) -> None:
    source = MasterKeySource(Secrets(), tmp_path)
    first = source.make().current.kid
    second = source.renew()
    third = source.renew()
    assert second.kids == [second.current.kid, first]
    assert third.kids == [third.current.kid, second.current.kid, first]
    assert loaded(source).kids == third.kids
    assert [found.name for found in tmp_path.iterdir()] == [FILE_NAME]


def test_a_configured_key_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, old, older = new_master_key(), new_master_key(), new_master_key()
    monkeypatch.setenv("TP_MASTER", text)
    (tmp_path / "old").write_text(f"{old}\n{older}\n")
    source = MasterKeySource(
        Secrets(master_key="env:TP_MASTER", old_master_keys=[f"file:{tmp_path / 'old'}"]),
        tmp_path / "data",
    )
    expected = [parse_master_key(each).kid for each in (text, old, older)]
    assert loaded(source).kids == expected
    assert source.renew().kids == expected
    assert not (tmp_path / "data").exists()


def test_a_key_that_was_replaced_where_it_lies_is_taken_by_the_next_renewal(
    tmp_path: Path,
) -> None:
    place = tmp_path / "key"
    old, new = new_master_key(), new_master_key()
    place.write_text(old)
    source = MasterKeySource(Secrets(master_key=f"file:{place}"), tmp_path)
    assert loaded(source).current.kid == parse_master_key(old).kid
    place.write_text(f"{new}\n{old}\n")
    assert source.renew().kids == [parse_master_key(new).kid, parse_master_key(old).kid]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "found nothing"),
        ("c2hvcnQ=", "found 5 bytes"),
        ("not-base64-at-all!", "found something else"),
    ],
)
def test_what_is_no_key_is_refused_by_the_place_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, why: str
) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ConfigError, match=why) as caught:
        MasterKeySource(Secrets(), tmp_path).load()
    assert caught.value.message.startswith(str(tmp_path / FILE_NAME))
    if not content:
        return
    monkeypatch.setenv("TP_MASTER", content)
    for secrets in (
        Secrets(master_key="env:TP_MASTER"),
        Secrets(old_master_keys=["env:TP_MASTER"]),
    ):
        data_dir = tmp_path / "data"
        data_dir.mkdir(exist_ok=True)
        (data_dir / FILE_NAME).write_text(new_master_key())
        with pytest.raises(ConfigError, match=why) as caught:
            MasterKeySource(secrets, data_dir).load()
        assert caught.value.message.startswith("secrets.")
        assert content not in caught.value.message


def test_an_unset_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TP_MASTER", raising=False)
    with pytest.raises(ConfigError, match=r"secrets\.master_key: .* TP_MASTER is not set"):
        MasterKeySource(Secrets(master_key="env:TP_MASTER"), tmp_path).load()


def test_a_folder_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        MasterKeySource(Secrets(), tmp_path / "missing").make()
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        MasterKeySource(Secrets(), tmp_path).load()
