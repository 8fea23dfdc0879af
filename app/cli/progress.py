"""A progress bar on stderr for commands that take a while; scripts see none."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import rich_click as click

Progress = Callable[[str, int, int], None]


@contextmanager
def bytes_bar() -> Iterator[Progress]:
    """As ``progress_bar``, counting bytes: how many, how fast, and how long it will take."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        begun = False

        def tell(what: str, done: int, total: int) -> None:
            nonlocal begun
            if done and not begun:
                begun = True
                bar.reset(task, completed=done)  # what was there before is not speed
            bar.update(task, description=what, completed=done, total=total or None)

        yield tell


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give a function that is told what is being done, how far it is, and how far it goes."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield tell


@contextmanager
def upgrade_bar(begun: str) -> Iterator[Progress]:
    """Say on stderr that the database is being upgraded, how far that is, and that it is done."""
    click.echo(begun, err=True)
    with progress_bar() as progress:
        yield progress
    click.echo("The database is upgraded.", err=True)


def upgrade_bar_of_server(begun: str) -> AbstractContextManager[Progress]:
    """The same for a server, whose log says it already to whoever is not at a terminal."""
    return upgrade_bar(begun) if sys.stderr.isatty() else progress_bar()
