"""Where the master keys come from: the configuration, or a file that is made at the first start.

The file is ``master.key`` in the data directory (0600): one key a line as base64, the one that
seals first. It is not part of the database, nor of its backups.
"""

import os
import tempfile
from pathlib import Path

from app.config import secret
from app.config_routing import Secrets
from app.errors import ConfigError
from app.identity.sealing import MasterKey, MasterKeys, new_master_key, parse_master_key
from app.storage.archive import sync_directory

FILE_NAME = "master.key"
_CONFIGURED = "secrets.master_key"


class MasterKeySource:
    """Reads the keys, and makes them where nobody has configured one."""

    def __init__(self, secrets: Secrets, data_dir: Path) -> None:
        self._secrets = secrets
        self.path = data_dir / FILE_NAME
        self.is_configured = secrets.master_key is not None

    def load(self) -> MasterKeys | None:
        """The keys; None where none is configured and none has been made. Raises ConfigError."""
        if not self.is_configured and not self.path.exists():
            return None
        return self._loaded()

    def _loaded(self) -> MasterKeys:
        if self.is_configured:
            first = _parsed(secret(self._secrets.master_key, where=_CONFIGURED), _CONFIGURED)
        else:
            first = _parsed("\n".join(self._lines()), str(self.path))
        old = []
        for at, value in enumerate(self._secrets.old_master_keys):
            where = f"secrets.old_master_keys[{at}]"
            old += _parsed(secret(value, where=where), where)
        return MasterKeys(*first, *old)

    def make(self) -> MasterKeys:
        """A first key of our own, on disk before this returns. Raises ConfigError."""
        return self._write([new_master_key()])

    def renew(self) -> MasterKeys:
        """The keys to seal under from now on: the configured ones as they stand now, or a new one
        in front of those in the file. Raises ConfigError.

        The old ones stay in the file: backups made until now are sealed under them.
        """
        if self.is_configured:
            return self._loaded()
        return self._write([new_master_key(), *self._lines()])

    def _lines(self) -> list[str]:
        try:
            self.path.chmod(0o600)
            return self.path.read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: the master key cannot be read: {error}") from error

    def _write(self, lines: list[str]) -> MasterKeys:
        """Put the file in place whole, or not at all; a power cut leaves the old one or the new."""
        try:
            fd, fresh = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=self.path.parent)  # 0600
            try:
                with os.fdopen(fd, "w", encoding="ascii") as file:
                    file.write("\n".join(lines) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                Path(fresh).replace(self.path)
            except BaseException:
                Path(fresh).unlink(missing_ok=True)
                raise
            sync_directory(self.path.parent)
        except OSError as error:
            raise ConfigError(f"{self.path}: the master key cannot be written: {error}") from error
        return self._loaded()


def _parsed(text: str | None, where: str) -> list[MasterKey]:
    """One key a line. Raises ConfigError, which never repeats any of them."""
    lines = (text or "").split()
    if not lines:
        raise ConfigError(f"{where}: expected a master key, found nothing")
    try:
        return [parse_master_key(line) for line in lines]
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; `turnpike secrets new` makes a master key") from error
