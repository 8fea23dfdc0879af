"""Who may read and write the files that only this account should."""

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from app.config import Config
from app.config_secrets import is_private, references
from app.doctor.finding import Finding, Teller
from app.identity.master_keys import FILE_NAME
from app.storage.database import DATABASE_NAME
from app.storage.lock import SERVER_FILE

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_tell = Teller("file modes")


def check_modes(config: Config | None, file: Path | None, data_dir: Path | None) -> list[Finding]:
    """Nothing on systems that have no such modes."""
    if os.name != "posix":
        return []
    found = [] if data_dir is None else list(_of_data(data_dir))
    if config is not None:
        found += _of_secrets(config)
    if file is not None:
        found += _of_configuration(config, file)
    return found or [_tell.ok("modes.ok", "only this account can read what is secret")]


def _of_data(data_dir: Path) -> Iterator[Finding]:
    mode = _mode(data_dir)
    if mode is not None and mode & _OTHERS:
        may = "write to" if mode & _OTHERS_WRITE else "look into"
        text = f"other accounts can {may} the data directory {data_dir} ({mode:04o})"
        fix = f"chmod 700 {shlex.quote(str(data_dir))}"
        if mode & _OTHERS_WRITE:
            yield _tell.problem("modes.data_dir", text, fix, path=str(data_dir))
        else:
            yield _tell.warning("modes.data_dir", text, fix, path=str(data_dir))
    names = (DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", FILE_NAME, SERVER_FILE)
    for name in names:
        yield from _private(data_dir / name, "modes." + _CODES[name], "")


_CODES = {
    DATABASE_NAME: "database",
    f"{DATABASE_NAME}-wal": "database",
    f"{DATABASE_NAME}-shm": "database",
    FILE_NAME: "master_key",
    SERVER_FILE: "server_file",
}


def _of_secrets(config: Config) -> Iterator[Finding]:
    """The files that the configuration takes secrets from, each once."""
    paths = [each.value[len("file:") :] for each in references(config) if _is_file(each.value)]
    for path in dict.fromkeys(paths):
        yield from _private(Path(path).expanduser(), "modes.secret", "the secret in ")


def _is_file(reference: str) -> bool:
    return reference.startswith("file:")


def _of_configuration(config: Config | None, file: Path) -> Iterator[Finding]:
    mode = _mode(file)
    if mode is None:
        return
    quoted = shlex.quote(str(file))
    if mode & _OTHERS_WRITE:
        text = f"other accounts can change the configuration {file} ({mode:04o})"
        yield _tell.problem("modes.config", text, f"chmod go-w {quoted}", path=str(file))
    elif mode & _OTHERS_READ and config is not None and is_private(config):
        text = f"other accounts can read {file} ({mode:04o}), and it holds secrets"
        yield _tell.problem("modes.config", text, f"chmod 600 {quoted}", path=str(file))


def _private(path: Path, code: str, what: str) -> Iterator[Finding]:
    mode = _mode(path)
    if mode is not None and mode & _OTHERS:
        may = "change" if mode & _OTHERS_WRITE else "read"
        text = f"other accounts can {may} {what}{path} ({mode:04o})"
        yield _tell.problem(code, text, f"chmod 600 {shlex.quote(str(path))}", path=str(path))


def _mode(path: Path) -> int | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # What is no file, such as /dev/stdin or a credential on a pipe, has no mode to correct.
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return None
    return stat.S_IMODE(found.st_mode)
