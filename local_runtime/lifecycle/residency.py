"""Which models are in memory, and who makes room for whom. Pure: it is told everything.

Models ask for room in a queue. The first gets it as soon as it fits; while it does not, others are
made to leave for it. The rules, in the order of their weight:

1. What is held never passes ``bytes_max`` by giving room (a model that turns out larger than was
   thought can pass it; then idle ones leave).
2. A model with a running call keeps its memory until that call has ended. It can be told to leave:
   then it takes no new calls, and goes once the last running one is over.
3. Only as many leave as the bytes need: idle ones first, the least recently used first, and of
   those only who is needed. Kept models never leave.
4. A model that has been loaded has a turn: it may serve whoever came for it, and is not told to
   leave before its turn is over, or before it was idle for as long as loading it again would take.
   Two models that do not fit together so spend most of their time answering and not loading.
5. Who asked first is served first. A later one may go ahead only with bytes that the earlier ones
   will not need. So nobody starves as long as calls end.

Times are seconds of one clock, sizes are bytes.
"""

import msgspec

TURN_LOADS = 4.0  # a turn lasts as many times as long as the load: at most a fifth is loading
TURN_S_MIN = 1.0
TURN_S_MAX = 30.0
GRACE_S_MIN = 0.25
GRACE_S_MAX = 5.0
LOOK_AGAIN_S = 1.0  # nobody tells when another program frees memory


