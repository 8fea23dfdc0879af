"""From spans that ended to the collector: a bounded queue, and one task that empties it.

Nothing here waits on behalf of a call: to put a span is to append to a queue, and a full one loses
its oldest. What a collector does, or fails to do, costs spans at most; those are counted.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Protocol

from app.tracing.sending import Answer, Sender
from app.tracing.settings import Settings

log = logging.getLogger("turnpike.tracing")

BATCH_SPANS_MAX = 128
SEND_EVERY_S = 1.0
TRY_S_MAX = 60.0
"""How long a batch is tried again for."""
_FIRST_WAIT_S = 0.5
_WAIT_S_MAX = 15.0

SENT = "sent"
QUEUE_FULL = "queue_full"
REFUSED = "refused"
UNREACHABLE = "unreachable"
SHUTDOWN = "shutdown"
RESULTS = (SENT, QUEUE_FULL, REFUSED, UNREACHABLE, SHUTDOWN)


class Codec(Protocol):
    """Writes spans as the protocol has them, and reads what the collector answers."""

    def encode(self, spans: Sequence[Any]) -> bytes:
        """The body of a request."""
        ...

    def rejected(self, body: bytes) -> int:
        """How many spans a collector that took the request says that it did not take."""
        ...


class Delivery:
    """One for a process; everything in it happens in the event loop's thread."""

    def __init__(self, settings: Settings, codec: Codec) -> None:
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self._settings = settings
        self._codec = codec
        self._sender = Sender(settings)
        self._queue: deque[Any] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._ill = False
        self._lost_before = 0

    @property
    def waiting(self) -> int:
        """How many spans wait to be sent."""
        return len(self._queue)

    @property
    def lost(self) -> int:
        """How many spans were not delivered, for whatever reason."""
        return self.results.total() - self.results[SENT]

    def put(self, span: Any) -> None:
        """Queue a span that has ended; the oldest makes room where there is none."""
        if self._closing:
            self.results[SHUTDOWN] += 1
            return
        queue = self._queue
        queue.append(span)
        if len(queue) > self._settings.queue_spans_max:
            queue.popleft()
            self.results[QUEUE_FULL] += 1
        if len(queue) >= BATCH_SPANS_MAX:
            self._wake.set()

    def start(self) -> None:
        """Begin to send; from within the loop."""
        self._task = asyncio.create_task(self._run(), name="deliver spans")

    async def close(self) -> None:
        """Send what is left, within ``flush_s`` and only to a collector that took the last."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            if not self._ill:
                await asyncio.wait({self._task}, timeout=self._settings.flush_s)
            self._task.cancel()
            await asyncio.wait({self._task})
        self.results[SHUTDOWN] += len(self._queue)
        self._queue.clear()
        await self._sender.close()
        if self.lost > self._lost_before:
            log.warning("%d spans were not delivered to %s", self.lost, self._settings.shown)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SEND_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            while self._queue:
                count = min(BATCH_SPANS_MAX, len(self._queue))
                await self._deliver([self._queue.popleft() for _ in range(count)])
                if len(self._queue) < BATCH_SPANS_MAX and not self._closing:
                    break
            if self._closing:
                return

    async def _deliver(self, batch: list[Any]) -> None:
        """Send one batch, again and again where that may help; counts what became of it."""
        result = SHUTDOWN  # where this is cancelled
        try:
            body = await asyncio.to_thread(self._codec.encode, batch)
            answer = await self._try(body)
            result = UNREACHABLE if answer.again else REFUSED
            if not answer.fault:
                rejected = min(self._codec.rejected(answer.body), len(batch))
                self.results[REFUSED] += rejected
                batch, result = batch[rejected:], SENT
        except Exception:  # of ours: the next batch may do better
            log.exception("spans could not be written")
            result = REFUSED
        finally:
            self.results[result] += len(batch)

    async def _try(self, body: bytes) -> Answer:
        """The last answer: that it was taken, or why not."""
        loop = asyncio.get_running_loop()
        give_up_s, wait_s = loop.time() + TRY_S_MAX, _FIRST_WAIT_S
        while True:
            answer = await self._sender.post(body)
            if not answer.fault:
                self._works()
                return answer
            self._fails(answer.fault)
            pause_s = max(answer.wait_s, wait_s * random.uniform(0.5, 1))  # noqa: S311
            if not answer.again or self._closing or loop.time() + pause_s > give_up_s:
                return answer
            await asyncio.sleep(pause_s)
            wait_s = min(2 * wait_s, _WAIT_S_MAX)

    def _fails(self, fault: str) -> None:
        """Say so once, until it works again."""
        if self._ill:
            return
        self._ill, self._lost_before = True, self.lost
        log.warning(
            "spans cannot be delivered to %s: %s. Calls go on; up to %d spans are kept, then the"
            " oldest are lost. `turnpike doctor` looks at it",
            *(self._settings.shown, fault, self._settings.queue_spans_max),
        )

    def _works(self) -> None:
        if not self._ill:
            return
        lost, self._ill = self.lost - self._lost_before, False
        self._lost_before = self.lost
        log.info("spans are delivered to %s again; %d were lost", self._settings.shown, lost)
