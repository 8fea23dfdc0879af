"""All that the doctor looks at, in the order in which it is told.

Nothing here changes anything: no lock is taken, the database is only read, and what is written to
measure the disk is gone again. What cannot be looked at is said, and the rest goes on.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from app.clock import SystemClock
from app.config import Config, Server
from app.config_survey import Survey, survey_file
from app.doctor.backups import check_backups
from app.doctor.clock import check_clock
from app.doctor.configuration import check_configuration
from app.doctor.database import check_database
from app.doctor.disk import check_disk
from app.doctor.finding import Commands, Finding, Teller
from app.doctor.hardware import check_hardware
from app.doctor.limits import check_limits, check_version
from app.doctor.master_key import check_master_key
from app.doctor.models import check_models, is_llama
from app.doctor.modes import check_modes
from app.doctor.ports import check_ports
from app.doctor.providers import check_providers
from app.doctor.server import Presence, check_server, clock_of, who_is_there
from app.doctor.tracing import check_tracing
from app.installed import versions
from app.ledger.checkup import Checkup, check_up
from app.storage.database import DATABASE_NAME

Watch = Callable[[str, int, int], None]
"""Told what is being looked at, how far that is and how far it goes; 0 for not known."""


class Patient(msgspec.Struct, frozen=True, kw_only=True):
    """What is examined: the file and the directory as they were given to the command."""

    file: Path | None
    data_dir: str | None
    offline: bool = False
    deep: bool = False


def examine(patient: Patient, watch: Watch = lambda _what, _done, _total: None) -> list[Finding]:
    """Every finding, those that all is well too."""
    return list(_Examination(patient, watch).findings())


class _Examination:
    def __init__(self, patient: Patient, watch: Watch) -> None:
        self._patient = patient
        self._watch = watch
        self._commands = Commands(patient.file, patient.data_dir)
        self._survey = Survey(config=None, faults=[], lines={})
        self._presence = Presence()
        self._checkup: Checkup | None = None

    def findings(self) -> Iterator[Finding]:
        """One subject after the other."""
        yield from self._guarded("configuration", self._configuration)
        config = self._survey.config
        if self._patient.data_dir is None:
            if not self._survey.is_right("server", "data_dir"):
                config = None  # the default would be somebody else's
        elif config is None:
            # The file says nothing that could be read, but the directory is known.
            config = Config(server=Server(data_dir=self._patient.data_dir))
        if config is not None:
            yield from self._of_directory(config)
        else:
            text = "the file does not say where the data is, so that was not looked at"
            fix = "Correct the file, or name the directory with --data-dir"
            yield Teller("database").warning("database.unknown", text, fix)
        parsed = self._survey.config
        data_dir = None if config is None else config.data_dir()
        yield from self._guarded(
            "file modes", lambda: check_modes(parsed, self._patient.file, data_dir)
        )
        if parsed is not None:
            yield from self._of_configuration(parsed)
        needed = parsed is not None and any(map(is_llama, parsed.local_models()))
        yield from self._guarded("hardware", lambda: check_hardware(needed=needed))
        yield from self._guarded("limits", check_limits)
        yield from self._guarded("version", lambda: check_version(versions()))

    def _configuration(self) -> list[Finding]:
        self._survey = survey_file(self._patient.file, self._patient.data_dir)
        return check_configuration(self._survey, self._patient.file)

    def _of_directory(self, config: Config) -> Iterator[Finding]:
        data_dir = config.data_dir()
        path = data_dir / DATABASE_NAME
        now_ms = SystemClock().now_ms()
        yield from self._guarded("server", lambda: self._server(data_dir))
        yield from self._guarded("database", lambda: self._database(path))
        checkup = self._checkup or Checkup()
        if self._survey.config is not None:
            yield from self._guarded(
                "master key",
                lambda: check_master_key(config, data_dir, checkup.seals, self._commands),
            )
        yield from self._guarded(
            "backups",
            lambda: check_backups(config.backups, data_dir, checkup, now_ms, self._commands),
        )
        yield from self._guarded(
            "disk",
            lambda: check_disk(
                config, database_bytes=checkup.bytes, running=self._presence.server is not None
            ),
        )
        yield from self._guarded(
            "clock",
            lambda: check_clock(now_ms, checkup.last_ms, clock_of(self._presence), self._commands),
        )

    def _of_configuration(self, config: Config) -> Iterator[Finding]:
        running = self._presence.server is not None
        if self._survey.is_right("server", "port") and self._survey.is_right("server", "host"):
            yield from self._guarded("ports", lambda: check_ports(config.server, self._presence))
        yield from self._guarded(
            "models",
            lambda: check_models(
                config,
                self._commands,
                running=running,
                deep=self._patient.deep,
                tell=self._watch,
                in_the_file=self._survey.in_the_file,
            ),
        )
        yield from self._guarded(
            "providers",
            lambda: check_providers(
                config, offline=self._patient.offline, in_the_file=self._survey.in_the_file
            ),
        )
        yield from self._guarded(
            "traces", lambda: check_tracing(config, offline=self._patient.offline)
        )

    def _server(self, data_dir: Path) -> list[Finding]:
        self._presence = who_is_there(data_dir)
        return check_server(self._presence, self._commands)

    def _database(self, path: Path) -> list[Finding]:
        if path.is_file():
            self._checkup = check_up(path, deep=self._patient.deep)
        running = self._presence.server is not None
        return check_database(path, self._checkup, self._commands, running=running)

    def _guarded(self, about: str, look: Callable[[], list[Finding]]) -> list[Finding]:
        """One check that fails for a reason nobody thought of does not keep the others back."""
        self._watch(about, 0, 0)
        try:
            return look()
        except Exception as error:  # noqa: BLE001 - see above
            text = f"this could not be looked at: {type(error).__name__}: {error}"
            return [Teller(about).problem("doctor.failed", text, "Tell the makers of Turnpike")]
