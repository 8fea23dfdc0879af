"""Whether the users' own provider keys can be opened with the master key that is here."""

from pathlib import Path

from app.config import Config, secret
from app.doctor.finding import Commands, Finding, Teller
from app.errors import ConfigError
from app.identity.master_keys import FILE_NAME, MasterKeySource
from app.identity.sealing import MasterKeys, parse_master_key
from app.ledger.checkup import Seal

_tell = Teller("master key")


def check_master_key(
    config: Config, data_dir: Path, seals: list[Seal], commands: Commands
) -> list[Finding]:
    """``seals``: what the keys in the database are sealed under."""
    path = data_dir / FILE_NAME
    is_configured = config.secrets.master_key is not None
    if not is_configured and not path.exists():
        if not seals:
            return [_tell.ok("master_key.none", "none yet: it is made when it is first needed")]
        text = f"{path} is missing, and users' provider keys are sealed under it: no server starts"
        return [_tell.problem("master_key.missing", text, _give_back(path, commands))]
    try:
        masters = _configured(config, data_dir) if is_configured else _of_file(config, path)
    except (ConfigError, OSError, ValueError) as error:
        if is_configured:
            return []  # told with the configuration
        text = f"{path} holds no master key: {error}"
        return [_tell.problem("master_key.unreadable", text, _give_back(path, commands))]
    for seal in seals:
        master = masters.with_kid(seal.kid)
        if master is None or not master.is_of(seal.check_value):
            text = f"the keys in the database are sealed under another one, with the id {seal.kid}"
            fix = _give_back(path, commands)
            return [_tell.problem("master_key.wrong", f"{text}: no server starts", fix)]
    return [
        _tell.ok("master_key.ok", f"it opens all {len(seals)} seals" if seals else "it is here")
    ]


def _give_back(path: Path, commands: Commands) -> str:
    return (
        f"Put the file back as {path} (chmod 600), or name it in secrets.old_master_keys; if it is"
        f" lost, its keys are too: {commands.turnpike('secrets', 'forget', '--yes')}"
    )


def _configured(config: Config, data_dir: Path) -> MasterKeys:
    found = MasterKeySource(config.secrets, data_dir).load()
    if found is None:
        raise ConfigError("secrets.master_key: not set")
    return found


def _of_file(config: Config, path: Path) -> MasterKeys:
    """Read only: a start would set the file's mode too. Raises ValueError, OSError, ConfigError."""
    lines = path.read_text(encoding="ascii").split()
    if not lines:
        raise ValueError("it is empty")
    for at, old in enumerate(config.secrets.old_master_keys):
        lines += (secret(old, where=f"secrets.old_master_keys[{at}]") or "").split()
    return MasterKeys(*map(parse_master_key, lines))
