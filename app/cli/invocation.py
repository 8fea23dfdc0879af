"""What every command gets from the options before its name."""

from dataclasses import dataclass
from pathlib import Path

from app.config import Config, load
from app.config_survey import survey_file


@dataclass(frozen=True, slots=True)
class Invocation:
    """``turnpike [--config FILE] [--data-dir DIR]``; the click context's ``obj``."""

    config_file: Path | None
    data_dir: str | None

    def config(self) -> Config:
        """The configuration. Raises ConfigError."""
        return load(self.config_file, self.data_dir)

    def config_for(self, *settings: tuple[str, str]) -> Config:
        """For commands that need no more than these settings (table and key) to be right: the
        configuration without what is wrong in it. Prices, for one, may have been carried into the
        very directory that is lost. Raises ConfigError.
        """
        found = survey_file(self.config_file, self.data_dir)
        if found.config is None or not all(found.is_right(*each) for each in settings):
            return self.config()
        return found.config
