"""Asks after work until it has ended: soon at first, then less often, and not put off by little.

The work is paid for by then, so a provider that is busy, breaks the line or talks nonsense for a
moment is asked again. A rate limit says nothing about the work and is waited out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from plugins.contract import AdapterError, FailureKind, Usage
from plugins.http.client import HttpRequest
from plugins.queued.work import Answer, Further, Pending, Progress, Reply, Ticket

# One question takes no longer; a stalled one is asked again.
ASK_S_MAX = 15.0
# In a row; with the pauses between them that is about ten seconds of a provider's trouble.
FAULTS_MAX = 4
# A provider's trouble passes; nonsense rather does not.
_WEIGHTS = {
    FailureKind.CONNECT: 1,
    FailureKind.TIMEOUT: 1,
    FailureKind.OVERLOADED: 1,
    FailureKind.UPSTREAM: 1,
    FailureKind.PROTOCOL: 2,
}

Ask = Callable[[HttpRequest, float], Awaitable[Reply]]
"""Send a request, until a time of the loop."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds before the first question, and the most between two."""

    first_s: float
    longest_s: float
    growth: float = 1.5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``by`` is when the attempt ends, in the loop's time. ``compute_s`` is how long hardware may
    be at work on it, None where that costs nothing."""

    by: float
    compute_s: float | None = None


class Polling:
    """One piece of work, asked after until it has ended."""

    def __init__(
        self,
        ticket: Ticket,
        ask: Ask,
        refusal: Callable[[Reply], AdapterError],
        pace: Pace,
        limits: Limits,
    ) -> None:
        self._ticket = ticket
        self._ask = ask
        self._refusal = refusal
        self._pace = pace
        self._limits = limits
        self._by = limits.by
        self._further: Further | None = None
        self._running_since: float | None = None

    async def outcome(self) -> Answer | AdapterError:
        """The answer, or how the work ended without one.

        Raises AdapterError where that could not be learned: the work may go on.
        """
        time = asyncio.get_running_loop().time
        pause, faults, put_off = self._pace.first_s, 0, False
        found = self._took(self._ticket.progress)
        while found is None:
            if put_off or self._further is None:
                await asyncio.sleep(min(pause, max(0.0, self._by - time())))
                pause = min(pause * self._pace.growth, self._pace.longest_s)
            # Work that ends just in time is still asked after.
            is_last = time() >= self._by
            if time() >= self._limits.by:
                raise self._too_long()
            try:
                found = self._took(await self._progress())
                faults, put_off = 0, False
            except AdapterError as error:
                put_off = True
                if time() >= self._limits.by:
                    raise self._too_long() from error
                if error.kind is FailureKind.RATE_LIMITED:
                    pause = max(pause, error.retry_after_s or 0.0)
                else:
                    faults += _WEIGHTS.get(error.kind, FAULTS_MAX + 1)
                    if faults > FAULTS_MAX:
                        raise
            if is_last and found is None and self._further is None:
                raise self._too_long()
        return found

    def compute_ns(self) -> int:
        """How long hardware seems to have been at work, as far as was seen from here."""
        if self._running_since is None:
            return 0
        return round((asyncio.get_running_loop().time() - self._running_since) * 1e9)

    async def _progress(self) -> Progress:
        now = asyncio.get_running_loop().time()
        request = self._ticket.ask if self._further is None else self._further.request
        reply = await self._ask(request, min(self._limits.by, now + ASK_S_MAX))
        if reply.is_good:
            return self._ticket.read(reply) if self._further is None else self._further.read(reply)
        refused = self._refusal(reply)
        if self._further is not None and self._further.is_outcome(reply):
            return refused
        if refused.kind in _WEIGHTS or refused.kind is FailureKind.RATE_LIMITED:
            raise refused
        return _lost(refused)

    def _took(self, progress: Progress) -> Answer | AdapterError | None:
        """Note what a reply says; None while the work goes on."""
        if isinstance(progress, Pending):
            if progress.running and self._running_since is None:
                self._running_since = asyncio.get_running_loop().time()
                if self._limits.compute_s is not None:
                    self._by = min(self._by, self._running_since + self._limits.compute_s)
            return None
        if isinstance(progress, Further):
            self._further = progress
            self._by = self._limits.by
            return None
        return progress

    def _too_long(self) -> AdapterError:
        detail = "more computing than is paid for" if self._by < self._limits.by else "the deadline"
        usage = None
        if self._limits.compute_s is not None and self._running_since is not None:
            usage = Usage(compute_ns=self.compute_ns(), estimated=True)
        return AdapterError(
            FailureKind.TIMEOUT, "the provider took too long", detail=detail, usage=usage
        )


def _lost(refused: AdapterError) -> AdapterError:
    """A refusal to say how the work stands: neither the caller's fault nor the model's."""
    if refused.kind is FailureKind.AUTH:
        return refused
    return AdapterError(
        FailureKind.UPSTREAM,
        "the provider does not know the work any more",
        detail=f"{refused.message} {refused.detail}",
        status=refused.status,
    )
