"""Whether this program could start: what would be found out at its start, without starting it."""

from app.clock import SystemClock
from app.config import Config
from app.parts import adapters_of, local_runtime
from app.providers import Builder, provider_keys
from app.storage.database import DATABASE_NAME
from app.storage.migrate import shipped_migrations, upgrade_due
from app.storage.read_only import open_read_only
from app.tracing.settings import settings_of


def check_start(config: Config) -> None:
    """Beside a running server too, whose database is only read.

    Raises ConfigError for a configuration that does not serve, and DatabaseRefused for a database
    that is not this program's.
    """
    runtime, _ = local_runtime(config, serving=True)
    adapters_of(config, runtime, Builder(config, SystemClock()))
    provider_keys(config)
    settings_of(config)
    path = config.data_dir() / DATABASE_NAME
    if path.exists():
        connection = open_read_only(path, any_schema=True)
        try:
            upgrade_due(connection, shipped_migrations())
        finally:
            connection.close()
