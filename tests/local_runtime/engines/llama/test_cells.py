"""The mirror of the cache against a plain model of it: each cell with the set of its owners."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from local_runtime.engines.llama.cells import Cells, Path, cells_of, length_of


class Machine(RuleBasedStateMachine):
    """``owned`` maps a sequence to its cells, as ids, in order of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = Cells()
        self.paths: dict[int, Path] = {}
        self.owned: dict[int, list[int]] = {}
        self.next_sequence = self.next_cell = 0

    sequences = Bundle("sequences")

    @rule(target=sequences)
    def begin(self) -> int:
        return self._new(None, [])

    @rule(sequence=sequences, count=st.integers(0, 9))
    def extend(self, sequence: int, count: int) -> None:
        self.paths[sequence] = self.cells.extend(self.paths[sequence], count)
        self.owned[sequence] += range(self.next_cell, self.next_cell + count)
        self.next_cell += count

    @rule(target=sequences, sequence=sequences, part=st.floats(0, 1))
    def fork(self, sequence: int, part: float) -> int:
        length = round(part * len(self.owned[sequence]))
        path = self.cells.fork(self.paths[sequence], length)
        return self._new(path, self.owned[sequence][:length])

    @rule(sequence=sequences, part=st.floats(0, 1))
    def truncate(self, sequence: int, part: float) -> None:
        length = round(part * len(self.owned[sequence]))
        self.paths[sequence] = self.cells.truncate(self.paths[sequence], length)
        del self.owned[sequence][length:]

    @rule(sequence=consumes(sequences))
    def release(self, sequence: int) -> None:
        self.cells.release(self.paths.pop(sequence))
        del self.owned[sequence]

    def _new(self, path: Path, owned: list[int]) -> int:
        self.next_sequence += 1
        self.paths[self.next_sequence] = path
        self.owned[self.next_sequence] = list(owned)
        return self.next_sequence

    @invariant()
    def counts_agree(self) -> None:
        assert self.cells.used == len({cell for cells in self.owned.values() for cell in cells})
        assert cells_of(self.paths.values()) == self.cells.used
        for sequence, path in self.paths.items():
            assert length_of(path) == len(self.owned[sequence])

    @invariant()
    def any_two_agree(self) -> None:
        some = list(self.paths)[:4]
        together = {cell for each in some for cell in self.owned[each]}
        assert cells_of(self.paths[each] for each in some) == len(together)


TestCells = Machine.TestCase
TestCells.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
