"""``turnpike models``: list."""

import rich_click as click

from app.api.admin.wire import ModelLine, ModelList
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, show_json, show_table, usd
from plugins.contract import Price


@click.group()
def models() -> None:
    """The models that clients may call, and who serves them."""


@models.command("list")
@json_option
@click.pass_obj
def list_models(invocation: Invocation, as_json: bool) -> None:
    """List every model with its providers, prices and limits."""

    async def work(client: AdminClient) -> list[ModelLine]:
        return (await client.send("GET", "/api/models", ModelList)).data

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    titles = ("Model", "Provider", "Status", "Price", "Context")
    show_table(
        [Column(title, number=title == "Context") for title in titles],
        [
            [line.model, line.provider, line.status, _price(line.price), _count(line)]
            for line in found
        ],
        empty="No models are configured.",
    )


def _price(price: Price) -> str:
    parts = []
    if price.input or price.output:
        parts.append(f"{usd(price.input)} in, {usd(price.output)} out per million tokens")
    if price.compute_per_second:
        parts.append(f"{usd(price.compute_per_second)} per second")
    return "; ".join(parts) or "free"


def _count(line: ModelLine) -> str:
    return "-" if line.context_length is None else str(line.context_length)
