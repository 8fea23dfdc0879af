"""The llama.cpp engine: continuous batching over one context. ``contract.py`` has its rules.

The loop only carries out what others decide: ``scheduler`` who computes what, ``prefix`` what need
not be computed, ``batch`` runs it, ``voice`` which token and what text, ``cost`` who pays.
"""

import time
from collections.abc import Callable

from local_runtime.engines.contract import (
    Admitted,
    EngineEvent,
    EngineInfo,
    EngineRequest,
    EngineSpec,
    Failed,
    Finished,
    Occupancy,
    Piece,
    RequestRefused,
    Worked,
)
from local_runtime.engines.cost import share
from local_runtime.engines.llama import devices, native, scheduler, sizing
from local_runtime.engines.llama.adapters import Adapters
from local_runtime.engines.llama.batch import Spoken, Steps
from local_runtime.engines.llama.calibration import calibrate
from local_runtime.engines.llama.cells import Cells
from local_runtime.engines.llama.chat_template import ChatTemplate, header_and_template
from local_runtime.engines.llama.draft_model import DraftModel
from local_runtime.engines.llama.intake import Intake
from local_runtime.engines.llama.libraries import PROCESSOR_LIBRARY
from local_runtime.engines.llama.looking import Looking, Sight, reader_of
from local_runtime.engines.llama.pictures import BadPicture
from local_runtime.engines.llama.prefix import Found, Prefixes
from local_runtime.engines.llama.seating import Seating
from local_runtime.engines.llama.slots import Sequence, Slots, Work, usage_of
from local_runtime.engines.llama.speculation import Speculation
from local_runtime.engines.llama.turns import Turns
from local_runtime.engines.llama.voice import Voice
from local_runtime.engines.threads import ThreadTuner
from plugins.contract import FailureKind, Usage

SIGN_OF_LIFE_NS = 2_000_000_000
_NOTHING = Usage()


