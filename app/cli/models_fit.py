"""``turnpike models fit``: which layout of a model this machine computes fastest."""

from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from app.cli.client import CommandFailed
from app.cli.invocation import Invocation
from app.cli.models_store import refusals_told
from app.cli.output import Column, json_option, show_json, show_table
from app.cli.progress import progress_bar

if TYPE_CHECKING:
    from local_runtime.fitting import Fit
    from local_runtime.store.catalog import Manifest


class FitAnswer(msgspec.Struct, frozen=True):
    """What ``models fit`` prints as JSON. ``best`` is worth changing to; ``accepted`` was taken."""

    measured: "Fit"
    best: str | None
    accepted: str | None


@click.command("fit")
@click.argument("name", metavar="NAME[:VARIANT]")
@click.option("--layout", "layouts", multiple=True, metavar="LAYOUT", help="Try this; repeatable.")
@click.option("--accept", "accepting", is_flag=True, help="Take the fastest, or the one --layout.")
@click.option("--again", is_flag=True, help="Measure, even if it was measured before.")
@json_option
@click.pass_obj
def fit_model(
    invocation: Invocation,
    name: str,
    layouts: tuple[str, ...],
    accepting: bool,
    again: bool,
    as_json: bool,
) -> None:
    """Measure a GGUF model in other layouts, and offer the one that this processor likes best.

    The weights are rounded anew to Q4_0 and Q8_0, or to each --layout, and each is measured:
    reading a prompt, writing for one and for 16 together. Nothing changes until --accept takes one:
    as another variant of the model, whose name says what it was made from.
    """
    fit(invocation, name, layouts, accepting=accepting, again=again, as_json=as_json)


def fit(
    invocation: Invocation,
    name: str,
    layouts: tuple[str, ...] = (),
    *,
    accepting: bool = False,
    again: bool = False,
    as_json: bool = False,
) -> None:
    """As the command. Raises CommandFailed."""
    from app.model_store import open_store
    from local_runtime import fitting
    from local_runtime.engines.contract import EngineLoadError
    from local_runtime.store.names import parse_store

    wanted = tuple(layout.upper() for layout in layouts)
    with refusals_told(), progress_bar() as bar:
        store = open_store(invocation.config())
        manifest = store.get(parse_store(name))
        known = None if again else fitting.remembered(store, manifest)
        if known is not None and not set(wanted) <= {speed.layout for speed in known.speeds}:
            known = None
        try:
            found = known or fitting.measure(store, manifest, wanted, tell=bar)
            best = found.best.layout if found.best is not None else None
            chosen = wanted[0] if len(wanted) == 1 else best
            taken = None
            if accepting and chosen is not None:
                taken = fitting.accept(store, manifest, chosen, tell=bar)
        except EngineLoadError as error:
            raise CommandFailed(f"{error}.") from error
    if as_json:
        show_json(FitAnswer(found, best, None if taken is None else str(taken.name)))
        return
    _show(found, manifest, taken)


def _show(found: "Fit", manifest: "Manifest", taken: "Manifest | None") -> None:
    from local_runtime.fitting import quality_of, variant_name

    base = found.speeds[0]
    titles = ("Layout", "Size", "Prompt", "1 stream", "16 streams", "Agrees")
    show_table(
        [Column(title, number=title != "Layout") for title in titles],
        [
            [
                speed.layout if speed is base else variant_name(manifest, speed.layout),
                f"{speed.bytes / 1e6:.0f} MB",
                f"{speed.prompt:.0f} ({speed.prompt / base.prompt:.2f}x)",
                f"{speed.one:.0f} ({speed.one / base.one:.2f}x)",
                f"{speed.many:.0f} ({speed.many / base.many:.2f}x)",
                f"{speed.agreement:.0f} %",
            ]
            for speed in found.speeds
        ],
        empty="",
    )
    click.echo(f"Tokens per second on {found.processor}, {found.threads} threads.")
    if taken is not None:
        click.echo(f"{taken.name} is here. It is used only where it is named:")
        click.echo(f'source = "store:{taken.name}" under [[local.models]].')
        return
    best = found.best
    if best is None:
        click.echo(f"{manifest.name} is best left as it is on this machine.")
        return
    click.echo(
        f"{best.layout} is {found.gain(best):.2f} times as fast here. What it costs: "
        f"{quality_of(found, best)}."
    )
    click.echo(f"To take it: turnpike models fit {manifest.name} --accept")
