"""The llama.cpp engine for vectors and scores. ``contract.py`` has its rules.

A GGUF file says itself how its model pools what it read: into the mean, the first or the last
token's vector, or through a head into a score. Texts of all requests share batches; what a batch
took is shared out over the requests in it by tokens, as in the chat engine.

Vectors have length 1, as OpenAI's. Scores lie between 0 and 1, as Cohere's, Jina's and vLLM's do:
what a head with one output says goes through the logistic function (llama.cpp's own server gives it
raw; the order is the same).
"""

import math
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from local_runtime.engines.contract import (
    Admitted,
    Encoded,
    EngineEvent,
    EngineInfo,
    EngineLoadError,
    EngineRequest,
    EngineSpec,
    Failed,
    Finished,
    Occupancy,
    RequestRefused,
    Worked,
)
from local_runtime.engines.cost import share
from local_runtime.engines.llama import devices
from local_runtime.engines.llama.encoder_batch import Row, Text, Turns, Work, fill
from local_runtime.engines.llama.encoder_context import EncoderContext, Span
from local_runtime.engines.llama.encoder_intake import Draft, Intake
from local_runtime.engines.llama.encoder_load import Encoder, load_encoder
from local_runtime.engines.llama.encoder_size import BATCH_TOKENS
from local_runtime.engines.llama.threads import ThreadTuner
from plugins.contract import FailureKind, Usage

BATCH_TEXTS = 64
_PREPARED_BYTES = 256 * 1024  # tokenised between two batches
_DRAFT_BYTES = 64 * 1024
_DELIVERED_BYTES = 16 * 1024 * 1024  # answers in one step, beside the first
_SILENCE_NS_MAX = 5_000_000_000
_TUNED_TOKENS_MIN = 64
_NOTHING = Usage()


class EncoderBroken(Exception):
    """llama.cpp failed in a way that leaves its state unknown."""


class LlamaEncoder:
    """One embedding or reranking model, and everybody's texts in shared batches."""

    busy_ns = 0
    unbilled_ns = 0

    def load(self, spec: EngineSpec, progress: Callable[[float], None]) -> EngineInfo:
        """Check the header, load the weights, make the context, and measure what a batch costs."""
        started_ns = time.monotonic_ns()
        taken_before = devices.memory_now()
        self._encoder: Encoder = load_encoder(
            spec, lambda fraction: progress(0.9 * fraction), BATCH_TOKENS, BATCH_TEXTS
        )
        self._context: EncoderContext = self._encoder.context
        self._intake: Intake = self._encoder.intake
        self._tuner = ThreadTuner(self._encoder.threads)
        self._turns = Turns()
        self._drafts: deque[Draft] = deque()
        self._works: list[Work] = []
        self._done: deque[Work] = deque()
        self._places = list(range(BATCH_TEXTS))
        self._outbox: list[EngineEvent] = []
        self._costs: deque[int] = deque(maxlen=9)  # nanoseconds per token of the last batches
        self._calibrate()
        progress(1.0)
        is_rank = self._encoder.is_rank
        return EngineInfo(
            context_length=self._encoder.context_length,
            sequences_max=BATCH_TEXTS,
            threads=self._tuner.settled,
            load_ms=(time.monotonic_ns() - started_ns) // 1_000_000,
            memory_bytes=self._memory_bytes(devices.memory_now() - taken_before),
            output_size=0 if is_rank else self._context.size,
        )

    def _memory_bytes(self, taken: int) -> int:
        """What it took, or what it will take once it has read its longest text, if that is more:
        llama.cpp makes most of it only then.
        """
        return max(taken, self._encoder.bytes_expected) if taken else 0

    def _calibrate(self) -> None:
        """Two small batches: the first warms up, the second is the first guess of the cost."""
        tokens = [min(100, self._encoder.model.vocab_size - 1)] * 16
        for _ in range(2):
            begun_ns = time.monotonic_ns()
            if self._context.compute([Span(tokens, place, 0) for place in range(2)]) != 0:
                raise EngineLoadError("the model was loaded, but its first computation failed")
            self._context.pooled(0)  # waits for what a device may still be doing
            cost_ns = (time.monotonic_ns() - begun_ns) // 32
            for place in range(2):
                self._context.forget(place)
        self._costs.append(max(1, cost_ns))

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
            tokens_max=BATCH_TOKENS,
            places_max=BATCH_TEXTS,
            whole=not self._encoder.in_parts,
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

    def _compute(self, rows: list[Row]) -> None:
        """Run the batch, and take down the pooled output of each text that is at its end."""
        spans = []
        for row in rows:
            text = row.text
            if text.place is None:
                text.place = self._places.pop()
            tokens = text.tokens[text.computed : text.computed + row.tokens]
            spans.append(Span(tokens, text.place, text.computed))
        self._context.use_threads(self._threads(sum(row.tokens for row in rows)))
        result = self._context.compute(spans)
        if result != 0:
            tokens_all = sum(row.tokens for row in rows)
            raise EncoderBroken(f"llama.cpp returned {result} for {tokens_all} tokens")
        for row in rows:
            text = row.text
            text.computed += row.tokens
            if not text.left:
                assert text.place is not None
                text.work.found[text.index] = self._answer(text.work, text.place)
                self._leave(text)

    def _threads(self, tokens: int) -> int:
        """How many compute a batch of so many tokens. Of small ones nothing is learned."""
        if tokens < _TUNED_TOKENS_MIN:
            return self._tuner.settled
        return self._tuner.choose("texts", time.monotonic_ns())

    def _answer(self, work: Work, place: int) -> bytes | float:
        """A score, or the bytes of a vector of length 1. NaN and b"": the model gave none."""
        pooled = self._context.pooled(place)
        if work.is_rank:
            score = float(pooled[0])
            return score if self._encoder.gives_probability else _logistic(score)
        pooled = pooled[: work.size]
        length = float(np.linalg.norm(pooled))
        if not (math.isfinite(length) and length > 0):
            return b""
        return (pooled / np.float32(length)).astype("<f4").tobytes()

    def _leave(self, text: Text) -> None:
        if text.place is not None:
            self._context.forget(text.place)
            self._places.append(text.place)
            text.place = None

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

    def unload(self) -> None:
        self._context.close()
        self._encoder.model.close()


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


def _logistic(value: float) -> float:
    """Between 0 and 1, without overflow; NaN stays NaN."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1 + grown)
