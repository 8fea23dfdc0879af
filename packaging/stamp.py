"""What has been done to ``.venv``, written into it after each step and before the next."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 1


def digest(*parts: bytes | str) -> str:
    """A short name for some contents."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.hexdigest()[:32]


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Stamp:
    """Steps done, each with the digest of what it was done from.

    ``doing`` names a step that had begun: if it is still there at the next start, that step was
    cut short and nothing can be said about the state of ``.venv``.
    """

    def __init__(self, venv: Path) -> None:
        self._path = venv / "turnpike-setup.json"
        self._was: dict[str, Any] = {}
        try:
            read = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(read, dict) and read.get("schema") == SCHEMA:
                self._was = read
        except (OSError, ValueError):
            pass

    @property
    def exists(self) -> bool:
        """Whether ``.venv`` was made by this set-up."""
        return bool(self._was)

    @property
    def cut_short(self) -> str:
        """The step that did not come to its end, or empty."""
        return str(self._was.get("doing") or "")

    def done(self, step: str) -> str:
        """What the step was last done from, or empty."""
        steps = self._was.get("steps")
        return str(steps.get(step, "")) if isinstance(steps, dict) else ""

    def begin(self, step: str) -> None:
        """From here on ``.venv`` is in doubt until ``finish`` or ``give_up``."""
        self._write({**self._steps(), step: ""}, doing=step)

    def give_up(self) -> None:
        """The step that had begun failed and left things as they were."""
        self._write(self._steps(), doing="")

    def finish(self, step: str, made_from: str, **facts: str) -> None:
        """The step is done; ``facts`` are told by ``done`` too, from the same moment on."""
        self._write({**self._steps(), step: made_from, **facts}, doing="")

    def _steps(self) -> dict[str, str]:
        steps = self._was.get("steps")
        return dict(steps) if isinstance(steps, dict) else {}

    def _write(self, steps: dict[str, str], doing: str) -> None:
        self._was = {"schema": SCHEMA, "doing": doing, "steps": steps}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(self._was, indent=1), encoding="utf-8")
        os.replace(draft, self._path)
