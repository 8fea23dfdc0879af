"""Which cells of the KV cache are in use, and by how many. Pure; mirrors what llama.cpp does.

In a unified cache ``llama_memory_seq_cp`` copies nothing: the cells of a shared beginning belong
to both sequences, and are free when the last one has let go. So how full the cache is cannot be
told by adding up lengths. Here a sequence's cells are a path of runs that end in a leaf; what two
sequences share is a run that both paths go through.
"""

from collections.abc import Iterable


class Run:
    """Consecutive positions from ``start`` on.

    ``users`` counts the sequences that end with it, and the runs that go on behind it.
    """

    __slots__ = ("length", "parent", "start", "users")

    def __init__(self, parent: "Run | None", start: int, length: int, users: int) -> None:
        self.parent = parent
        self.start = start
        self.length = length
        self.users = users

    @property
    def end(self) -> int:
        return self.start + self.length


Path = Run | None
"""The cells of one sequence, by their last run; None: it has no cells."""


def length_of(path: Path) -> int:
    """How many positions, from 0 on, the sequence has cells for."""
    return 0 if path is None else path.end


def cells_of(paths: Iterable[Path]) -> int:
    """Cells that these sequences take together, shared ones counted once."""
    seen: set[int] = set()
    total = 0
    for path in paths:
        run = path
        while run is not None and id(run) not in seen:
            seen.add(id(run))
            total += run.length
            run = run.parent
    return total


class Cells:
    """The whole cache. A path that was given to ``extend``, ``truncate`` or ``release`` is dead."""

    def __init__(self) -> None:
        self.used = 0
        self.shares = True  # False: each sequence has a cache of its own, so that cells are copied

    def extend(self, path: Path, count: int) -> Path:
        """``count`` more cells at the end, the sequence's own."""
        if count <= 0:
            return path
        self.used += count
        if path is not None and path.users == 1:
            path.length += count
            return path
        return Run(path, length_of(path), count, 1)

    def fork(self, path: Path, length: int) -> Path:
        """A second path over the first ``length`` positions; no cell more is used, where cells can
        be shared."""
        return self._upper(path, length) if self.shares else self.extend(None, length)

    def _upper(self, path: Path, length: int) -> Path:
        if length <= 0:
            return None
        assert path is not None and length <= path.end
        run = path
        while run.start >= length:
            assert run.parent is not None
            run = run.parent
        if run.end == length:
            run.users += 1
            return run
        upper = Run(run.parent, run.start, length - run.start, 2)
        run.parent, run.start, run.length = upper, length, run.length - upper.length
        return upper

    def truncate(self, path: Path, length: int) -> Path:
        """Let go of what is behind the first ``length`` positions."""
        if length_of(path) <= length:
            return path
        kept = self._upper(path, length)
        self.release(path)
        return kept

    def release(self, path: Path) -> None:
        """The sequence is gone; so are the cells that only it had."""
        run = path
        while run is not None:
            run.users -= 1
            if run.users:
                return
            self.used -= run.length
            run = run.parent
