"""The llama.cpp engine: continuous batching over one context. ``contract.py`` has its rules.

The loop only carries out what others decide: ``scheduler`` who computes what, ``sampling`` which
token, ``voice`` what text, ``cost`` who pays.
"""

import time
from collections.abc import Callable
from pathlib import Path

from local_runtime.engines.contract import (
    Admitted,
    EngineEvent,
    EngineInfo,
    EngineLoadError,
    EngineRequest,
    EngineSpec,
    Failed,
    Finished,
    Piece,
    RequestRefused,
    TokenLogprob,
    Worked,
)
from local_runtime.engines.cost import Forecast, share
from local_runtime.engines.llama import native, scheduler, sizing
from local_runtime.engines.llama.chat_template import ChatTemplate
from local_runtime.engines.llama.intake import Intake
from local_runtime.engines.llama.slots import Sequence, Slots, Work
from local_runtime.engines.llama.threads import ThreadTuner
from local_runtime.engines.llama.voice import Voice
from local_runtime.store.gguf import GgufError, read_header
from plugins.contract import FailureKind, Usage

BATCH_TOKENS = 512
_CALIBRATION_TOKENS = 32
_NOTHING = Usage()


class EngineBroken(Exception):
    """llama.cpp failed in a way that leaves its state unknown."""


