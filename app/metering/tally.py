"""Counts since the process started, for ``/metrics``. Plain integers: they are on the hot path."""

from collections import Counter

from app.histogram import Histogram
from app.ledger.entries import UsageRow

# Upper bounds in milliseconds; the last bucket is everything.
LATENCY_BUCKETS_MS = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)

Series = tuple[str, str]  # (provider, model)


class Tally:
    """What ended calls added up to. One event loop writes it; no lock is needed.

    ``refused`` counts requests that got an error for an answer, by its status and code.
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.tokens: Counter[tuple[str, str, str]] = Counter()
        self.cost_nano_usd: Counter[Series] = Counter()
        self.compute_ns: Counter[Series] = Counter()
        self.failed_attempts: Counter[tuple[str, str]] = Counter()
        self.latency: dict[Series, Histogram] = {}
        self.first_token: dict[Series, Histogram] = {}

    def ended(self, row: UsageRow, cost_nano_usd: int) -> None:
        """Count one call that was dispatched, however it ended."""
        series = (row.provider, row.model)
        self.calls[(row.provider, row.model, row.outcome)] += 1
        self.tokens[(row.provider, row.model, "input")] += row.input_tokens
        self.tokens[(row.provider, row.model, "output")] += row.output_tokens
        self.cost_nano_usd[series] += cost_nano_usd
        if row.compute_ns:
            self.compute_ns[series] += row.compute_ns
        self._histogram(self.latency, series).add(row.latency_ms)
        if row.first_token_ms is not None:
            self._histogram(self.first_token, series).add(row.first_token_ms)

    @staticmethod
    def _histogram(by: dict[Series, Histogram], series: Series) -> Histogram:
        found = by.get(series)
        if found is None:
            found = by[series] = Histogram(LATENCY_BUCKETS_MS)
        return found
