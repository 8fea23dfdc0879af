"""Payers' money in memory: loaded when a call touches it, written once per group.

A wallet has the payer's grants that are not closed, in burn order: the earliest expiry first, what
does not expire last, of equals the oldest. ``credit`` is what is left of them together.
"""

import sqlite3

from app.errors import Conflict
from app.ledger.accounts import DueKind, GrantKind
from app.ledger.entries import CreditTerms, Grant
from app.ledger.rows import LedgerRows

WALLETS_CACHED_MAX = 65_536
NEVER_MS = 2**63 - 1


class LiveGrant:
    """A grant that may have something left."""

    __slots__ = (
        "account",
        "dirty",
        "expired",
        "expires_at_ms",
        "granted",
        "id",
        "kind",
        "note",
        "reference",
        "spent",
        "starts_at_ms",
    )

    def __init__(
        self, grant_id: int, kind: str, reference: str, account: int, starts: int, expires: int
    ) -> None:
        self.id = grant_id
        self.kind = kind
        self.reference = reference
        self.account = account
        self.starts_at_ms = starts
        self.expires_at_ms = expires
        self.note = ""
        self.granted = self.spent = self.expired = 0
        self.dirty = False

    def left(self) -> int:
        """What can still be spent of it."""
        return self.granted - self.spent - self.expired


class Due:
    """What a payer owes for a month, of one kind."""

    __slots__ = ("account", "amount", "dirty", "kind", "payer_id", "period")

    def __init__(self, payer_id: str, period: str, kind: str, account: int, amount: int) -> None:
        self.payer_id, self.period, self.kind = payer_id, period, kind
        self.account = account
        self.amount = amount
        self.dirty = False


class Wallet:
    """A payer's money. ``admitted`` has the admission times of the open holds, by call; while there
    are any, the wallet stays in memory; ``owing`` counts those that may go past the credit.
    ``overage`` lifts the CHECK of the row."""

    __slots__ = (
        "admitted",
        "booked",
        "booked_until_ms",
        "credit",
        "dirty",
        "dues",
        "grants",
        "held",
        "overage",
        "owing",
        "payer_id",
        "terms",
        "told",
    )

    def __init__(self, payer_id: str) -> None:
        self.payer_id = payer_id
        self.grants: list[LiveGrant] = []
        self.dues: dict[tuple[str, str], Due] = {}
        self.credit = 0
        self.held = 0
        self.overage = False
        self.admitted: dict[str, int] = {}
        self.owing = 0
        self.booked = ""  # the month that lacks nothing, on these terms, until this time
        self.booked_until_ms = 0
        self.terms: CreditTerms | None = None
        self.told: set[tuple[str, str]] = set()
        self.dirty = False

    def usable(self, admitted_at_ms: int) -> int:
        """What is left of the grants that a call of that moment may be paid from."""
        return sum(
            grant.left()
            for grant in self.grants
            if grant.starts_at_ms <= admitted_at_ms < grant.expires_at_ms
        )

    def find(self, kind: GrantKind, reference: str) -> LiveGrant | None:
        """A grant that is not closed."""
        for grant in self.grants:
            if grant.reference == reference and grant.kind == kind:
                return grant
        return None

    def sort(self) -> None:
        """Into burn order."""
        self.grants.sort(key=lambda grant: (grant.expires_at_ms, grant.id))


