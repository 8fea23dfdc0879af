"""``turnpike models``: list; what else there is lies in files of its own."""

import rich_click as click

from app.api.admin.wire import ModelLine, ModelList
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.local_models import load_model, show_processes, unload_model
from app.cli.models_bundle import bundle_models, import_bundle
from app.cli.models_fit import fit_model
from app.cli.models_store import (
    import_model,
    prune_models,
    pull_model,
    remove_model,
    show_model,
    show_stored,
    stored_models,
)
from app.cli.output import Column, json_option, moment, show_json, show_table, usd
from plugins.contract import Price


@click.group()
def models() -> None:
    """The models that clients may call, and who serves them."""


for each in (
    show_processes,
    load_model,
    unload_model,
    pull_model,
    import_model,
    fit_model,
    show_model,
    remove_model,
    prune_models,
    bundle_models,
    import_bundle,
):
    models.add_command(each)


@models.command("list")
@click.option("--store", is_flag=True, help="The models whose files are on this machine.")
@json_option
@click.pass_obj
def list_models(invocation: Invocation, store: bool, as_json: bool) -> None:
    """List every model with its providers, prices and limits; or what is in the store."""
    if store:
        stored = stored_models(invocation)
        show_json(stored) if as_json else show_stored(stored)
        return

    async def work(client: AdminClient) -> list[ModelLine]:
        return (await client.send("GET", "/api/models", ModelList)).data

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    titles = ("Model", "Provider", "Status", "Price", "Context")
    show_table(
        [Column(title, number=title == "Context") for title in titles],
        [[line.model, line.provider, line.status, _prices(line), _count(line)] for line in found],
        empty="No models are configured.",
    )


def _prices(line: ModelLine) -> str:
    """The price in force, then those to come."""
    now = "none" if line.price is None else _price(line.price)
    later = [f"from {moment(each.from_ms)}: {_price(each.price)}" for each in line.upcoming]
    return " | ".join([now, *later])


def _price(price: Price) -> str:
    if price.free:
        return "free"
    parts = []
    tokens = [
        f"{usd(amount)} {words}"
        for words, amount in (
            ("in", price.input),
            ("out", price.output),
            ("cache read", price.cache_read),
            ("cache write", price.cache_write),
            ("reasoning", price.reasoning),
            ("audio in", price.audio_input),
            ("audio out", price.audio_output),
        )
        if amount is not None
    ]
    if any((price.input, price.output)) or len(tokens) > len(("in", "out")):
        parts.append(", ".join(tokens) + " per million tokens")
    if price.image:
        parts.append(f"{usd(price.image // 10**6)} per image")
    if price.per_request:
        parts.append(f"{usd(price.per_request)} per request")
    if price.compute_per_second:
        parts.append(f"{usd(price.compute_per_second)} per second")
    if price.as_billed:
        parts.append("or as the provider bills")
    return "; ".join(parts) or "none"


def _count(line: ModelLine) -> str:
    return "-" if line.context_length is None else str(line.context_length)
