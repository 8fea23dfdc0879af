"""What engines for vectors and scores have in common: whose texts are computed next, who pays for a
batch, and what an answer is made of. ``contract.py`` has the rules.

Texts of all requests share batches; what a batch took is shared out over the requests in it by
tokens, as in the chat engine. How a batch is computed is the engine's own: ``_compute``.

Vectors have length 1, as OpenAI's. Scores lie between 0 and 1, as Cohere's, Jina's and vLLM's do:
what a head with one output says goes through the logistic function (llama.cpp's own server gives it
raw; the order is the same).
"""

import math
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import (
    Admitted,
    Encoded,
    EngineEvent,
    EngineRequest,
    Failed,
    Finished,
    Occupancy,
    RequestRefused,
    Worked,
)
from local_runtime.engines.cost import share
from local_runtime.engines.text_batch import Row, Text, Turns, Work, fill
from local_runtime.engines.text_intake import Draft, Intake
from local_runtime.engines.threads import ThreadTuner
from plugins.contract import FailureKind, Usage

BATCH_TEXTS = 64
_PREPARED_BYTES = 256 * 1024  # tokenised between two batches
_DRAFT_BYTES = 64 * 1024
_DELIVERED_BYTES = 16 * 1024 * 1024  # answers in one step, beside the first
_SILENCE_NS_MAX = 5_000_000_000
_TUNED_TOKENS_MIN = 64
_NOTHING = Usage()


