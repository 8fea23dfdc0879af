"""The install script as root, on this machine's own users and tools, in mounts of its own: what it
writes to /etc, /usr/local, /var/lib and /run is gone with the test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT


def own_mounts() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    try:
        return subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not own_mounts(), reason="needs root and mount namespaces")

MOUNTS = """
set -eu
cp -a /etc "$T/etc"
mkdir "$T/local" "$T/lib"
mount --bind "$T/etc" /etc
mount --bind "$T/local" /usr/local
mount --bind "$T/lib" /var/lib
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/bin
: >/run/log
chmod 666 /run/log
cat >/run/bin/systemctl <<'SH'
#!/bin/sh
echo "systemctl $*" >>/run/log
case $1 in is-active) exec test -e /run/active ;; esac
SH
chmod 755 /run/bin/systemctl
PATH=/run/bin:$PATH
program() { # VERSION STATUS: a program that writes down who called it for what
    mkdir -p "/run/p/$1"
    cat >"/run/p/$1/turnpike" <<SH
#!/bin/sh
case \\$* in *--version) echo "turnpike $1"; exit ;; esac
echo "\\$(id -un) runs $1: \\${5-}" >>/run/log
exit $2
SH
    chmod 755 "/run/p/$1/turnpike"
}
current() { readlink /usr/local/lib/turnpike/current; }
"""


def run(folder: Path, script: str) -> list[str]:
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", MOUNTS + script],
        env={**os.environ, "T": str(folder), "INSTALL": str(ROOT / "packaging" / "install")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_user_owners_service_upgrade_and_purge(tmp_path: Path) -> None:
    told = run(
        tmp_path,
        """
        program 1.0 0; program 1.1 0; program 1.2 1
        "$INSTALL" /run/p/1.0/turnpike >/dev/null
        stat -c '%U:%G %a %n' /etc/turnpike /etc/turnpike/config.toml /var/lib/turnpike
        stat -c '%U:%G %a %n' /usr/local/lib/turnpike/1.0/turnpike
        getent passwd turnpike | cut -d: -f1,6,7
        cat /run/log; echo ---
        : >/run/active; : >/run/log
        "$INSTALL" /run/p/1.1/turnpike >/dev/null
        current; cat /run/log; echo ---
        : >/run/log
        ! "$INSTALL" /run/p/1.2/turnpike >/dev/null 2>/run/words || exit 9
        current; cat /run/log; cat /run/words; echo ---
        : >/run/log
        "$INSTALL" rollback >/dev/null
        current; cat /run/log; echo ---
        : >/run/log
        /usr/local/lib/turnpike/current/install uninstall --purge >/dev/null 2>&1
        cat /run/log
        ! getent passwd turnpike || exit 8
        ! getent group turnpike || exit 7
        ls -A /usr/local /var/lib
        """,
    )
    assert told == [
        "root:turnpike 750 /etc/turnpike",
        "root:turnpike 640 /etc/turnpike/config.toml",
        "turnpike:turnpike 700 /var/lib/turnpike",
        "root:root 755 /usr/local/lib/turnpike/1.0/turnpike",
        "turnpike:/var/lib/turnpike:/usr/sbin/nologin",
        "systemctl daemon-reload",
        "systemctl is-active --quiet turnpike.service",
        "systemctl enable --now turnpike.service",
        "---",
        "1.1",
        "systemctl daemon-reload",
        "systemctl is-active --quiet turnpike.service",
        "turnpike runs 1.1: restart",
        "---",
        "1.1",  # the new one could not start, and nothing has changed
        "systemctl daemon-reload",
        "systemctl is-active --quiet turnpike.service",
        "turnpike runs 1.2: restart",
        "install: the running server was not restarted, for the reason above, and 1.1 stays in"
        " use. If the reason is another one than the new version, systemctl restart turnpike",
        "---",
        "1.0",
        "systemctl daemon-reload",
        "systemctl is-active --quiet turnpike.service",
        "turnpike runs 1.0: restart",
        "---",
        "systemctl disable --now turnpike.service",
        "systemctl daemon-reload",
        "/usr/local:",
        "",
        "/var/lib:",
    ]
