"""Requests with an Idempotency-Key, on the writer thread: each is carried out once (I4).

A key belongs to a user and lives for 24 hours. While its call runs, repeats are refused with 409;
when the call has ended with something to pay for, they get its answer; where nothing was charged
and nothing delivered, the key is free again. Another request under the same key is 422.
"""

import sqlite3

from app.errors import Conflict, Unprocessable
from app.ledger.entries import IdempotencyKey, StoredAnswer

LIVES_MS = 24 * 3_600_000
# The appliance died during the call, which is charged if its provider says so: no body was made.
BROKE_OFF = StoredAnswer(status=502, body=b"")


class Answered(Conflict):
    """The key's call has ended: its answer is stored. The API looks it up and sends it."""

    code = "idempotency_answered"


def refuse_another(stored_hash: bytes, key: IdempotencyKey) -> None:
    """Raise Unprocessable where the key came with another request before."""
    if stored_hash != key.request_hash:
        raise Unprocessable(
            "This Idempotency-Key was used for a request with another body. Use a new key for a"
            " new request.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )


class InFlight(Conflict):
    """The key's call is running."""

    code = "idempotency_in_flight"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is being worked on. Wait for its answer, or try"
            " again in a moment.",
            param="Idempotency-Key",
            retry_after_s=1,
        )


class IdempotencyKeys:
    """The idempotency table, as the verbs see it."""

    def opened(self, connection: sqlite3.Connection) -> None:
        """Work on this connection from now on."""
        self._connection = connection

    def check(self, user_id: str, key: IdempotencyKey, now_ms: int) -> None:
        """Whether a call may work on this key. Raises Answered, Conflict, Unprocessable."""
        row = self._connection.execute(
            "SELECT request_hash, status, created_at_ms FROM idempotency"
            " WHERE user_id = ? AND key = ?",
            (user_id, key.key),
        ).fetchone()
        if row is None:
            return
        request_hash, status, created_at_ms = row
        if status is not None and created_at_ms <= now_ms - LIVES_MS:
            self.free((user_id, key.key))
            return
        refuse_another(request_hash, key)
        raise InFlight if status is None else Answered("This request was answered before.")

    def take(self, user_id: str, key: IdempotencyKey, call_id: str, now_ms: int) -> None:
        """The call works on the key from now on; ``check`` has passed."""
        self._connection.execute(
            "INSERT INTO idempotency (user_id, key, request_hash, call_id, created_at_ms)"
            " VALUES (?, ?, ?, ?, ?)",
            (user_id, key.key, key.request_hash, call_id, now_ms),
        )

    def answer(self, owner: tuple[str, str], answer: StoredAnswer) -> None:
        """Keep the answer for repeats."""
        self._connection.execute(
            "UPDATE idempotency SET status = ?, answer = ? WHERE user_id = ? AND key = ?",
            (answer.status, answer.body, *owner),
        )

    def free(self, owner: tuple[str, str]) -> None:
        """Nothing came of it: the key may be used again."""
        self._connection.execute("DELETE FROM idempotency WHERE user_id = ? AND key = ?", owner)

    def unanswered(self) -> dict[str, tuple[str, str]]:
        """The keys whose calls run: user and key by call."""
        rows = self._connection.execute(
            "SELECT call_id, user_id, key FROM idempotency WHERE status IS NULL"
        )
        return {call_id: (user_id, key) for call_id, user_id, key in rows.fetchall()}