class TextEncoder:
    """One embedding or reranking model, and everybody's texts in shared batches."""

    busy_ns = 0
    unbilled_ns = 0

    def _open(
        self,
        intake: Intake,
        threads: Sequence[int],
        *,
        batch_tokens: int,
        whole: bool,
        gives_probability: bool = False,
    ) -> None:
        """Ready to take requests in. ``threads`` are the counts to choose from; ``whole``: each
        text must be seen in one batch; ``gives_probability``: scores lie between 0 and 1 already.
        """
        self._intake = intake
        self._tuner = ThreadTuner(threads)
        self._batch_tokens = batch_tokens
        self._whole = whole
        self._gives_probability = gives_probability
        self._turns = Turns()
        self._drafts: deque[Draft] = deque()
        self._works: list[Work] = []
        self._done: deque[Work] = deque()
        self._outbox: list[EngineEvent] = []
        self._costs: deque[int] = deque(maxlen=9)  # nanoseconds per token of the last batches

    def _compute(self, rows: list[Row]) -> None:
        """Run the batch, and keep the answer of each text that is at its end by ``_found``."""
        raise NotImplementedError

    def _leave(self, text: Text) -> None:
        """The text needs nothing of the engine any more."""

    def _found(self, text: Text, pooled: NDArray[np.float32]) -> None:
        """What the model gave for a text: kept as a score, or as the bytes of a vector of length 1.
        NaN and b"": it gave none.
        """
        work = text.work
        work.found[text.index] = self._score(pooled) if work.is_rank else _unit(pooled[: work.size])
        self._leave(text)

    def _score(self, pooled: NDArray[np.float32]) -> float:
        score = float(pooled[0])
        return score if self._gives_probability else _logistic(score)

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(sequences_running=len(self._works))

    @property
    def has_work(self) -> bool:
        return bool(self._drafts or self._works or self._done or self._outbox)

    def submit(self, request: EngineRequest) -> None:
        try:
            self._drafts.append(self._intake.take(request))
        except RequestRefused as refused:
            self._refuse(request.request_id, refused)

    def _refuse(self, request_id: str, refused: RequestRefused) -> None:
        failed = Failed(request_id, _NOTHING, refused.kind, refused.message, param=refused.param)
        self._outbox.append(failed)

    def cancel(self, request_id: str) -> None:
        for draft in list(self._drafts):
            if draft.work.request_id == request_id:
                self._drafts.remove(draft)
                self._outbox.append(Finished(request_id, _NOTHING))
        for work in [*self._works, *self._done]:
            if work.request_id == request_id:
                self._end(work, Finished(request_id, self._usage_of(work)))

    def step(self) -> list[EngineEvent]:
        self._prepare()
        begun_ns = time.monotonic_ns()  # tokenising is nobody's
        self._stop_the_unpaid()
        rows = fill(
            self._works,
            self._turns,
            tokens_max=self._batch_tokens,
            places_max=BATCH_TEXTS,
            whole=self._whole,
        )
        events: list[EngineEvent] = []
        if rows:
            for row in rows:
                work = row.text.work
                if not work.announced:
                    work.announced = True
                    events.append(Admitted(work.request_id, self._usage_of(work)))
            self._compute(rows)
            self._charge(rows, time.monotonic_ns() - begun_ns)
            self._retire(rows)
        events += self._signs_of_life({row.text.work for row in rows})
        self._deliver()
        events += self._outbox
        self._outbox = []
        return events

    def _prepare(self) -> None:
        """Tokenise for those that wait, in turn; what is ready and paid for joins the batches."""
        seen = 0
        while self._drafts and seen < _PREPARED_BYTES:
            draft = self._drafts.popleft()
            try:
                seen += self._intake.advance(draft, _DRAFT_BYTES)
                if not draft.ready:
                    self._drafts.append(draft)
                    continue
                self._check_paid(draft.work)
            except RequestRefused as refused:
                self._refuse(draft.work.request_id, refused)
                continue
            self._works.append(draft.work)
            self._works.sort(key=lambda work: work.number)

    def _check_paid(self, work: Work) -> None:
        """Raises RequestRefused where the whole will surely cost more than is set aside for it."""
        likely_ns = sorted(self._costs)[len(self._costs) // 2] * work.tokens
        if work.compute_ns_max is not None and likely_ns > work.compute_ns_max:
            raise _unpaid(work, likely_ns)

    def _stop_the_unpaid(self) -> None:
        """The cost turned out higher than it looked, and part of an answer is of no use."""
        for work in list(self._works):
            left_ns = work.compute_left_ns()
            if left_ns is not None and left_ns <= 0:
                spent = sum(text.left for text in work.waiting)
                likely_ns = work.compute_ns * work.tokens // max(1, work.tokens - spent)
                refused = _unpaid(work, likely_ns)
                failed = Failed(
                    work.request_id,
                    self._usage_of(work),
                    refused.kind,
                    refused.message,
                    param=refused.param,
                )
                self._end(work, failed)

    def _threads(self, tokens: int) -> int:
        """How many compute a batch of so many tokens. Of small ones nothing is learned."""
        if tokens < _TUNED_TOKENS_MIN:
            return self._tuner.settled
        return self._tuner.choose("texts", time.monotonic_ns())

    def _charge(self, rows: list[Row], wall_ns: int) -> None:
        """Share the batch's time out over the requests in it, by tokens computed."""
        tokens: dict[Work, int] = {}
        for row in rows:
            tokens[row.text.work] = tokens.get(row.text.work, 0) + row.tokens
        self.busy_ns += wall_ns
        for work, share_ns in zip(tokens, share(wall_ns, list(tokens.values())), strict=True):
            left_ns = work.compute_left_ns()
            billed_ns = share_ns if left_ns is None else min(share_ns, left_ns)
            work.compute_ns += billed_ns
            self.unbilled_ns += share_ns - billed_ns
            work.read += tokens[work]
        computed = sum(tokens.values())
        self._costs.append(max(1, wall_ns // computed))
        if computed >= _TUNED_TOKENS_MIN:
            self._tuner.observe("texts", wall_ns / computed, wall_ns, time.monotonic_ns())

    def _retire(self, rows: list[Row]) -> None:
        """What has all its answers waits for delivery only."""
        for work in dict.fromkeys(row.text.work for row in rows):
            if work.done:
                self._works.remove(work)
                self._done.append(work)

    def _signs_of_life(self, heard: set[Work]) -> list[EngineEvent]:
        """For those that were in the batch, and those that have waited long for their next turn."""
        now_ns = time.monotonic_ns()
        events: list[EngineEvent] = []
        for work in self._works:
            if work in heard or (work.announced and now_ns - work.heard_ns > _SILENCE_NS_MAX):
                work.heard_ns = now_ns
                events.append(Worked(work.request_id, self._usage_of(work)))
        return events

    def _deliver(self) -> None:
        """Hand answers out, not more at once than fits a frame."""
        sent = 0
        while self._done and sent < _DELIVERED_BYTES:
            work = self._done[0]
            usage = self._usage_of(work)
            answers = [work.found[index] for index in range(work.texts)]
            if any(answer == b"" or answer != answer for answer in answers):  # noqa: PLR0124  # NaN
                message = "The model gave numbers that are none."
                self._end(work, Failed(work.request_id, usage, FailureKind.UPSTREAM, message))
                continue
            vectors = [answer for answer in answers if isinstance(answer, bytes)]
            scores = [answer for answer in answers if isinstance(answer, float)]
            sent += sum(map(len, vectors)) + 8 * len(scores)
            self._outbox.append(Encoded(work.request_id, usage, vectors, scores))
            self._end(work, Finished(work.request_id, usage))

    def _end(self, work: Work, last: EngineEvent) -> None:
        """Free all that a request holds; ``last`` goes out with this or the next step."""
        if work in self._done:
            self._done.remove(work)
        else:
            self._works.remove(work)
        for text in work.waiting:
            self._leave(text)
        work.waiting.clear()
        self._outbox.append(last)

    def _usage_of(self, work: Work) -> Usage:
        return Usage(input_tokens=work.read, compute_ns=work.compute_ns)


def _unpaid(work: Work, likely_ns: int) -> RequestRefused:
    """Part of an answer is worth nothing, so nothing is the answer. It says nothing against the
    model's health, and other offers get no chance to be paid too little either: a bad request.
    """
    assert work.compute_ns_max is not None
    name = "documents" if work.is_rank else "input"
    return RequestRefused(
        f"{name} is {work.tokens} tokens long, which takes about {likely_ns / 1e9:.1f} s of compute"
        f" here, and the credit that could be set aside for this call pays for"
        f" {work.compute_ns_max / 1e9:.1f} s. Send fewer texts in one request.",
        param=name,
    )


def _unit(pooled: NDArray[np.float32]) -> bytes:
    length = float(np.linalg.norm(pooled))
    if not (math.isfinite(length) and length > 0):
        return b""
    return (pooled / np.float32(length)).astype("<f4").tobytes()


def _logistic(value: float) -> float:
    """Between 0 and 1, without overflow; NaN stays NaN."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1 + grown)
