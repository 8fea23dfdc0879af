"""What ``/metrics`` says about the room on the data directory's disk, and about backups."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.api.families import counter, gauge, gauges
from app.storage.backup_folder import BackupRecord
from app.storage.disk import DiskWatch


class DiskMetrics(Collector):
    """Read when asked. Without a plan for backups there are no samples of them."""

    def __init__(self, disk: DiskWatch, backups: BackupRecord) -> None:
        self._disk = disk
        self._record = backups

    def collect(self) -> Iterator[Metric]:
        """The families."""
        planned = [] if self._record.plan is None else [self._record]
        held = self._disk.ballast_held()
        yield gauge("disk_free_bytes", "Room on the data directory's disk.", self._disk.free_bytes)
        yield gauge("disk_low", "1 while no new calls are taken for lack of room.", self._disk.low)
        yield gauges(
            "disk_ballast_bytes",
            "Room that is held for what must be written when the disk is full; 0 once it is used.",
            [],
            [] if held is None else [((), held)],
        )
        yield gauges(
            "backup_last_success_timestamp_seconds",
            "When the last good backup was made, in seconds since 1970; 0 for none.",
            [],
            [((), each.last_success_s) for each in planned],
        )
        yield counter(
            "backup_failures",
            "Backups that were due and could not be made.",
            [],
            [((), each.failures) for each in planned],
        )
