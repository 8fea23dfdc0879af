"""``turnpike bundle apply`` as root, with this machine's users and tools, in mounts of its own."""

import sys
from pathlib import Path

import pytest

from app.config_carried import CARRIED_FILE
from tests.app.site_bundle.carried import Connected, one_file
from tests.packaging.test_install_as_root import own_mounts, run
from tests.tidy.tree import ROOT

pytestmark = [
    pytest.mark.skipif(not own_mounts(), reason="needs root and mount namespaces"),
    pytest.mark.skipif(sys.base_prefix.startswith("/usr/local"), reason="Python lies there"),
]


def program(place: Path, version: str, status: int) -> Path:
    """One that writes down who called it for what."""
    head = f"""#!/bin/sh
case $* in *--version) echo "turnpike {version}"; exit ;; esac
echo "$(id -un) runs {version}: ${{5-}}" >>/run/log
exit {status}
""".encode()
    return one_file(place, version, head=head)


def test_service_owners_restart_and_a_version_that_does_not_start(
    connected: Connected, tmp_path: Path
) -> None:
    def bundle(version: str, status: int, price: str) -> Path:
        text = connected.file.read_text()
        old = text.partition('price_usd_per_second = "')[2].partition('"')[0]
        connected.file.write_text(text.replace(f'"{old}"', f'"{price}"'))
        made = program(tmp_path / version, version, status)
        return connected.bundle(f"{version}.tar", program=made)

    first, second = bundle("1.0", 0, "0.001"), bundle("1.1", 0, "0.002")
    third = bundle("1.2", 1, "0.003")
    apply = f"cd {ROOT}; {sys.executable} -m app bundle apply --trust-key {connected.public}"
    price = f"grep -o '0[.]00[0-9]*' /var/lib/turnpike/{CARRIED_FILE}"
    told = run(
        tmp_path,
        f"""
        ({apply} {first}) >/dev/null
        stat -c '%U:%G %a %n' /var/lib/turnpike /var/lib/turnpike/* | sort -u
        find /var/lib/turnpike ! -user turnpike
        stat -c '%U:%G %a %n' /usr/local/lib/turnpike/1.0/README.md
        cat /run/log; echo ---
        : >/run/active; : >/run/log
        ({apply} {second}) >/dev/null
        current; {price}; cat /run/log; echo ---
        : >/run/log
        ! ({apply} {third}) >/dev/null 2>/run/words || exit 9
        current; {price}; cat /run/log; cut -c1-60 /run/words; echo ---
        : >/run/log
        ({apply} {second}) | tail -n 1; cat /run/log
        """,
    )
    assert told == [
        "turnpike:turnpike 600 /var/lib/turnpike/bundle.lock",
        f"turnpike:turnpike 600 /var/lib/turnpike/{CARRIED_FILE}",
        "turnpike:turnpike 700 /var/lib/turnpike",
        "turnpike:turnpike 700 /var/lib/turnpike/models",
        "root:root 644 /usr/local/lib/turnpike/1.0/README.md",
        "systemctl daemon-reload",
        "systemctl is-active --quiet turnpike.service",
        "systemctl enable --now turnpike.service",
        "---",
        "1.1",
        "0.002",
        "systemctl daemon-reload",
        "systemctl is-active --quiet turnpike.service",
        "turnpike runs 1.1: restart",
        "---",
        "1.1",  # the new one could not start: program and prices are what they were
        "0.002",
        "systemctl daemon-reload",
        "systemctl is-active --quiet turnpike.service",
        "turnpike runs 1.2: restart",
        "Error: The program was not installed: the running server was",
        "---",
        "All of it is here already: nothing is changed.",
    ]
