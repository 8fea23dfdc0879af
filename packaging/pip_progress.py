"""pip's plain output as a fraction: packages looked up, fetched, installed."""

import re
from pathlib import Path

# Share of the time, seen on a fast line: looking up, fetching, unpacking.
_LOOK_UP, _FETCH, _INSTALL = 0.25, 0.45, 0.30

_COLLECTING = re.compile(r"^(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+)")
_ON_DISK = re.compile(r"^Processing (?:\S*/)?([^/\s-]+)")
_FETCHING = re.compile(r"^\s*(?:Downloading|Using cached) (?:\S*/)?([^/\s]+?)(?: \(.*\))?$")
_BYTES = re.compile(r"^\s*Progress (\d+) of (\d+)$")
_INSTALLING = re.compile(r"^Installing collected packages: (.*)$")


def requirements(lock: Path) -> int:
    """How many packages a lock file names."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return sum(1 for line in lines if re.match(r"^[A-Za-z0-9]", line))


class PipProgress:
    """Feed it pip's lines; ask it how far pip is."""

    def __init__(self, expected: int, site_packages: Path | None = None) -> None:
        self._expected = max(expected, 1)
        self._site_packages = site_packages
        self._looked_up = 0
        self._fetched = 0
        self._bytes = 0.0
        self._to_install = 0
        self._installed_before = 0
        self.detail = ""

    def line(self, text: str) -> None:
        """One line of pip's output."""
        if found := _BYTES.match(text):
            done, total = int(found[1]), int(found[2])
            self._bytes = done / total if total else 0.0
        elif found := _COLLECTING.match(text):
            self._looked_up += 1
            self.detail = f"looking up {found[1]}"
        elif text.startswith("Ignoring "):
            self._expected = max(self._expected - 1, 1)
        elif found := _ON_DISK.match(text):
            self._looked_up += 1
            self._fetched += 1
            self._bytes = 1.0
            self.detail = f"reading {found[1]}"
        elif found := _FETCHING.match(text):
            if not found[1].endswith(".metadata"):
                self._fetched += 1
                self._bytes = 0.0
                self.detail = f"fetching {found[1].split('-')[0]}"
        elif found := _INSTALLING.match(text):
            self._to_install = found[1].count(",") + 1
            self._installed_before = self._dist_infos()

    def fraction(self) -> float:
        """0.0 to 1.0."""
        looked_up = min(self._looked_up / self._expected, 1.0)
        fetched = min(max(self._fetched - 1 + self._bytes, 0.0) / self._expected, 1.0)
        if not self._to_install:
            return _LOOK_UP * looked_up + _FETCH * fetched
        done = min(max(self._dist_infos() - self._installed_before, 0), self._to_install)
        self.detail = f"installed {done} of {self._to_install}"
        return _LOOK_UP + _FETCH + _INSTALL * done / self._to_install

    def _dist_infos(self) -> int:
        if self._site_packages is None:
            return 0
        return sum(1 for _ in self._site_packages.glob("*.dist-info"))
