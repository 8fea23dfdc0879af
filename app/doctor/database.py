"""The database and the chain of hashes over its journal."""

from pathlib import Path

from app.doctor.finding import Commands, Finding, Teller, gib
from app.ledger.checkup import Checkup
from app.storage.restore_advice import MARKER, restore_advice

WAL_BYTES_LARGE = 64 << 20
"""A running server keeps its write-ahead log below this (bar B7 of the design)."""
_tell = Teller("database")
_chain = Teller("hash chain")


def check_database(
    path: Path, checkup: Checkup | None, commands: Commands, *, running: bool
) -> list[Finding]:
    """``checkup``: what was found in the file; None where there is none yet."""
    found = _unfinished_restore(path.parent, commands)
    if checkup is None:
        text = f"there is no database in {path.parent} yet: the first start makes it"
        return found or [_tell.ok("database.none", text)]
    if checkup.unreadable:
        return [*found, _tell.problem("database.unreadable", checkup.unreadable, _restore(path))]
    if checkup.refused:
        fix = (
            "Start the program that the message names, or restore a backup from before the upgrade"
        )
        return [*found, _tell.problem("database.refused", checkup.refused, fix)]
    found += [
        _tell.problem("database.damaged", f"{path}: {damage}", _restore(path))
        for damage in checkup.pages[:1]
    ]
    if checkup.wal_bytes > WAL_BYTES_LARGE:
        found.append(_large_log(checkup, commands, running=running))
    if not found:
        found.append(_tell.ok("database.ok", _sound(checkup)))
    return [*found, *_of_journal(path, checkup, commands)]


def _sound(checkup: Checkup) -> str:
    text = f"{gib(checkup.bytes)} in schema {checkup.schema}"
    if checkup.upgrade:
        text += f"; the next start upgrades it ({checkup.upgrade} steps), after a backup"
    if not checkup.pages_checked:
        return f"{text}; so large that its pages were not looked at: --deep does"
    return f"{text}; all its pages are sound"


def _unfinished_restore(data_dir: Path, commands: Commands) -> list[Finding]:
    if not (data_dir / MARKER).exists():
        return []
    fix = f"Run the same again: {commands.turnpike('restore', 'BACKUP')}"
    text = f"a restore into {data_dir} was interrupted, and no server starts before it is done"
    return [_tell.problem("database.restore_unfinished", text, fix)]


def _large_log(checkup: Checkup, commands: Commands, *, running: bool) -> Finding:
    text = f"the write-ahead log has {gib(checkup.wal_bytes)}"
    if running:
        why = f"{text}: something reads the database for very long, so that it cannot be emptied"
        fix = "Find who has the file open, and end what should not: lsof turnpike.db"
    else:
        why = f"{text}; the next start writes it into the database"
        fix = commands.turnpike("serve")
    return _tell.warning("database.log_large", why, fix)


def _of_journal(path: Path, checkup: Checkup, commands: Commands) -> list[Finding]:
    if checkup.pages or checkup.upgrade:
        return []
    if checkup.journal:
        return [_chain.problem("chain.broken", checkup.journal, _restore(path))]
    if checkup.audit:
        more = f" (and {len(checkup.audit) - 1} more)" if len(checkup.audit) > 1 else ""
        fix = commands.turnpike("ledger", "repair")
        return [_chain.problem("ledger.wrong", checkup.audit[0] + more, fix)]
    if checkup.audit is None:
        text = f"its end proves right, of {checkup.entries} entries; --deep walks all of it"
    else:
        text = f"all {checkup.entries} entries prove right, and every sum is what they say"
    return [_chain.ok("chain.ok", text)]


def _restore(path: Path) -> str:
    return restore_advice(path)
