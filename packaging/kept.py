"""What took long to build, kept for the next time: by its recipe's key, and found only if whole."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stamp import sha256


class Kept:
    """Finished builds: ``folder/KEY/``, each with a note of what it was made by and must be."""

    def __init__(self, folder: Path, note: str) -> None:
        """``note`` is the name of that file."""
        self.folder = folder
        self._note = note

    def find(
        self, key: str, digests: Callable[[Any], Mapping[str, str]]
    ) -> tuple[Path, Any] | None:
        """Its folder and note, if all is there whole; a damaged one is removed.

        ``digests`` reads out of the note which files must have which SHA-256. Where that is no
        note of ours it raises what reading does: ValueError, KeyError, TypeError.
        """
        place = self.folder / key
        try:
            note = json.loads((place / self._note).read_text(encoding="utf-8"))
            if all(digest == sha256(place / name) for name, digest in digests(note).items()):
                return place, note
        except FileNotFoundError:
            if not place.exists():
                return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(place, ignore_errors=True)
        return None

    def keep(self, key: str, fill: Callable[[Path], Mapping[str, object]]) -> Path:
        """The new folder, which readers see all at once. ``fill`` makes it and gives the note."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = self.folder / key
        with tempfile.TemporaryDirectory(dir=self.folder) as draft:
            entry = Path(draft, "entry")
            note = fill(entry)
            (entry / self._note).write_text(json.dumps(note, indent=1), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            entry.rename(place)
        return place