class Resident(msgspec.Struct, kw_only=True):
    """A model that has room. ``warm_since_s`` is None while it is being loaded."""

    model: str
    bytes: int
    kept: bool
    keep_alive_s: float
    used_s: float
    warm_since_s: float | None = None
    load_s: float = 0.0
    running: int = 0
    leaving: bool = False

    @property
    def turn_ends_s(self) -> float:
        """Until when it is left alone while calls run."""
        assert self.warm_since_s is not None
        return self.warm_since_s + min(TURN_S_MAX, max(TURN_S_MIN, TURN_LOADS * self.load_s))

    @property
    def ripe_s(self) -> float:
        """From when on it may be told to leave, if nothing changes."""
        if self.running:
            return self.turn_ends_s
        grace_s = min(GRACE_S_MAX, max(GRACE_S_MIN, self.load_s))
        return min(self.turn_ends_s, self.used_s + grace_s)


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A model that waits for room. ``may_displace`` is false for what only fills free memory."""

    model: str
    bytes: int
    kept: bool = False
    keep_alive_s: float = 0.0
    may_displace: bool = True


class Plan(msgspec.Struct, kw_only=True):
    """What is to be done now: who has got room, who has to leave, who cannot be served and why.

    ``skipped`` are those that may displace nobody and do not fit. ``again_s``: when to ask again,
    if nothing happens before.
    """

    granted: list[str] = []
    leave: list[str] = []
    skipped: list[str] = []
    hopeless: dict[str, str] = {}
    again_s: float | None = None

    def wake(self, at_s: float) -> None:
        """Ask again at ``at_s`` at the latest."""
        self.again_s = at_s if self.again_s is None else min(self.again_s, at_s)


class Residency:
    """The memory of one machine, as far as models may have it."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.residents: dict[str, Resident] = {}
        self.wants: dict[str, Want] = {}  # in the order in which they asked

    @property
    def held_bytes(self) -> int:
        """What all residents hold, those that are leaving included."""
        return sum(each.bytes for each in self.residents.values())

    def want(self, want: Want) -> None:
        """Queue for room; one that is queued already stays where it is, and may get more urgent."""
        if want.model not in self.residents:
            self.wants[want.model] = want

    def give_back(self, model: str) -> None:
        """It is gone from memory, or does not want to get there any more."""
        self.wants.pop(model, None)
        self.residents.pop(model, None)

    def warm(self, model: str, memory_bytes: int, load_s: float, now_s: float) -> None:
        """It is loaded: what it was found to take (0: not known), and how long loading took."""
        resident = self.residents[model]
        resident.bytes = memory_bytes or resident.bytes
        resident.load_s = load_s
        resident.warm_since_s = resident.used_s = now_s

    def reloading(self, model: str) -> None:
        """Its engine died and is being started again: it keeps its room."""
        self.residents[model].warm_since_s = None

    def leaving(self, model: str) -> None:
        """Somebody else told it to leave."""
        self.residents[model].leaving = True

    def enter(self, model: str, now_s: float) -> None:
        """A call runs on it from now on."""
        resident = self.residents[model]
        resident.running += 1
        resident.used_s = now_s

    def leave(self, model: str, now_s: float) -> None:
        """A call has ended on it; one whose engine is gone already changes nothing."""
        resident = self.residents.get(model)
        if resident is not None and resident.running:
            resident.running -= 1
            resident.used_s = now_s

    def plan(self, now_s: float, available_bytes: int | None = None) -> Plan:
        """Decide. ``available_bytes``: what the machine has free now, where that is to count too;
        what is being loaded is taken off it, since that is not yet seen in it.
        """
        plan = Plan()
        self._end_the_unused(now_s, plan)
        free = self.bytes_max - self.held_bytes
        if available_bytes is not None:
            loading = sum(e.bytes for e in self.residents.values() if e.warm_since_s is None)
            free = min(free, available_bytes - loading)
        if self.held_bytes > self.bytes_max:
            over = self.held_bytes - self.bytes_max - self._on_their_way()
            if over > 0:
                self._tell_to_leave(self._idle(now_s), over, plan, enough=False)
        promised = 0
        for want in list(self.wants.values()):
            reason = self._never(want)
            if reason is not None:
                del self.wants[want.model]
                plan.hopeless[want.model] = reason
            elif want.bytes <= free - max(0, promised - self._on_their_way()):
                free -= want.bytes
                self._grant(want, now_s, plan)
            elif not want.may_displace:
                del self.wants[want.model]
                plan.skipped.append(want.model)
            else:
                promised += want.bytes
                lacking = promised - free - self._on_their_way()
                if lacking > 0:
                    self._make_room(lacking, now_s, plan)
        if self.wants and available_bytes is not None:
            plan.wake(now_s + LOOK_AGAIN_S)
        return plan

    def _grant(self, want: Want, now_s: float, plan: Plan) -> None:
        del self.wants[want.model]
        self.residents[want.model] = Resident(
            model=want.model,
            bytes=want.bytes,
            kept=want.kept,
            keep_alive_s=want.keep_alive_s,
            used_s=now_s,
        )
        plan.granted.append(want.model)

    def _on_their_way(self) -> int:
        """Bytes that will be free once those who were told to leave have left."""
        return sum(each.bytes for each in self.residents.values() if each.leaving)

    def _never(self, want: Want) -> str | None:
        """Why it cannot be loaded even if all others leave."""
        kept = sum(each.bytes for each in self.residents.values() if each.kept)
        if want.bytes <= self.bytes_max - kept:
            return None
        words = f"it needs {want.bytes} bytes of memory, and models may have {self.bytes_max} here"
        if kept:
            words += f", of which {kept} are taken by models that are kept"
        return words

    def _end_the_unused(self, now_s: float, plan: Plan) -> None:
        for each in self._displaceable():
            if each.keep_alive_s > 0 and not each.running:
                ends_s = each.used_s + each.keep_alive_s
                if ends_s <= now_s:
                    each.leaving = True
                    plan.leave.append(each.model)
                else:
                    plan.wake(ends_s)

    def _displaceable(self) -> list[Resident]:
        return [
            each
            for each in self.residents.values()
            if each.warm_since_s is not None and not each.leaving and not each.kept
        ]

    def _idle(self, now_s: float) -> list[Resident]:
        """Those without a running call, ripe ones first, the least recently used first."""
        idle = [each for each in self._displaceable() if not each.running]
        return sorted(idle, key=lambda each: (each.ripe_s > now_s, each.used_s))

    def _make_room(self, lacking: int, now_s: float, plan: Plan) -> None:
        """Have those leave who are in the way of ``lacking`` bytes, once that makes enough room."""
        idle = self._idle(now_s)
        ripe = [each for each in idle if each.ripe_s <= now_s]
        if self._tell_to_leave(ripe, lacking, plan):
            return
        busy = sorted(
            (each for each in self._displaceable() if each.running), key=lambda each: each.used_s
        )
        if sum(each.bytes for each in idle) < lacking:
            ripe += [each for each in busy if each.ripe_s <= now_s]
            if self._tell_to_leave(ripe, lacking, plan):
                return
        for each in (*idle, *busy):
            if each.ripe_s > now_s:
                plan.wake(each.ripe_s)

    def _tell_to_leave(
        self, them: list[Resident], lacking: int, plan: Plan, *, enough: bool = True
    ) -> bool:
        """As many of them, from the first on, as ``lacking`` needs; whether that was enough.
        ``enough``: nobody leaves where all of them together would not do.
        """
        chosen: list[Resident] = []
        freed = 0
        for each in them:
            if freed >= lacking:
                break
            chosen.append(each)
            freed += each.bytes
        if freed < lacking and enough:
            return False
        for each in reversed(chosen):
            if freed - each.bytes >= lacking:
                freed -= each.bytes
                chosen.remove(each)
        for each in chosen:
            each.leaving = True
            plan.leave.append(each.model)
        return freed >= lacking
