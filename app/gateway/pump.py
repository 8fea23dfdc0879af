"""Between a call's own task and its reader: the task puts, the reader takes and may leave.

The reader is the HTTP response. It never owns money and may vanish at any moment; the call's task
goes on, settles, and finds out that nobody listens. The buffer is bounded, so a slow reader slows
the provider down; one that takes nothing for ``READER_STALLED_S`` has left.
"""

import asyncio
from collections.abc import Callable, Sequence

from app.errors import CallError
from app.gateway.assemble import Assembler
from app.gateway.call import Answer, Call, CallState
from plugins.chat import Choice, ChoiceDelta
from plugins.tasks import Output

BUFFER_BYTES_MAX = 256 * 1024
READER_STALLED_S = 60.0

Deliver = Callable[[Sequence[ChoiceDelta]], bool]
_DELTA_OVERHEAD_BYTES = 64


class Pump:
    """One call's delivery. ``put*`` and ``end`` are the task's side, the rest the reader's."""

    __slots__ = (
        "_assembler",
        "_buffer",
        "_buffered_bytes",
        "_choices",
        "_deliver",
        "_delivered_s",
        "_ended",
        "_failure",
        "_output",
        "_ready",
        "_room",
        "_taker",
        "call",
        "now_ns",
        "stop",
    )

    def __init__(self, call: Call, now_ns: Callable[[], int]) -> None:
        self.call = call
        self.now_ns = now_ns
        self.stop: asyncio.Event | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._assembler: Assembler | None = None
        self._choices: Sequence[Choice] = ()
        self._output: Output | None = None
        self._buffer: list[ChoiceDelta] = []
        self._buffered_bytes = 0
        self._taker: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._deliver: Deliver | None = None
        self._delivered_s = 0.0
        self._failure: CallError | None = None
        self._ended = False

    # The task's side.

    def begin_attempt(self) -> None:
        """Forget what an earlier attempt produced; only legal while nothing was delivered."""
        self._assembler = None
        self._choices = ()
        self._output = None

    @property
    def committed(self) -> bool:
        """Whether bytes may have reached the client, so that no other offer can take over."""
        return self.call.state is CallState.STREAMING

    @property
    def abandoned(self) -> bool:
        """Whether the reader has left."""
        return self.call.client_left

    def put_completion(self, choices: Sequence[Choice]) -> None:
        """Keep the whole answer until the call is settled."""
        self._choices = choices
        self.call.truncated = any(choice.finish_reason == "length" for choice in choices)

    def put_output(self, output: Output) -> None:
        """Keep what another task than chat made until the call is settled."""
        self._output = output

    def whole(self) -> Answer:
        """The answer as far as it has come; of a stream only where its request is repeatable."""
        if self._output is not None:
            return self._output
        return self._chat()

    def _chat(self) -> Sequence[Choice]:
        return self._choices if self._assembler is None else self._assembler.choices()

    async def put(self, deltas: Sequence[ChoiceDelta], *, alone: bool = False) -> None:
        """Hand on a piece of the answer; waits while the buffer is full.

        One that is ``alone`` goes straight to the client where the reader has nothing to do but
        wait: to wake it for each token costs more than the token's own frame.
        """
        call = self.call
        if not call.streamed or call.repeatable is not None:
            self._assembler = self._assembler or Assembler()
            for delta in deltas:
                self._assembler.add(delta)
        if not call.streamed:
            call.truncated |= any(delta.finish_reason == "length" for delta in deltas)
            return
        if not self.committed:
            call.move(CallState.STREAMING)
            _resolve(self._ready)
        size, pieces, cut = _measure(deltas)
        call.truncated |= cut
        call.delivered_pieces += pieces
        if call.client_left or (alone and self._delivered(deltas)):
            return
        self._buffer.extend(deltas)
        self._buffered_bytes += size + _DELTA_OVERHEAD_BYTES * len(deltas)
        _resolve(self._taker)
        if self._buffered_bytes > BUFFER_BYTES_MAX:
            await self._wait_for_room()

    def _delivered(self, deltas: Sequence[ChoiceDelta]) -> bool:
        """Send them now, if the reader waits in ``take``, so that nothing is before them."""
        taker = self._taker
        if self._deliver is None or taker is None or taker.done() or not self._deliver(deltas):
            return False
        self._delivered_s = taker.get_loop().time()
        return True

    def end(self, failure: CallError | None) -> None:
        """The call is settled or voided; nothing follows."""
        self._failure = failure
        self._ended = True
        if not self.call.streamed:
            self._choices = self._chat()
        _resolve(self._ready)
        _resolve(self._taker)

    # The reader's side.

    async def ready(self) -> None:
        """Return once there is something to send; raise the CallError of a call that failed."""
        await self._ready
        if self._failure is not None and not self._buffer:
            raise self._failure

    @property
    def output(self) -> Output | None:
        """What a task other than chat made, after ``ready``."""
        return self._output

    @property
    def choices(self) -> Sequence[Choice]:
        """The whole answer of a call that was not streamed, after ``ready``."""
        return self._choices

    @property
    def has_deltas(self) -> bool:
        """Whether ``take`` would give some at once."""
        return bool(self._buffer)

    def deliver_by(self, deliver: Deliver) -> None:
        """How to send a piece without the reader; it says whether it could."""
        self._deliver = deliver

    async def take(self, timeout_s: float) -> list[ChoiceDelta] | None:
        """Everything buffered, in order. An empty list: nothing came in time. None: the end.

        Raises the CallError of a call that failed midway, after what came before it was taken.
        """
        wait_s = timeout_s
        while not (self._buffer or self._ended or self.call.client_left) and wait_s > 0:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            taker = self._taker = loop.create_future()
            alarm = loop.call_later(wait_s, _resolve, taker)
            try:
                await taker
            finally:
                alarm.cancel()
                self._taker = None
            # What went straight to the client was a sign of life too.
            wait_s = max(began_s + wait_s, self._delivered_s + timeout_s) - loop.time()
        taken, self._buffer, self._buffered_bytes = self._buffer, [], 0
        _resolve(self._room)
        if taken or not self._ended:
            return taken
        if self._failure is not None:
            raise self._failure
        return None

    def leave(self) -> None:
        """The reader is gone: throw away what comes, end the work where that saves money."""
        if self._ended:
            return
        self.call.client_left = True
        self._buffer.clear()
        _resolve(self._room)
        if self.stop is not None:
            self.stop.set()
        _resolve(self._taker)

    async def _wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait_for(self._room, READER_STALLED_S)
        except TimeoutError:
            self.leave()
        finally:
            self._room = None


def _resolve(future: "asyncio.Future[None] | None") -> None:
    """Wake whoever waits for it, if anybody does."""
    if future is not None and not future.done():
        future.set_result(None)


def _measure(deltas: Sequence[ChoiceDelta]) -> tuple[int, int, bool]:
    """Characters of text (near enough for a bound), how many deltas carry anything, and whether
    one says that a limit cut the answer off."""
    size = pieces = 0
    cut = False
    for item in deltas:
        delta = item.delta
        if item.finish_reason == "length":
            cut = True
        text = delta.content or delta.reasoning_content or delta.reasoning
        if text:
            size += len(text)
            pieces += 1
        elif delta.tool_calls:
            pieces += 1
    return size, pieces, cut
