"""The command line: ``turnpike [--config FILE] [--data-dir DIR] COMMAND``."""

import sys
from pathlib import Path
from typing import Any

import rich_click as click

from app.cli.backup import backup, restore
from app.cli.billing import adjust, billing
from app.cli.bundle import bundle
from app.cli.clock import clock
from app.cli.config import config
from app.cli.credit import credit
from app.cli.doctor import doctor
from app.cli.health import health
from app.cli.invocation import Invocation
from app.cli.invoices import invoices
from app.cli.keys import keys
from app.cli.ledger import ledger
from app.cli.limits import limits
from app.cli.models import models
from app.cli.orgs import orgs
from app.cli.output import show_error
from app.cli.plugins import plugins
from app.cli.provider_keys import provider_keys
from app.cli.reload import reload
from app.cli.restart import restart
from app.cli.routing import confine, preferred, providers
from app.cli.secrets import secrets
from app.cli.serve import serve
from app.cli.usage import usage
from app.cli.users import users
from app.cli.version import version
from app.cli.worker import worker
from app.errors import TurnpikeError
from app.version import VERSION

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_file",
    envvar="TURNPIKE_CONFIG",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration, a TOML file; without one, everything has its default.",
)
@click.option(
    "--data-dir",
    envvar="TURNPIKE_DATA_DIR",
    metavar="DIR",
    help="Where everything is kept; wins over the file's.",
)
@click.version_option(version=VERSION, prog_name="turnpike", message="%(prog)s %(version)s")
@click.pass_context
def turnpike(context: click.Context, config_file: Path | None, data_dir: str | None) -> None:
    """A self-hosted inference appliance: one API for your own and other people's models."""
    context.obj = Invocation(config_file, data_dir)


for command in (
    serve,
    users,
    keys,
    provider_keys,
    secrets,
    orgs,
    limits,
    models,
    providers,
    plugins,
    confine,
    preferred,
    usage,
    billing,
    adjust,
    credit,
    clock,
    invoices,
    ledger,
    backup,
    restore,
    bundle,
    reload,
    config,
    doctor,
    version,
    restart,
    health,
    worker,
):
    turnpike.add_command(command)


def main() -> None:
    """Run the command that was typed, and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """0 when done, 1 when the command failed, 2 when it was typed wrong, 130 after Ctrl-C."""
    try:
        result: Any = turnpike.main(args=arguments, prog_name="turnpike", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "turnpike"
        show_error(f"{error.format_message()} Try: {command} --help")
        return error.exit_code
    except click.ClickException as error:
        show_error(error.format_message())
        return error.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED
    except TurnpikeError as error:
        show_error(error.message)
        return EXIT_FAILED
    except OSError as error:
        show_error(str(error))
        return EXIT_FAILED
    return result if isinstance(result, int) else 0
