"""What the system allows this process, and the versions of what it runs on."""

import sys

from app.doctor.finding import Finding, Teller
from app.installed import Versions

FILES_MIN = 4096
"""Two connections for each of a thousand streams, and what else is open."""
_tell = Teller("limits")
_version = Teller("version")


def check_limits() -> list[Finding]:
    """Open files; nothing where the system has no such limit."""
    if sys.platform == "win32":
        return []
    import resource  # noqa: PLC0415 - not on every system

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return [_tell.ok("limits.files", "any number of files may be open")]
    return [of_files(hard)]


def of_files(hard: int) -> Finding:
    """``hard``: how many files a server here could open at most."""
    text = f"a server may open {hard} files and connections"
    if hard >= FILES_MIN:
        return _tell.ok("limits.files", text)
    return _tell.warning(
        "limits.files_low",
        f"{text}, and a busy one needs {FILES_MIN}",
        "LimitNOFILE=65536 in the systemd unit, or a `nofile` line in /etc/security/limits.conf",
    )


def check_version(versions: Versions) -> list[Finding]:
    """The versions, in one line."""
    text = (
        f"Turnpike {versions.turnpike} ({versions.edition}), Python {versions.python}, SQLite"
        f" {versions.sqlite}, llama-cpp-python {versions.llama_cpp_python or 'not installed'}, on"
        f" {versions.platform}"
    )
    return [_version.ok("version", text)]
