"""What ``turnpike doctor`` says: one finding for each thing that it looked at."""

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec


class Severity(StrEnum):
    """``problem``: something does not work, or will not. ``warning``: it works, and should be
    looked at. Only problems make the command fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``code`` is stable, and for machines. ``fix`` is a command or a setting, empty where nothing
    is wrong. ``path`` is a setting's, or a file's, and ``line`` (from 1) where the file has it.
    """

    code: str
    severity: Severity
    about: str
    text: str
    fix: str = ""
    path: str | None = None
    line: int | None = None


class Teller:
    """Makes the findings about one subject."""

    def __init__(self, about: str) -> None:
        self._about = about

    def ok(self, code: str, text: str) -> Finding:
        """Nothing is wrong."""
        return Finding(code=code, severity=Severity.OK, about=self._about, text=text)

    def warning(self, code: str, text: str, fix: str, *, path: str | None = None) -> Finding:
        """Works, and should be looked at."""
        return Finding(
            code=code, severity=Severity.WARNING, about=self._about, text=text, fix=fix, path=path
        )

    def problem(self, code: str, text: str, fix: str, *, path: str | None = None) -> Finding:
        """Does not work, or will not."""
        return Finding(
            code=code, severity=Severity.PROBLEM, about=self._about, text=text, fix=fix, path=path
        )


class Commands:
    """Commands as they can be typed again, with the options that this one was given."""

    def __init__(self, file: Path | None, data_dir: str | None) -> None:
        self._options = [] if file is None else ["--config", str(file)]
        self._options += [] if data_dir is None else ["--data-dir", data_dir]

    def turnpike(self, *words: str) -> str:
        """``turnpike … WORDS``."""
        return shlex.join(["turnpike", *self._options, *words])


def failed(findings: Sequence[Finding]) -> bool:
    """Whether any of them is a problem."""
    return any(finding.severity is Severity.PROBLEM for finding in findings)


def gib(count: int) -> str:
    """Bytes for people."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