class Wallets:
    """The cache of wallets, and the rows of what changed in them."""

    def __init__(self, rows: LedgerRows, cached_max: int = WALLETS_CACHED_MAX) -> None:
        self._rows = rows
        self._cached_max = cached_max
        self._wallets: dict[str, Wallet] = {}
        self._dirty: list[Wallet] = []
        self._next_account_id = 0
        self._next_grant_id = 0
        self._connection: sqlite3.Connection

    def opened(self, connection: sqlite3.Connection) -> None:
        """Read from this connection from now on."""
        self._connection = connection
        ask = connection.execute
        self._next_account_id = max(5, ask("SELECT max(id) + 1 FROM accounts").fetchone()[0])
        self._next_grant_id = ask("SELECT coalesce(max(id), 0) + 1 FROM grants").fetchone()[0]

    def of(self, payer_id: str) -> Wallet:
        """The payer's wallet; an empty one for a payer without."""
        wallet = self._wallets.get(payer_id)
        if wallet is not None:
            return wallet
        wallet = self._wallets[payer_id] = Wallet(payer_id)
        for overage, credit, held in self._connection.execute(
            "SELECT overage, credit_nano_usd, held_nano_usd FROM wallets WHERE payer_id = ?",
            (payer_id,),
        ).fetchall():
            wallet.overage, wallet.credit, wallet.held = bool(overage), credit, held
            self._load_grants(wallet)
        return wallet

    def due(self, wallet: Wallet, period: str, kind: DueKind) -> Due:
        """What the payer owes of a kind for a month; made where there is none yet."""
        due = wallet.dues.get((period, kind))
        if due is not None:
            return due
        key = (wallet.payer_id, period, kind.value)
        row = self._connection.execute(
            "SELECT account_id, amount_nano_usd FROM dues"
            " WHERE payer_id = ? AND period = ? AND kind = ?",
            key,
        ).fetchone()
        due = Due(*key, *row) if row else Due(*key, 0, 0)
        wallet.dues[(period, kind)] = due
        return due

    def owe(self, wallet: Wallet, due: Due, amount: int) -> int:
        """Raise a due; the account that the entry comes from."""
        if not due.account:
            due.account = self._account(wallet.payer_id, due.kind, due.period)
        due.amount += amount
        due.dirty = True
        self.touch(wallet, wallet.overage)
        return due.account

    def grant(
        self,
        wallet: Wallet,
        kind: GrantKind,
        reference: str,
        starts_at_ms: int,
        expires_at_ms: int | None,
    ) -> LiveGrant:
        """Make a grant, with nothing in it yet."""
        label = reference if kind is GrantKind.MONTHLY else str(self._next_grant_id)
        grant = LiveGrant(
            self._next_grant_id,
            kind.value,
            reference,
            self._account(wallet.payer_id, kind.value, label),
            starts_at_ms,
            NEVER_MS if expires_at_ms is None else expires_at_ms,
        )
        self._next_grant_id += 1
        wallet.grants.append(grant)
        wallet.sort()
        grant.dirty = True
        return grant

    def close(self, wallet: Wallet, grant: LiveGrant) -> None:
        """A grant whose time is over and that has nothing left."""
        self._write_grant(wallet, grant)
        wallet.grants.remove(grant)
        self._rows.grants.flush_after.append(
            ("UPDATE grants SET closed = 1 WHERE id = ?", (grant.id,))
        )

    def closed_grant(self, payer_id: str, kind: GrantKind, reference: str) -> Grant | None:
        """A grant as it is on disk."""
        row = self._connection.execute(
            f"{SELECT_GRANTS} WHERE payer_id = ? AND kind = ? AND reference = ?",
            (payer_id, kind.value, reference),
        ).fetchone()
        return None if row is None else grant_of(row)

    def touch(self, wallet: Wallet, overage: bool) -> None:
        """Note that the wallet changed, on terms with or without ``overage``.

        A wallet stays marked while more is held than there is credit, even after a step down to a
        tier with a hard stop, and loses the mark with the first change that finds it within.
        """
        wallet.overage = wallet.held > wallet.credit and (
            wallet.overage or overage or wallet.owing > 0
        )
        if not wallet.dirty:
            wallet.dirty = True
            self._dirty.append(wallet)

    def gather(self) -> None:
        """Buffer the rows of the wallets that changed."""
        for wallet in self._dirty:
            wallet.dirty = False
            mark = 1 if wallet.overage else 0
            self._rows.wallets.add((wallet.payer_id, mark, wallet.credit, wallet.held))
            for grant in wallet.grants:
                if grant.dirty:
                    self._write_grant(wallet, grant)
            for due in wallet.dues.values():
                if due.dirty:
                    due.dirty = False
                    self._rows.dues.add(
                        (due.payer_id, due.period, due.kind, due.account, due.amount)
                    )
        self._dirty.clear()

    def trim(self) -> None:
        """After a commit: when too many are cached, drop the oldest quarter.

        Wallets with open holds stay, since those point to them, and become the youngest.
        """
        if len(self._wallets) > self._cached_max:
            for payer_id in list(self._wallets)[: self._cached_max // 4 + 1]:
                wallet = self._wallets.pop(payer_id)
                if wallet.admitted:
                    self._wallets[payer_id] = wallet

    def _write_grant(self, wallet: Wallet, grant: LiveGrant) -> None:
        grant.dirty = False
        expires = None if grant.expires_at_ms == NEVER_MS else grant.expires_at_ms
        self._rows.grants.add(
            (
                grant.id,
                wallet.payer_id,
                grant.kind,
                grant.reference,
                grant.account,
                grant.starts_at_ms,
                expires,
                grant.note,
                0,
                grant.granted,
                grant.spent,
                grant.expired,
            )
        )

    def _account(self, owner_id: str, kind: str, period: str) -> int:
        account = self._next_account_id
        self._next_account_id += 1
        self._rows.accounts.add((account, owner_id, kind, period))
        return account

    def _load_grants(self, wallet: Wallet) -> None:
        for grant_id, kind, reference, account, starts, expires, *rest in self._connection.execute(
            "SELECT id, kind, reference, account_id, starts_at_ms, coalesce(expires_at_ms, ?),"
            " note, granted_nano_usd, spent_nano_usd, expired_nano_usd"
            " FROM grants WHERE payer_id = ? AND closed = 0",
            (NEVER_MS, wallet.payer_id),
        ).fetchall():
            grant = LiveGrant(grant_id, kind, reference, account, starts, expires)
            grant.note, grant.granted, grant.spent, grant.expired = rest
            wallet.grants.append(grant)
        wallet.sort()


SELECT_GRANTS = (
    "SELECT id, payer_id, kind, reference, starts_at_ms, expires_at_ms, note, granted_nano_usd,"
    " spent_nano_usd, expired_nano_usd FROM grants"
)


def grant_of(row: tuple[int | str, ...]) -> Grant:
    """A row of ``SELECT_GRANTS``."""
    names = Grant.__struct_fields__
    return Grant(**{**dict(zip(names, row, strict=True)), "kind": GrantKind(row[2])})  # type: ignore[arg-type]


def shown(wallet: Wallet, grant: LiveGrant) -> Grant:
    """A live grant as the world sees it."""
    return Grant(
        id=grant.id,
        payer_id=wallet.payer_id,
        kind=GrantKind(grant.kind),
        reference=grant.reference,
        starts_at_ms=grant.starts_at_ms,
        expires_at_ms=None if grant.expires_at_ms == NEVER_MS else grant.expires_at_ms,
        note=grant.note,
        granted_nano_usd=grant.granted,
        spent_nano_usd=grant.spent,
        expired_nano_usd=grant.expired,
    )


def same_amount(grant: Grant, amount_nano_usd: int) -> Grant:
    """The grant that was made before under this reference. Raises Conflict for another amount."""
    if grant.granted_nano_usd != amount_nano_usd:
        raise Conflict(
            f"The reference {grant.reference!r} was used before, for another amount. Use a new"
            " one.",
            param="reference",
        )
    return grant
