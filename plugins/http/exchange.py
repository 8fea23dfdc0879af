"""One request and its reply, as its reader sees it. ``connection`` fills it in."""

import asyncio
from typing import TYPE_CHECKING

from plugins.contract import AdapterError, FailureKind

if TYPE_CHECKING:
    from plugins.http.connection import Connection

# What may wait for a reader that is behind, before the sender is made to wait.
BEHIND_BYTES_MAX = 256 * 1024
REQUEST_ID_LENGTH_MAX = 200


class Exchange:
    """One request and its reply. ``close`` must be called; it aborts what has not been read.

    ``status`` and ``header`` are there once the client has handed it out. One task reads it.
    Cancelling that task, or a read that takes too long, closes the connection at once.
    """

    __slots__ = (
        "_bytes_max",
        "_connection",
        "_read_bytes",
        "_refusal_bytes_max",
        "by",
        "complete",
        "failure",
        "headers",
        "heard",
        "pieces",
        "silence_s",
        "status",
        "waiter",
        "waiting_bytes",
        "whole",
    )

    def __init__(
        self,
        connection: "Connection",
        *,
        whole: bool,
        silence_s: float,
        bytes_max: int,
        refusal_bytes_max: int,
    ) -> None:
        """``whole``: wake the reader once, when everything is there."""
        self._connection = connection
        self._bytes_max = bytes_max
        self._refusal_bytes_max = refusal_bytes_max
        self._read_bytes = 0
        self.whole = whole
        self.silence_s = silence_s
        self.by = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        # What the connection writes: body bytes nobody has read, and how it went.
        self.pieces: list[bytes] = []
        self.waiting_bytes = 0
        self.heard = False
        self.complete = False
        self.failure: AdapterError | None = None
        self.waiter: asyncio.Future[None] | None = None

    def header(self, name: str) -> str | None:
        """One header of the reply, by lower-case name; None too for one that is not ASCII.

        Of a header that comes twice, the first.
        """
        wanted = name.encode()
        for found, value in self.headers:
            if found.lower() == wanted:
                return value.decode("ascii") if value.isascii() else None
        return None

    def id_in(self, name: str) -> str:
        """The provider's id of the request, from a header; empty where it gave none that can be
        sent back to ask for the cost."""
        found = self.header(name) or ""
        good = len(found) <= REQUEST_ID_LENGTH_MAX and found.isascii() and found.isprintable()
        return found.strip() if good else ""

    async def read(self, by: float) -> bytes | None:
        """The next piece of the body, None at its end; AdapterError (TIMEOUT) after ``by``."""
        if self.pieces and not self.complete and self._connection.loop.time() >= by:
            # A sender that never lets the reader wait would never meet a deadline.
            raise _anew(self._connection.expire(self))
        while not self.pieces and not self.complete:
            await self.wait(by)
        return self._take()

    async def read_all(self, by: float) -> bytes:
        """The rest of the body, until ``by``; of a refusal only as much as is worth reading."""
        bytes_max = self.whole_bytes_max()
        pieces = []
        while self._read_bytes < bytes_max and (piece := await self.read(by)) is not None:
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def rest(self) -> bytes:
        """As ``read_all``, with no limit but that on silence."""
        return await self.read_all(float("inf"))

    async def run_out(self, by: float) -> None:
        """Read what is left behind an answer that is complete, so that the connection can serve
        another call. How it ends no longer matters."""
        try:
            while await self.read(by) is not None:
                pass
        except AdapterError:
            return

    def check_plain(self) -> None:
        """Raise AdapterError for a body that is encoded, which was not asked for."""
        encoding = self.header("content-encoding")
        if encoding is not None and encoding != "identity":
            raise AdapterError(
                FailureKind.PROTOCOL,
                "the provider's answer is encoded, which was not asked for",
                detail=f"content-encoding: {encoding}",
            )

    async def close(self) -> None:
        """End the exchange; an unread rest closes the connection."""
        self.abort()

    def abort(self) -> None:
        """As ``close``, for callers that cannot wait. Reads that follow find no more."""
        if not self.complete and self.failure is None:
            self.failure = AdapterError(FailureKind.UPSTREAM, "the exchange was closed")
            self._connection.drop(self)
            self.wake()

    async def begin(self, by: float) -> None:
        """Until the head is there, or, for a ``whole`` one, everything."""
        while not self.complete and (self.whole or not self.status):
            await self.wait(by)

    async def wait(self, by: float) -> None:
        """Until something has changed. Raises AdapterError, but after the last piece only."""
        if self.failure is None:
            connection = self._connection
            self.by = by
            self.waiter = connection.watch(self)
            try:
                await self.waiter
            except BaseException:
                self.waiter = None
                self.abort()
                raise
            self.waiter = None
        if self.failure is not None and (self.whole or not self.pieces):
            raise _anew(self.failure)

    def wake(self) -> None:
        """Let the reader, if one waits, see what has changed."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def whole_bytes_max(self) -> int:
        """How much of the body is worth reading."""
        return self._bytes_max if 200 <= self.status < 300 else self._refusal_bytes_max

    def all_of_it(self) -> bytes:
        """The body of an exchange that was waited for as a whole."""
        pieces = self.pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take(self) -> bytes | None:
        pieces = self.pieces
        if not pieces:
            return None
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.pieces = []
        self.waiting_bytes = 0
        self._read_bytes += len(piece)
        if self._read_bytes > self._bytes_max:
            self.abort()
            raise too_large(self._bytes_max)
        if not self.complete:
            self._connection.resume(self)
        return piece


def _anew(failure: AdapterError) -> AdapterError:
    """Each raise gets an exception of its own: a traceback would grow with every read."""
    return AdapterError(failure.kind, failure.message, detail=failure.detail)


def too_large(bytes_max: int) -> AdapterError:
    """The failure of an answer that has no end."""
    return AdapterError(
        FailureKind.PROTOCOL,
        "the provider's answer is too large",
        detail=f"more than {bytes_max} bytes",
    )
