"""``turnpike health``: whether the server takes calls, for a container's health check."""

import http.client
import json
from enum import Enum
from urllib.parse import urlsplit

import rich_click as click

from app.cli.client import CommandFailed, server_of
from app.cli.invocation import Invocation
from app.cli.output import json_option, show_json
from app.config import Config

_SECONDS_MAX = 5.0


class Health(Enum):
    """What a server says of itself."""

    READY = "ready"
    UNAVAILABLE = "unavailable"
    SILENT = "silent"


@click.command()
@json_option
@click.pass_obj
def health(invocation: Invocation, as_json: bool) -> int:
    """Ask the server whether it takes calls: exit status 0 if so, else 1.

    It asks /readyz where the running server says that it listens, else at the configured address.
    """
    config = invocation.config()
    url = _url(config)
    found, problems = _ask(url)
    if as_json:
        show_json({"url": url, "status": found.value, "problems": problems})
    elif found is Health.READY:
        click.echo(f"{url} takes calls")
    else:
        told = "; ".join(f"{part}: {problem}" for part, problem in problems.items())
        raise CommandFailed(f"{url} takes no calls: {told}")
    return 0 if found is Health.READY else 1


def health_of(url: str) -> Health:
    """What ``/readyz`` at a base URL says."""
    return _ask(url)[0]


def _url(config: Config) -> str:
    try:
        server = server_of(config.data_dir())
    except CommandFailed:  # its file is another user's
        server = None
    if server is not None:
        return server.base_url
    host = config.server.host
    if host in {"0.0.0.0", "::", ""}:
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def _ask(url: str) -> tuple[Health, dict[str, str]]:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_SECONDS_MAX)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = json.loads(answer.read())
        problems = {str(part): str(problem) for part, problem in body["problems"].items()}
    except (OSError, http.client.HTTPException, ValueError, KeyError, AttributeError) as error:
        return Health.SILENT, {
            "server": f"it does not answer ({str(error) or type(error).__name__})"
        }
    finally:
        connection.close()
    return Health.READY if answer.status == 200 else Health.UNAVAILABLE, problems