class LlamaEngine:
    """One model, one context, up to ``sequences_max`` sequences in each batch."""

    busy_ns = 0
    unbilled_ns = 0

    def load(self, spec: EngineSpec, progress: Callable[[float], None]) -> EngineInfo:
        """Check the header, load the weights, make the context, and measure what steps cost."""
        started_ns = time.monotonic_ns()
        try:
            header = read_header(Path(spec.path))
        except (GgufError, OSError) as error:
            raise EngineLoadError(str(error)) from error
        if header.chat_template is None:
            raise EngineLoadError("the model has no chat template, so it cannot hold conversations")
        size = sizing.size_of(header, spec)
        native.start_backend()
        self._model = native.Model(spec.path, lambda fraction: progress(0.9 * fraction))
        template = ChatTemplate(
            header.chat_template, bos_token=self._model.bos_text, eos_token=self._model.eos_text
        )
        self._context = native.Context(
            self._model,
            cells=size.cells,
            batch_tokens=BATCH_TOKENS,
            sequences_max=spec.sequences_max,
            threads=size.threads[-1],
        )
        self._tuner = ThreadTuner(size.threads)
        self._limits = scheduler.Limits(cells=self._context.cells, batch_tokens=BATCH_TOKENS)
        self._intake = Intake(
            self._model,
            template,
            context_length=size.context_length,
            cells=self._context.cells,
            sequences_max=spec.sequences_max,
        )
        self._slots = Slots(spec.sequences_max)
        self._waiting: list[Work] = []
        self._running: list[Work] = []
        self._voices: dict[Sequence, Voice] = {}
        self._outbox: list[EngineEvent] = []
        self._forecast = self._calibrate()
        progress(1.0)
        return EngineInfo(
            context_length=size.context_length,
            sequences_max=spec.sequences_max,
            threads=self._tuner.settled,
            load_ms=(time.monotonic_ns() - started_ns) // 1_000_000,
        )

    def _calibrate(self) -> Forecast:
        """A prompt and one more token: warms the caches up, and gives the first forecast."""
        token = min(self._model.vocab_size - 1, 100)
        walls_ns = []
        for count, position in ((1, 0), (_CALIBRATION_TOKENS, 1), (1, _CALIBRATION_TOKENS + 1)):
            self._context.add([token] * count, position, 0, output=True)
            begun_ns = time.monotonic_ns()
            if self._context.decode() != 0:
                raise EngineLoadError("the model was loaded, but its first computation failed")
            walls_ns.append(time.monotonic_ns() - begun_ns)
        self._context.forget(0)
        return Forecast(walls_ns[1] // _CALIBRATION_TOKENS, walls_ns[2])

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting or self._outbox)

    def submit(self, asked: EngineRequest) -> None:
        try:
            work, voices = self._intake.take(asked)
        except RequestRefused as refused:
            self._outbox.append(
                Failed(
                    asked.request_id, _NOTHING, refused.kind, refused.message, param=refused.param
                )
            )
            return
        self._voices.update(zip(work.sequences, voices, strict=True))
        self._waiting.append(work)

    def cancel(self, request_id: str) -> None:
        for work in [*self._waiting, *self._running]:
            if work.request_id == request_id:
                self._end(work, Finished(request_id, usage_of(work)))

    def step(self) -> list[EngineEvent]:
        begun_ns = time.monotonic_ns()
        events, self._outbox = self._outbox, []
        plan = scheduler.plan(
            self._waiting, self._running, self._slots.free, self._limits, self._forecast
        )
        for work in plan.evicted:
            self._evict(work)
        for work in plan.admitted:
            self._seat(work)
            if not work.announced:
                work.announced = True
                events.append(Admitted(work.request_id, usage_of(work)))
        pieces: list[tuple[Work, Sequence, str, list[TokenLogprob] | None, str | None]] = []
        for work in plan.exhausted:
            for sequence in work.live:
                pieces.append((work, sequence, *self._voices[sequence].finish(), "length"))
                sequence.ended = True
        broken: list[Work] = []
        if plan.rows:
            for row, at in self._compute(plan):
                for sequence in self._sampling_now(row):
                    piece = self._sample(row.work, sequence, at)
                    if piece is None:
                        broken.append(row.work)
                    else:
                        pieces.append((row.work, sequence, *piece))
            self._charge(plan, time.monotonic_ns() - begun_ns)
        events += self._tell(plan, pieces, broken)
        events += self._outbox
        self._outbox = []
        return events

    def _compute(self, plan: scheduler.Plan) -> list[tuple[scheduler.Row, int]]:
        """Run the batch; the rows that were computed, with the batch index of their last token."""
        indexed = []
        for row in plan.rows:
            sequence = row.sequence
            assert sequence.slot is not None
            tokens = sequence.tokens[sequence.computed : sequence.computed + row.tokens]
            at = self._context.add(tokens, sequence.computed, sequence.slot, output=row.samples)
            indexed.append((row, at))
        self._context.use_threads(self._tuner.threads)
        result = self._context.decode()
        if result != 0:
            raise EngineBroken(f"llama_decode returned {result} for {plan.tokens} tokens")
        for row, _ in indexed:
            row.sequence.computed += row.tokens
        return indexed

    def _sampling_now(self, row: scheduler.Row) -> list[Sequence]:
        """The sequences that continue from this row: its own, and those that start where it is."""
        work, leader = row.work, row.sequence
        followers = []
        if leader is work.live[0] and leader.computed >= work.prompt_tokens:
            followers = [other for other in work.live[1:] if not other.computed]
        for other in followers:
            assert leader.slot is not None and other.slot is not None
            self._context.share(leader.slot, other.slot, work.prompt_tokens)
            other.computed = work.prompt_tokens
        ready = [leader, *followers] if row.samples else []
        return [sequence for sequence in ready if not sequence.pending]

    def _sample(
        self, work: Work, sequence: Sequence, at: int
    ) -> tuple[str, list[TokenLogprob] | None, str | None] | None:
        """Choose a token: its text, its logprobs and why the answer ends. None: it cannot go on."""
        voice = self._voices[sequence]
        token = voice.choose(self._context, at)
        if token is None:
            return None
        work.output_tokens += 1
        sequence.tokens.append(token)
        if token in self._model.end_tokens:
            sequence.ended = True
            return (*voice.finish(), "stop")
        text, logprobs = voice.say(token)
        if voice.stopped:
            sequence.ended = True
            return text, logprobs, "stop"
        if len(sequence.tokens) < sequence.tokens_max:
            return text, logprobs, None
        sequence.ended = True
        rest, more = voice.finish()
        return text + rest, [*(logprobs or []), *(more or [])] or None, "length"

    def _charge(self, plan: scheduler.Plan, wall_ns: int) -> None:
        """Share the step's time out over the work in it, by tokens computed."""
        tokens: dict[Work, int] = {}
        for row in plan.rows:
            tokens[row.work] = tokens.get(row.work, 0) + row.tokens
        self.busy_ns += wall_ns
        for work, share_ns in zip(tokens, share(wall_ns, list(tokens.values())), strict=True):
            left_ns = work.compute_left_ns()
            billed_ns = share_ns if left_ns is None else min(share_ns, left_ns)
            work.compute_ns += billed_ns
            self.unbilled_ns += share_ns - billed_ns
            work.prompt_read = max(
                work.prompt_read, *(min(s.computed, work.prompt_tokens) for s in work.sequences)
            )
        generated = sum(row.tokens for row in plan.rows if row.tokens == 1 and row.samples)
        read = plan.tokens - generated
        self._forecast.observe(wall_ns, read, generated)
        if not read:
            self._tuner.observe(generated, wall_ns, time.monotonic_ns())
        elif not generated and read >= scheduler.CHUNK_TOKENS_MIN:
            self._tuner.observe("prompt", wall_ns / read, time.monotonic_ns())

    def _tell(
        self,
        plan: scheduler.Plan,
        pieces: list[tuple[Work, Sequence, str, list[TokenLogprob] | None, str | None]],
        broken: list[Work],
    ) -> list[EngineEvent]:
        """The step as events, and the end of what ended in it."""
        events: list[EngineEvent] = []
        heard = set()
        for work, sequence, text, logprobs, reason in pieces:
            heard.add(work)
            events.append(
                Piece(work.request_id, usage_of(work), sequence.index, text, logprobs, reason)
            )
            if sequence.ended:
                self._leave(sequence)
        for work in dict.fromkeys(row.work for row in plan.rows):
            if work not in heard:
                events.append(Worked(work.request_id, usage_of(work)))
        for work in dict.fromkeys(broken):
            message = "The model cannot continue within the response_format that was asked for."
            self._end(work, Failed(work.request_id, usage_of(work), FailureKind.UPSTREAM, message))
        for work in [work for work in self._running if not work.live]:
            self._end(work, Finished(work.request_id, usage_of(work)))
        return events

    def _seat(self, work: Work) -> None:
        self._waiting.remove(work)
        self._running.append(work)
        self._running.sort(key=lambda other: other.number)
        for sequence in work.live:
            self._slots.take(sequence)

    def _evict(self, work: Work) -> None:
        """Back in line, ahead of all that came later; what it wrote is kept, its cells are not."""
        self._running.remove(work)
        for sequence in work.live:
            self._leave(sequence)
        self._waiting.append(work)
        self._waiting.sort(key=lambda other: other.number)

    def _leave(self, sequence: Sequence) -> None:
        slot = self._slots.release(sequence)
        if slot is not None:
            self._context.forget(slot)

    def _end(self, work: Work, last: EngineEvent) -> None:
        """Free all that a request holds; ``last`` goes out with this or the next step."""
        if work in self._running:
            self._running.remove(work)
        else:
            self._waiting.remove(work)
        for sequence in work.sequences:
            self._leave(sequence)
            sequence.ended = True
        self._forget_voices(work)
        self._outbox.append(last)

    def _forget_voices(self, work: Work) -> None:
        for sequence in work.sequences:
            voice = self._voices.pop(sequence, None)
            if voice is not None:
                voice.close()

    def unload(self) -> None:
        for voice in self._voices.values():
            voice.close()
        self._voices.clear()
        self._context.close()
        self._model.close()


def usage_of(work: Work) -> Usage:
    """What a request has used up to now."""
    return Usage(
        input_tokens=work.prompt_read,
        output_tokens=work.output_tokens,
        compute_ns=work.compute_ns,
    )
