"""The parts of the configuration that are about running it: logs, traces, backups, the disk."""

from typing import Annotated, Literal

from msgspec import Meta

from app.config_types import HeaderName, HttpUrl, Seconds, Table


class Logs(Table, frozen=True):
    """How and where it logs."""

    format: Literal["text", "json"] = "text"
    file: str | None = None
    file_bytes_max: Annotated[int, Meta(ge=100_000)] = 50_000_000
    files_kept: Annotated[int, Meta(ge=1, le=1000)] = 5
    calls: bool = True


class Tracing(Table, frozen=True):
    """Traces of calls for a collector of OpenTelemetry; none without an endpoint."""

    endpoint: HttpUrl | None = None
    headers: dict[HeaderName, str] = {}
    ca_file: str | None = None
    service_name: Annotated[str, Meta(min_length=1, max_length=128)] = "turnpike"
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    trust_callers: bool = False
    timeout_seconds: Seconds = 10.0
    queue_spans_max: Annotated[int, Meta(ge=256, le=1_000_000)] = 8192
    flush_seconds_max: Annotated[float, Meta(ge=0, le=60)] = 2.0


class Backups(Table, frozen=True):
    """Backups that it makes by itself; none without a folder, but for those before an upgrade."""

    folder: str | None = None
    every_hours: Annotated[float, Meta(ge=0.1, le=8784)] = 24.0
    keep: Annotated[int, Meta(ge=1, le=100_000)] = 14


class Disk(Table, frozen=True):
    """What it does before the data directory's disk is full."""

    free_bytes_min: Annotated[int, Meta(ge=0)] = 256 * 1024 * 1024
    ballast_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024 * 1024
