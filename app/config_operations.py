"""The parts of the configuration that are about running it: logs, backups, the disk."""

from typing import Annotated, Literal

from msgspec import Meta

from app.config_types import Table


class Logs(Table, frozen=True):
    """How and where it logs."""

    format: Literal["text", "json"] = "text"
    file: str | None = None
    file_bytes_max: Annotated[int, Meta(ge=100_000)] = 50_000_000
    files_kept: Annotated[int, Meta(ge=1, le=1000)] = 5
    calls: bool = True


class Backups(Table, frozen=True):
    """Backups that it makes by itself; none without a folder, but for those before an upgrade."""

    folder: str | None = None
    every_hours: Annotated[float, Meta(ge=0.1, le=8784)] = 24.0
    keep: Annotated[int, Meta(ge=1, le=100_000)] = 14


class Disk(Table, frozen=True):
    """What it does before the data directory's disk is full."""

    free_bytes_min: Annotated[int, Meta(ge=0)] = 256 * 1024 * 1024
    ballast_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024 * 1024