class LlamaEngine:
    """One model, one context, up to ``sequences_max`` sequences in each batch."""

    busy_ns = unbilled_ns = 0

    def load(self, spec: EngineSpec, progress: Callable[[float], None]) -> EngineInfo:
        """Check the header, load the weights, make the context, and measure what steps cost."""
        started_ns = time.monotonic_ns()
        header, source = header_and_template(spec.path)
        native.start_backend(spec.options.get(PROCESSOR_LIBRARY, ""))
        taken_before = devices.taken_now()
        size = sizing.size_of(header, spec, devices.free_now())
        self._model = native.Model(
            spec.path,
            lambda fraction: progress(0.9 * fraction),
            gpu_layers=size.gpu_layers,
            copied=size.copied,
        )
        template = ChatTemplate(
            source, bos_token=self._model.bos_text, eos_token=self._model.eos_text
        )
        self._slots = Slots(spec.sequences_max)
        self._context = native.Context(self._model, size, sequences=self._slots.count)
        self._adapters = Adapters(self._model, spec.adapters, header.architecture)
        self._turns = Turns()
        self._tuner = ThreadTuner(size.threads)
        self._limits = scheduler.Limits(cells=self._context.cells, batch_tokens=size.batch_tokens)
        reader = reader_of(spec.projector_path, self._model, size)
        self._intake = Intake(
            self._model,
            template,
            context_length=size.context_length,
            cells=self._context.cells,
            sequences_max=spec.sequences_max,
            reader=reader,
        )
        self._cells = Cells()
        self._seating = Seating(self._context, self._cells, self._slots, size)
        self._looking = Looking(reader, self._context, self._cells) if reader else None
        self._prefixes = Prefixes(
            self._context,
            self._cells,
            bytes_max=sizing.KEPT_BYTES,
            whole_only=not self._model.goes_back,
        )
        self._voices: dict[Sequence, Voice] = {}
        self._steps = Steps(self._model, self._context, self._cells, self._voices)
        self._waiting: list[Work] = []
        self._running: list[Work] = []
        self._outbox: list[EngineEvent] = []
        self._forecast = calibrate(self._model, self._context)
        self._speculation: Speculation | None = None
        if spec.speculation and self._model.goes_back:
            draft = None
            if spec.draft_path:
                draft = DraftModel(spec.draft_path, self._model, size, spec.sequences_max)
            self._speculation = Speculation(self._forecast, draft)
        progress(1.0)
        taken = devices.taken_now()
        return EngineInfo(
            context_length=size.context_length,
            sequences_max=spec.sequences_max,
            threads=self._tuner.settled,
            load_ms=(time.monotonic_ns() - started_ns) // 1_000_000,
            memory_bytes=taken.host_bytes - taken_before.host_bytes + sizing.KEPT_BYTES,
            device_bytes=taken.device_bytes - taken_before.device_bytes,
            gpu_layers=size.gpu_layers,
        )

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(
            sequences_running=self._slots.running,
            cells=self._limits.cells,
            cells_used=self._cells.used,
            kept_tokens=self._prefixes.kept_tokens,
        )

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting or self._outbox)

    def submit(self, asked: EngineRequest) -> None:
        try:
            self._adapters.require(asked.adapter)
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
        if self._cells.used + self._limits.batch_tokens > self._limits.cells:
            for work in scheduler.to_evict(self._running, self._limits):
                self._evict(work)
        self._lead_on()
        if self._waiting:
            events += self._let_in()
        self._seating.settle(self._running)
        if moving_ns := self._seating.spent_ns():  # the house pays for it
            self.busy_ns += moving_ns
            self.unbilled_ns += moving_ns
            begun_ns += moving_ns
        adapter = self._turns.whose(self._running)
        if self._speculation is not None:
            self._speculation.propose(self._running, adapter, self._limits, self._forecast)
        plan = scheduler.plan(self._running, self._limits, self._forecast, adapter)
        spoken = [self._cut_off(work, each) for work in plan.exhausted for each in work.live]
        sight = None
        if self._looking is not None:
            sight = self._looking.next(
                self._running, adapter, self._forecast, others=bool(plan.rows)
            )
        if sight is not None:
            plan.rows.clear()
            spoken += self._look(sight, adapter, begun_ns)
        elif plan.rows:
            self._adapters.apply(self._context, adapter)
            self._context.use_threads(self._threads())
            spoken += self._steps.run(plan.rows)
            self._charge(plan, time.monotonic_ns() - begun_ns)
        events += self._tell(plan, spoken)
        events += self._outbox
        self._outbox = []
        return events

    def _threads(self) -> int:
        """How many compute the next step. With a seed nothing is tried: their number, too, can show
        in the last bits of what is computed."""
        if any(work.seeded for work in self._running):
            return self._tuner.settled
        kind = scheduler.kind_of_step(self._running, self._turns.current)
        return self._tuner.choose(kind, time.monotonic_ns())

    def _look(self, sight: Sight, adapter: str, begun_ns: int) -> list[Spoken]:
        """A step about a picture: all of its time is that request's."""
        assert self._looking is not None
        work = sight.work
        left_ns = work.compute_left_ns()
        if left_ns is not None and left_ns < sight.expected_ns:
            return [self._cut_off(work, each) for each in work.live]
        self._adapters.apply(self._context, adapter)
        self._context.use_threads(self._tuner.settled)
        bad = ""
        try:
            self._looking.look(sight)
        except BadPicture as error:
            bad = f"messages: {error}"
        self._bill({work: 1}, time.monotonic_ns() - begun_ns)
        if bad:
            kind = FailureKind.BAD_REQUEST
            self._end(work, Failed(work.request_id, usage_of(work), kind, bad, param="messages"))
        return []

    def _let_in(self) -> list[EngineEvent]:
        """Seat those whose turn it is, as long as there is room."""
        events: list[EngineEvent] = []
        found = Found()

        def shared(work: Work) -> int:
            nonlocal found
            # A seed promises the same text, and what is found shows in the last bits.
            alone = work.seeded and not self._running
            found = Found() if alone else self._prefixes.find(work, self._running)
            return max(found.tokens if found.kept is None else 0, found.leader_tokens)

        while work := scheduler.next_to_enter(
            self._waiting, self._running, self._slots.free, self._limits, shared
        ):
            if self._seating.make_way(work, self._running):
                shared(work)  # what was found is elsewhere, too
            self._seat(work, found)
            if not work.announced:
                work.announced = True
                events.append(Admitted(work.request_id, usage_of(work)))
        return events

    def _lead_on(self) -> None:
        """Whoever waited for another's prompt goes on once that is read, or never will be."""
        for work in self._running:
            first = work.sequences[0]
            first = work.live[0] if first.ended else first
            if (leader := first.follows) is None:
                continue
            if leader.slot is not None and leader.computed < first.follow_tokens:
                continue
            first.follows, first.follow_tokens = None, 0
            assert first.slot is not None
            if first.computed:
                self._context.forget(first.slot)
                self._cells.release(first.path)
                first.path, first.computed = None, 0
            others = [other for other in self._running if other is not work]
            self._prefixes.begin(first, self._prefixes.find(work, others))
            self._note_cached(work)

    def _seat(self, work: Work, found: Found) -> None:
        self._waiting.remove(work)
        self._running.append(work)
        self._running.sort(key=lambda other: other.number)
        for sequence in work.live:
            self._slots.take(sequence)
        self._prefixes.begin(work.live[0], found)
        if work.live[0].follows is None:
            self._note_cached(work)

    def _note_cached(self, work: Work) -> None:
        """What of the prompt was found, as of the first time it was looked for."""
        if work.cached_tokens is None:
            work.cached_tokens = work.prompt_read = min(work.live[0].computed, work.prompt_tokens)

    def _cut_off(self, work: Work, sequence: Sequence) -> Spoken:
        """The end of an answer that nobody pays for any more."""
        sequence.ended = True
        voice = self._voices[sequence]
        return Spoken(work, sequence, voice.finish(), voice.finish_reason("length"))

    def _charge(self, plan: scheduler.Plan, wall_ns: int) -> None:
        """Share the step's time out over the work in it, by tokens computed."""
        tokens, read, generated, drafted = plan.sums()
        self._bill(tokens, wall_ns)
        if self._speculation is not None:
            self._speculation.observe(read, generated, wall_ns)
        if drafted:
            return  # what was drafted makes a step longer, and is no measure for others
        self._forecast.observe(wall_ns, read, generated)
        if any(work.seeded for work in self._running):
            return
        if not read:
            self._tuner.observe(generated, wall_ns, wall_ns, time.monotonic_ns())
        elif not generated and read >= scheduler.CHUNK_TOKENS_MIN:
            self._tuner.observe("prompt", wall_ns / read, wall_ns, time.monotonic_ns())

    def _bill(self, tokens: dict[Work, int], wall_ns: int) -> None:
        """Time in which so many tokens of each work were computed; and, once, the time that
        decoding a request's pictures took."""
        self.busy_ns += wall_ns
        self._turns.spent(wall_ns)
        for work, share_ns in zip(tokens, share(wall_ns, list(tokens.values())), strict=True):
            self.busy_ns += work.looked_ns
            due_ns, work.looked_ns = share_ns + work.looked_ns, 0
            left_ns = work.compute_left_ns()
            billed_ns = due_ns if left_ns is None else min(due_ns, left_ns)
            work.compute_ns += billed_ns
            self.unbilled_ns += due_ns - billed_ns
            if work.prompt_read < work.prompt_tokens:
                furthest = max(sequence.computed for sequence in work.sequences)
                work.prompt_read = max(work.prompt_read, min(furthest, work.prompt_tokens))

    def _tell(self, plan: scheduler.Plan, spoken: list[Spoken]) -> list[EngineEvent]:
        """The step as events, and the end of what ended in it."""
        now_ns = time.monotonic_ns()
        events: list[EngineEvent] = []
        broken: dict[Work, None] = {}
        for each in spoken:
            work, said = each.work, each.said
            if said is None:
                broken[work] = None
                continue
            work.heard_ns = now_ns
            events.append(
                Piece(
                    work.request_id,
                    usage_of(work),
                    each.sequence.index,
                    said.text,
                    said.logprobs,
                    each.reason,
                    said.reasoning,
                    said.tool_calls,
                )
            )
            if each.sequence.ended:
                self._leave(work, each.sequence)
        silent = [work for work in self._running if work.heard_ns != now_ns]
        computed = {row.work for row in plan.rows} if silent else set()
        for work in silent:
            if work in computed or now_ns - work.heard_ns > SIGN_OF_LIFE_NS:
                work.heard_ns = now_ns
                events.append(Worked(work.request_id, usage_of(work)))
        for work in broken:
            message = "The model finds no way on within the form that was asked for."
            self._end(work, Failed(work.request_id, usage_of(work), FailureKind.UPSTREAM, message))
        over = any(each.sequence.ended for each in spoken)
        for work in [work for work in self._running if not work.live] if over else ():
            self._end(work, Finished(work.request_id, usage_of(work)))
        return events

    def _evict(self, work: Work) -> None:
        """Back in line, ahead of all that came later; what it wrote is kept, its cells are not."""
        self._running.remove(work)
        for sequence in work.live:
            self._leave(work, sequence)
        self._waiting.append(work)
        self._waiting.sort(key=lambda other: other.number)

    def _leave(self, work: Work, sequence: Sequence) -> None:
        """Give up slot and cells; a copy is kept for a prompt that starts alike."""
        sequence.drafted = []
        sequence.follows, sequence.follow_tokens = None, 0
        if sequence.slot is not None:
            self._prefixes.keep(sequence, work)
            self._slots.release(sequence)
        sequence.computed = 0

    def _end(self, work: Work, last: EngineEvent) -> None:
        """Free all that a request holds; ``last`` goes out with this or the next step."""
        if work in self._running:
            self._running.remove(work)
        else:
            self._waiting.remove(work)
        for sequence in work.sequences:
            self._leave(work, sequence)
            sequence.ended = True
        self._forget_voices(work)
        work.views.close()
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
        for work in [*self._waiting, *self._running]:
            work.views.close()
        if self._looking is not None:
            self._looking.close()
        if self._speculation is not None:
            self._speculation.close()
        self._context.close()
        self._model.close()
