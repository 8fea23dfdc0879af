"""How long loading takes, learned from the loads there were. Kept in memory only."""

_FIRST_BYTES_PER_S = 300e6  # a middling disk; only until something was loaded
_FIRST_S = 1.0  # starting a process, before any byte is read
_WEIGHT = 0.3


class LoadTimes:
    """Shared by all models: one that was never loaded is judged by the others' speed."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._bytes_per_s = _FIRST_BYTES_PER_S

    def took(self, model: str, size_bytes: int, seconds: float) -> None:
        """One load, from its beginning to the first moment in which calls could be answered."""
        before = self._seconds.get(model, seconds)
        self._seconds[model] = before + _WEIGHT * (seconds - before)
        if size_bytes and seconds > _FIRST_S:
            speed = size_bytes / seconds
            self._bytes_per_s += _WEIGHT * (speed - self._bytes_per_s)

    def estimate_s(self, model: str, size_bytes: int) -> float:
        """Seconds that the next load of this model will take."""
        known = self._seconds.get(model)
        return known if known is not None else _FIRST_S + size_bytes / self._bytes_per_s

    def left_s(self, model: str, size_bytes: int, elapsed_s: float, progress: float) -> float:
        """Seconds that a load needs yet which has run for ``elapsed_s`` and done ``progress``
        (0 to 1) of its work."""
        if progress >= 0.05:
            return elapsed_s * (1 - progress) / progress
        return max(0.0, self.estimate_s(model, size_bytes) - elapsed_s)
