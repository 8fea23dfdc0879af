"""``turnpike worker``: the child process that runs one engine; the appliance starts it."""

import rich_click as click


@click.command(hidden=True)
def worker() -> int:
    """Run one engine behind this process's pipes."""
    from local_runtime.worker import main

    return main()
