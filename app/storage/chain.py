"""The journal's hash chain: each entry's hash covers the entry and the hash before it (I2).

SHA-256 over the previous hash and the row's values in a form that no two rows share: integers as
decimals, texts with their length in characters before them. The first link hangs on 32 zero bytes.
"""

from hashlib import sha256

HEAD = bytes(32)


def link(
    previous: bytes,
    seq: int,
    at_ms: int,
    period: str,
    kind: str,
    subject: str,
    debit_account_id: int,
    credit_account_id: int,
    amount_nano_usd: int,
) -> bytes:
    """The hash of one entry, 32 bytes."""
    text = (
        f"{seq},{at_ms},{len(period)}:{period},{len(kind)}:{kind},{len(subject)}:{subject},"
        f"{debit_account_id},{credit_account_id},{amount_nano_usd}"
    )
    return sha256(previous + text.encode()).digest()


class Chain:
    """The SQL function ``chain_hash(seq, …, amount)``: links the rows that it is given in order."""

    def __init__(self) -> None:
        self._last = HEAD

    def __call__(
        self,
        seq: int,
        at_ms: int,
        period: str,
        kind: str,
        subject: str,
        debit_account_id: int,
        credit_account_id: int,
        amount_nano_usd: int,
    ) -> bytes:
        self._last = link(
            self._last,
            seq,
            at_ms,
            period,
            kind,
            subject,
            debit_account_id,
            credit_account_id,
            amount_nano_usd,
        )
        return self._last
