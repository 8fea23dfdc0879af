"""How many guessed tokens are worth computing: as many as make the whole batch faster.

A step that checks guesses takes longer than one without, and says more if they are right. Both are
measured: how long steps of so many tokens take here, and how often guesses were right. With many
sequences a step is busy without any guesses, more tokens only make it longer, and speculation stops
by itself.
"""

from collections import deque
from collections.abc import Iterable

from local_runtime.engines.cost import Forecast
from local_runtime.engines.llama.draft_model import DraftModel
from local_runtime.engines.llama.drafts import DRAFT_TOKENS_MAX, Lookup, Record
from local_runtime.engines.llama.scheduler import Limits
from local_runtime.engines.llama.slots import Sequence, Work, cells_needed

# Less is noise of the measurement, and speculation has costs that are not measured.
_GAIN_MIN = 1.1
_REMEMBERED = 5
_FORGET_AFTER = 512  # steps
_TOKENS_MAX = 256
_CALIBRATED_TOKENS = 32


class StepCosts:
    """How long a step takes that computes so many tokens of answers, in ns; measured."""

    def __init__(self, forecast: Forecast) -> None:
        """``forecast`` is fresh from loading, where a step of 1 and one of 32 were measured."""
        calibrated = {
            1: forecast.output_token_ns,
            _CALIBRATED_TOKENS: forecast.prompt_token_ns * _CALIBRATED_TOKENS,
        }
        self._walls_ns = {
            tokens: deque([wall_ns], maxlen=_REMEMBERED) for tokens, wall_ns in calibrated.items()
        }
        self._last_seen: dict[int, int] = {}
        self._steps = 0

    def observe(self, tokens: int, wall_ns: int) -> None:
        """A step of only answers took so long."""
        if not 0 < tokens <= _TOKENS_MAX:
            return
        self._steps += 1
        self._last_seen[tokens] = self._steps
        if tokens not in self._walls_ns:
            self._walls_ns[tokens] = deque(maxlen=_REMEMBERED)
        self._walls_ns[tokens].append(wall_ns)
        if self._steps % _FORGET_AFTER == 0:
            # One slow step must not rule its size out for ever.
            for size, seen in list(self._last_seen.items()):
                if seen + _FORGET_AFTER < self._steps and size not in (1, _CALIBRATED_TOKENS):
                    del self._walls_ns[size], self._last_seen[size]

    def observe_prompt(self, tokens: int, wall_ns: int) -> None:
        """A step of only prompts took so long: about what as many guesses would take. So a load
        measured in a bad moment does not stand for ever."""
        if _CALIBRATED_TOKENS // 2 <= tokens <= _CALIBRATED_TOKENS * 2:
            wall_ns = wall_ns * _CALIBRATED_TOKENS // tokens
            self._walls_ns[_CALIBRATED_TOKENS].append(wall_ns)

    def of(self, tokens: int) -> float:
        """Between sizes that were measured it is taken to grow evenly, and never to shrink."""
        known = self._walls_ns
        if tokens in known:
            return self._typical(tokens)
        below = max((size for size in known if size < tokens), default=None)
        above = min((size for size in known if size > tokens), default=None)
        if below is None or above is None:
            edge = below or above or 1
            return self._typical(edge) * max(1.0, tokens / edge)
        low = self._typical(below)
        high = max(low, self._typical(above))
        return low + (high - low) * (tokens - below) / (above - below)

    def _typical(self, tokens: int) -> float:
        walls_ns = sorted(self._walls_ns[tokens])
        return float(walls_ns[(len(walls_ns) - 1) // 2])


class Speculation:
    """Fills ``Sequence.drafted`` before a step is planned, and learns from how the step went."""

    def __init__(self, forecast: Forecast, model: DraftModel | None = None) -> None:
        """``model`` guesses where nothing repeats; without it only what repeats is guessed."""
        self.costs = StepCosts(forecast)
        self._model = model
        self._by_model: dict[Sequence, tuple[int, list[int]]] = {}
        self._record = Record()
        self._lookups: dict[Sequence, Lookup] = {}

    def propose(
        self, running: Iterable[Work], adapter: str, limits: Limits, forecast: Forecast
    ) -> None:
        """Draft for those whose turn it is."""
        running = list(running)
        generating = _begin(running, adapter)
        if len(self._lookups) > len(generating):
            self._forget_others(sequence for work in running for sequence in work.live)
        drafts: list[tuple[Sequence, list[int], list[float]]] = []
        for work, sequence in generating:
            lookup = self._lookups.get(sequence)
            if lookup is None:
                lookup = self._lookups[sequence] = Lookup(sequence.tokens, self._record)
            lookup.follow()
            if not lookup.found:
                continue
            guessed, likely = lookup.guesses(_tokens_for(work, sequence, forecast))
            if guessed:
                drafts.append((sequence, guessed, likely))
        if self._model is not None:
            drafts += self._ask_model(self._model, generating, drafts, forecast)
        if not drafts:
            return
        room = min(limits.cells - cells_needed(running), limits.batch_tokens // 2 - len(generating))
        counts = worth([likely for _, _, likely in drafts], len(generating), room, self.costs)
        for (sequence, guessed, _), count in zip(drafts, counts, strict=True):
            sequence.drafted = guessed[:count]
            if sequence in self._by_model:
                self._by_model[sequence] = len(sequence.tokens), sequence.drafted

    def _ask_model(
        self,
        model: DraftModel,
        generating: list[tuple[Work, Sequence]],
        drafts: list[tuple[Sequence, list[int], list[float]]],
        forecast: Forecast,
    ) -> list[tuple[Sequence, list[int], list[float]]]:
        """Guesses for those that have none, if they are likely to be worth the model's time."""
        for sequence, (start, guessed) in self._by_model.items():
            said = sequence.tokens[start : start + len(guessed)]
            right = next((at for at, token in enumerate(said) if token != guessed[at]), len(said))
            if len(said) == len(guessed) or right < len(said):
                model.note(len(guessed), right)
        self._by_model = {}
        model.keep_only(sequence for _, sequence in generating)
        without = [
            sequence
            for work, sequence in generating
            if not any(sequence is other for other, _, _ in drafts)
            and _tokens_for(work, sequence, forecast)
        ]
        rates = [
            len(generating) / self.costs.of(len(generating)) * _GAIN_MIN if generating else 0.0
        ]
        expected, share = float(len(generating)), 1.0
        for count in range(1, DRAFT_TOKENS_MAX + 1):
            share *= model.share
            expected += share * len(without)
            wall_ns = self.costs.of(len(generating) + count * len(without)) + count * model.token_ns
            rates.append(expected / wall_ns)
        best = rates.index(max(rates)) or model.due()
        if not without or not best:
            return []
        allowed = {each: _tokens_for(work, each, forecast) for work, each in generating}
        found = []
        for sequence, (guessed, likely) in model.guesses(without, best).items():
            self._by_model[sequence] = 0, []
            count = allowed[sequence]
            found.append((sequence, guessed[:count], likely[:count]))
        return found

    def close(self) -> None:
        if self._model is not None:
            self._model.close()

    def observe(self, read: int, generated: int, wall_ns: int) -> None:
        """A step has been taken, of so many tokens of prompts and of answers."""
        if not read:
            self.costs.observe(generated, wall_ns)
        elif not generated:
            self.costs.observe_prompt(read, wall_ns)

    def _forget_others(self, live: Iterable[Sequence]) -> None:
        self._lookups = {each: self._lookups[each] for each in live if each in self._lookups}


def worth(likely: list[list[float]], generating: int, room: int, costs: StepCosts) -> list[int]:
    """How many guesses of each sequence to compute, for the most tokens in the least time.

    ``likely`` has, for each sequence that has guesses, how likely the first so many are all right.
    """
    counts = [0] * len(likely)
    order = sorted(
        ((share, at) for at, shares in enumerate(likely) for share in shares), reverse=True
    )[: max(0, room)]
    expected = float(generating)
    best = expected / costs.of(generating) * _GAIN_MIN if generating else 0.0
    best_length = 0
    for length, (share, _) in enumerate(order, start=1):
        expected += share
        rate = expected / costs.of(generating + length)
        if rate > best:
            best, best_length = rate, length
    for _, at in order[:best_length]:
        counts[at] += 1
    return counts


def _begin(running: list[Work], adapter: str) -> list[tuple[Work, Sequence]]:
    """Those that can be drafted for; what was drafted for anybody is gone."""
    generating: list[tuple[Work, Sequence]] = []
    for work in running:
        takes_part = work.adapter == adapter and not work.seeded
        for sequence in work.sequences:
            if not sequence.ended:
                if sequence.drafted:
                    sequence.drafted = []
                if takes_part and sequence.generates:
                    generating.append((work, sequence))
    return generating


def _tokens_for(work: Work, sequence: Sequence, forecast: Forecast) -> int:
    """How many guesses this sequence can use, and its bill can bear."""
    most = min(DRAFT_TOKENS_MAX, sequence.tokens_max - len(sequence.tokens) - 1)
    left_ns = work.compute_left_ns()
    if left_ns is not None:
        spare = left_ns // forecast.output_token_ns - len(work.live)
        most = min(most, spare // len(work.live))
    return max(0, most)
