"""``turnpike usage``."""

from typing import get_args

import rich_click as click

from app.api.admin.wire import UsageList
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, show_json, show_table, usd
from app.metering.usage import Grouping, UsageSummary


@click.command()
@click.option(
    "--by",
    type=click.Choice(get_args(Grouping)),
    default="model",
    show_default=True,
    help="What to add up by.",
)
@click.option("--since", metavar="DATE", help="From this date or time on (UTC).")
@click.option("--until", metavar="DATE", help="Up to, and without, this date or time (UTC).")
@json_option
@click.pass_obj
def usage(
    invocation: Invocation, by: Grouping, since: str | None, until: str | None, as_json: bool
) -> None:
    """Show what was used, and what it cost."""
    given = {"by": by, "since": since, "until": until}
    query = {name: value for name, value in given.items() if value is not None}

    async def work(client: AdminClient) -> list[UsageSummary]:
        return (await client.send("GET", "/api/usage", UsageList, query=query)).data

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    numbers = ("Calls", "Input tokens", "Output tokens", "Compute s", "Cost")
    show_table(
        [Column(by.capitalize()), *(Column(title, number=True) for title in numbers)],
        [
            [
                line.label,
                str(line.calls),
                str(line.input_tokens),
                str(line.output_tokens),
                f"{line.compute_ns // 10**9}.{line.compute_ns // 10**6 % 1000:03d}",
                usd(line.cost_nano_usd),
            ]
            for line in found
        ],
        empty="No calls were made in that time.",
    )
