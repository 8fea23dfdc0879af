"""The master key against what is sealed in the database."""

from pathlib import Path

import msgspec

from app.config import Config
from app.config_routing import Secrets
from app.doctor.finding import Commands
from app.doctor.master_key import check_master_key
from app.identity.master_keys import FILE_NAME, MasterKeySource
from app.identity.sealing import MasterKey, new_master_key
from app.ledger.checkup import Seal
from tests.app.doctor.patients import problems, wrong

COMMANDS = Commands(None, None)


def seal_of(data: Path) -> Seal:
    """Make the file as a first start does; what a key sealed under it leaves in the database."""
    key: MasterKey = MasterKeySource(Secrets(), data).make().current
    return Seal(key.kid, key.check_value())


def test_one_that_opens_what_is_sealed(tmp_path: Path) -> None:
    assert wrong(check_master_key(Config(), tmp_path, [], COMMANDS)) == set()
    seal = seal_of(tmp_path)
    assert wrong(check_master_key(Config(), tmp_path, [seal], COMMANDS)) == set()
    assert wrong(check_master_key(Config(), tmp_path, [], COMMANDS)) == set()


def test_one_that_is_missing_another_or_none(tmp_path: Path) -> None:
    seal = seal_of(tmp_path)
    path = tmp_path / FILE_NAME
    path.write_text(new_master_key())
    path.chmod(0o644)
    assert problems(check_master_key(Config(), tmp_path, [seal], COMMANDS)) == {"master_key.wrong"}
    assert path.stat().st_mode & 0o777 == 0o644  # looked at, not changed
    for content in ("", "garbled"):
        path.write_text(content)
        found = check_master_key(Config(), tmp_path, [seal], COMMANDS)
        assert problems(found) == {"master_key.unreadable"}
    path.unlink()
    found = check_master_key(Config(), tmp_path, [seal], COMMANDS)
    assert problems(found) == {"master_key.missing"}


def test_one_that_is_configured(tmp_path: Path) -> None:
    seal = seal_of(tmp_path)
    good, other = tmp_path / "good", tmp_path / "other"
    (tmp_path / FILE_NAME).rename(good)
    other.write_text(new_master_key())
    for path, old, codes in (
        (good, [], set()),
        (other, [], {"master_key.wrong"}),
        (other, [f"file:{good}"], set()),
    ):
        secrets = Secrets(master_key=f"file:{path}", old_master_keys=old)
        config = msgspec.structs.replace(Config(), secrets=secrets)
        assert problems(check_master_key(config, tmp_path, [seal], COMMANDS)) == codes
