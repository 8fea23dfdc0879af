"""``turnpike doctor``."""

import rich_click as click

from app.cli.invocation import Invocation
from app.cli.output import json_option, show_progress
from app.cli.progress import bytes_bar


@click.command()
@click.option("--offline", is_flag=True, help="Ask no provider: nothing leaves this machine.")
@click.option("--deep", is_flag=True, help="Read all of the database and of the store of models.")
@json_option
@click.pass_obj
def doctor(invocation: Invocation, *, offline: bool, deep: bool, as_json: bool) -> int:
    """Look at everything that a healthy appliance needs, and say how to mend what is not right.

    It changes nothing and may run beside a server. The exit status is 1 where there is a problem.
    """
    from app.cli.findings import show_findings
    from app.doctor.examination import Patient, examine

    patient = Patient(
        file=invocation.config_file, data_dir=invocation.data_dir, offline=offline, deep=deep
    )
    if not deep:
        return show_findings(examine(patient), as_json=as_json)
    show_progress("Reading all of the database and of the store of models …")
    with bytes_bar() as bar:
        findings = examine(patient, bar)
    return show_findings(findings, as_json=as_json)
