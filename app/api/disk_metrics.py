"""What ``/metrics`` says about the room on the data directory's disk, and about backups."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.api.families import counter, gauge, gauges
from app.storage.backup_folder import BackupRecord
from app.storage.disk import DiskWatch


class DiskMetrics(Collector):
    """Read when asked. ``backups`` is None where none are made by itself."""

    def __init__(self, disk: DiskWatch, backups: BackupRecord | None) -> None:
        self._disk = disk
        self._backups = [] if backups is None else [backups]

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield gauge("disk_free_bytes", "Room on the data directory's disk.", self._disk.free_bytes)
        yield gauge("disk_low", "1 while no new calls are taken for lack of room.", self._disk.low)
        yield gauges(
            "backup_last_success_timestamp_seconds",
            "When the last good backup was made, in seconds since 1970; 0 for none.",
            [],
            [((), each.last_success_s) for each in self._backups],
        )
        yield counter(
            "backup_failures",
            "Backups that were due and could not be made.",
            [],
            [((), each.failures) for each in self._backups],
        )
