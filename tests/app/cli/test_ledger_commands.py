"""``turnpike ledger``, ``backup`` and ``restore`` on a data directory, without a server."""

import csv
import io
import json
import sqlite3
from pathlib import Path

import pytest

from app.storage.lock import DataDirLock
from tests.app.cli.terminal import Inside, Turnpike


@pytest.fixture
def books(inside: Inside) -> Inside:
    """Ann has bought credit, and somebody corrected it."""
    inside.out("users", "add", "ann", "--tier", "free")
    inside.out("credit", "give", "ann", "5.00", "--reference", "pay_1")
    inside.out("adjust", "ann", "-1.25", "--reason", "a test")
    return inside


def spoil(data_dir: Path, sql: str) -> None:
    connection = sqlite3.connect(data_dir / "turnpike.db")
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
        connection.execute(f"DROP TRIGGER {name}")
    assert connection.execute(sql).rowcount > 0
    connection.commit()
    connection.close()


def test_audit_says_that_all_is_well(books: Inside, tmp_path: Path) -> None:
    said = books.out("ledger", "audit")
    assert said.startswith("All is well: ")
    found = books.json("ledger", "audit")
    assert found["problems"] == []
    assert found["chain_head"] in said
    books.out("backup", str(tmp_path / "b.tar"))
    assert books.out("ledger", "audit", "--file", str(tmp_path / "b.tar")) == said


def test_audit_ends_with_1_where_anything_is_wrong(books: Inside) -> None:
    spoil(books.data_dir, "UPDATE wallets SET credit_nano_usd = credit_nano_usd + 1")
    done = books.run("ledger", "audit")
    assert done.returncode == 1
    assert "the credit of user_" in done.stdout
    assert "turnpike ledger repair" in done.stderr
    done = books.run("ledger", "audit", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["area"] == "cache"


def test_a_statement_in_every_form(books: Inside) -> None:
    lines = books.out("ledger", "statement", "Ann").splitlines()
    assert lines[0] == "TIME\tKIND\tSUBJECT\tACCOUNT\tOTHER_SIDE\tAMOUNT\tBALANCE"
    assert lines[-1].startswith("ann: $0.00 before, $")
    assert lines[-1].endswith(f" now ({len(lines) - 2} entries).")
    rows = list(csv.DictReader(io.StringIO(books.out("ledger", "statement", "ann", "--csv"))))
    assert len(rows) == len(lines) - 2
    found = books.json("ledger", "statement", "ann")
    assert [row["balance_nano_usd"] for row in rows] == [
        str(line["balance_nano_usd"]) for line in found["lines"]
    ]
    total = sum(line["amount_nano_usd"] for line in found["lines"])
    assert total == found["closing"]["closing_nano_usd"] == found["closing"]["kept_nano_usd"]
    later = books.json("ledger", "statement", "ann", "--since", "2100-01-01")
    assert (later["lines"], later["closing"]["opening_nano_usd"]) == ([], total)
    adjusted = books.json("ledger", "statement", "house:adjusted")
    assert adjusted["closing"]["closing_nano_usd"] == 1_250_000_000
    assert "Opening" not in books.refused("ledger", "statement", "nobody")
    assert "excl" in books.refused("ledger", "statement", "ann", "--csv", "--json", status=2)
    assert "2026-01-31" in books.refused("ledger", "statement", "ann", "--since", "soon")


def test_a_statement_that_does_not_add_up_fails(books: Inside) -> None:
    spoil(books.data_dir, "UPDATE wallets SET credit_nano_usd = credit_nano_usd + 1")
    done = books.run("ledger", "statement", "ann")
    assert done.returncode == 1
    assert "turnpike ledger audit" in done.stderr


def test_repair_explains_and_then_does_it(books: Inside) -> None:
    assert books.out("ledger", "repair") == "Nothing is wrong.\n"
    spoil(books.data_dir, "UPDATE wallets SET credit_nano_usd = credit_nano_usd + 1")
    done = books.run("ledger", "repair")
    assert done.returncode == 1
    assert "--apply makes it again" in done.stdout
    assert books.run("ledger", "audit").returncode == 1
    assert "--author" in books.refused("ledger", "repair", "--apply", status=2)
    order = ("ledger", "repair", "--apply", "--author", "ann", "--reason", "a test")
    with DataDirLock(books.data_dir):
        done = books.run(*order)
        assert done.returncode == 1
        assert "already running" in done.stderr
    done = books.run(*order)
    assert done.returncode == 0
    assert done.stdout.endswith("an audit finds nothing wrong any more.\n")
    assert books.run("ledger", "audit").returncode == 0


def test_repair_leaves_a_damaged_journal(books: Inside) -> None:
    spoil(books.data_dir, "UPDATE entries SET amount_nano_usd = 1 WHERE kind = 'purchase'")
    order = ("ledger", "repair", "--apply", "--author", "ann", "--reason", "a test")
    before = (books.data_dir / "turnpike.db").read_bytes()
    done = books.run(*order)
    assert done.returncode == 1
    assert "Restore a backup: turnpike --data-dir" in done.stdout
    assert (books.data_dir / "turnpike.db").read_bytes() == before


def test_a_damaged_journal_keeps_every_command_out(books: Inside, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    books.out("backup", str(target))
    spoil(books.data_dir, "UPDATE entries SET amount_nano_usd = 1 WHERE kind = 'purchase'")
    refused = books.refused("users", "list")
    assert f"restore {target}" in refused
    assert "does not match its hash" in books.refused("backup", str(tmp_path / "c.tar"))
    assert not (tmp_path / "c.tar").exists()
    said = books.out("restore", str(target))
    assert "before-restore-" in said
    assert "Next: turnpike serve" in said
    assert [user["name"] for user in books.json("users", "list")] == ["ann"]


def test_backup_overwrites_only_when_told(books: Inside, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    assert "verified" in books.out("backup", str(target))
    assert "--force" in books.refused("backup", str(target))
    manifest = books.json("backup", str(target), "--force")
    assert manifest["members"][0]["name"] == "turnpike.db"
    assert "no backup at" in books.refused("restore", str(tmp_path / "none.tar"))
    with DataDirLock(books.data_dir):
        assert "already running" in books.refused("restore", str(target))


def test_a_person_sees_how_far_it_is(turnpike: Turnpike, tmp_path: Path) -> None:
    turnpike.out("users", "add", "ann", "--tier", "free")
    shown = turnpike.on_terminal("backup", str(tmp_path / "b.tar"))
    assert "Backed up 0 calls" in shown
    assert "All is well" in turnpike.on_terminal("ledger", "audit")
