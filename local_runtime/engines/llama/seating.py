"""Gives sequences their places in the cache, and moves them when its layout changes."""

import logging
import time
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf

from local_runtime.engines.llama.cells import Cells
from local_runtime.engines.llama.drafts import DRAFT_TOKENS_MAX
from local_runtime.engines.llama.layout import SCAN_NS, SCAN_NS_ON_DEVICE, Layout, Need
from local_runtime.engines.llama.native import Context
from local_runtime.engines.llama.sizing import KEPT_BYTES, Size
from local_runtime.engines.llama.slots import Slots, Work, cells_needed

_log = logging.getLogger("local_runtime.llama")

# How long an answer is expected to go on, where the request allows more.
_GROWTH_TOKENS = 256


class Seating:
    """The context's ``layout``, and who sits where in it."""

    def __init__(self, context: Context, cells: Cells, slots: Slots, size: Size) -> None:
        self._context = context
        self._cells = cells
        self._slots = slots
        per_head_ns = SCAN_NS_ON_DEVICE if size.gpu_layers else SCAN_NS
        self.layout = Layout(
            cells=context.cells,
            sequences_max=slots.count,
            cell_bytes=size.cell_bytes,
            bytes_max=KEPT_BYTES,
            scan_ns=size.heads * per_head_ns / size.threads[-1],
        )
        self._seen = 0  # changes of slots, up to which everybody's place has been looked at
        self._spent_ns = 0
        self._steps_left = 0  # for which what was seen surely fits

    def spent_ns(self) -> int:
        """What changes of the layout have taken since the last time this was asked."""
        spent, self._spent_ns = self._spent_ns, 0
        return spent

    def make_way(self, work: Work, running: SequenceOf[Work]) -> bool:
        """Have a place for all of the work's sequences. True: everything is elsewhere now."""
        everybody = [*running, work]
        if self.layout.streams == 1 or self._holds(everybody):
            return False
        self._arrange(self._best(everybody), running)
        return True

    def settle(self, running: SequenceOf[Work]) -> None:
        """Before a step: have room for it, in the layout in which it takes the least time."""
        changed = self._slots.changes != self._seen
        if self.layout.streams == 1:
            if changed and self._slots.running > 1 and _movable(running):
                used, now_ns = cells_needed(running), time.monotonic_ns()
                better = self.layout.better(_needs(running), used, now_ns)
                if better is not None:
                    self._arrange(better, running)
        elif changed or self._steps_left <= 0:
            if not self._holds(running):
                self._arrange(self._best(running), running)
            elif self._slots.running != self._slots.end:
                self._close_ranks(running)
            self._steps_left = self.layout.slack(_needs(running)) // (DRAFT_TOKENS_MAX + 1)
        self._steps_left -= 1
        self._seen = self._slots.changes

    def _holds(self, works: SequenceOf[Work]) -> bool:
        return _movable(works) and self.layout.holds(_needs(works))

    def _best(self, works: SequenceOf[Work]) -> int:
        return self.layout.best(_needs(works)) if _movable(works) else 1

    def _arrange(self, streams: int, running: SequenceOf[Work]) -> None:
        """Make the cache anew, and put everybody into it. What does not get in is read again."""
        begun_ns = time.monotonic_ns()
        seated = [each for work in running for each in work.live if each.slot is not None]
        saved = [
            self._context.save(each.slot) if each.slot is not None and each.computed else None
            for each in seated
        ]
        for each in seated:
            self._slots.release(each)
            self._cells.release(each.path)
            each.path = None
        self._context.arrange(streams, self.layout.room(streams) * streams)
        self._cells.shares = streams == 1
        for each, data in zip(seated, saved, strict=True):
            slot = self._slots.take(each)
            if data is None:
                continue
            if self._context.restore(slot, data):
                each.path = self._cells.extend(None, each.computed)
            else:
                self._context.forget(slot)
                each.computed = 0
        ended_ns = time.monotonic_ns()
        self.layout.changed(streams, ended_ns - begun_ns, ended_ns)
        self._spent_ns += ended_ns - begun_ns
        _log.debug("%d sequences in %d caches", len(seated), streams)

    def _close_ranks(self, running: SequenceOf[Work]) -> None:
        """Let nobody sit behind an empty place: a batch is computed in one go only over caches
        that lie beside each other (``llama_batch_allocr::split_equal``)."""
        last = sorted(
            (each for work in running for each in work.live if each.slot is not None),
            key=lambda each: each.slot or 0,
        )
        while self._slots.running != self._slots.end:
            sequence = last.pop()
            slot = sequence.slot
            assert slot is not None
            data = self._context.save(slot) if sequence.computed else None
            self._context.forget(slot)
            self._slots.release(sequence)
            target = self._slots.take(sequence)
            if data is not None and not self._context.restore(target, data):
                self._context.forget(target)
                self._cells.release(sequence.path)
                sequence.path, sequence.computed = None, 0


def _movable(works: Iterable[Work]) -> bool:
    """Whether all of it can be copied: llama.cpp does not save where in a picture a cell is."""
    return not any(len(work.views) for work in works)


def _needs(works: Iterable[Work]) -> list[Need]:
    needs = []
    for work in works:
        for each in work.live:
            length = len(each.tokens)
            growth = min(each.tokens_max - length, _GROWTH_TOKENS)
            needs.append(
                Need(length + DRAFT_TOKENS_MAX, length + DRAFT_TOKENS_MAX + max(0, growth))
            )
    return needs
