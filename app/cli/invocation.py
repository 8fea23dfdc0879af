"""What every command gets from the options before its name."""

from dataclasses import dataclass
from pathlib import Path

from app.config import Config, load


@dataclass(frozen=True, slots=True)
class Invocation:
    """``turnpike [--config FILE] [--data-dir DIR]``; the click context's ``obj``."""

    config_file: Path | None
    data_dir: str | None

    def config(self) -> Config:
        """The configuration. Raises ConfigError."""
        return load(self.config_file, self.data_dir)
