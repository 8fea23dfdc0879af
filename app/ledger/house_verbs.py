"""What the house spends on its own account: a verb on the ledger's image.

A probe has no payer, no hold and no usage row. What it used stands in ``probe_costs``, what it cost
in the journal, written together.
"""

from app.clock import period_of
from app.errors import Conflict
from app.ledger.accounts import EntryKind, HouseAccount
from app.ledger.checks import INT64_MAX, MOMENT_MS_MAX, check_cost
from app.ledger.entries import ProbeRow
from app.ledger.image import LedgerImage

SUBJECT_PREFIX = "probe/"


class HouseVerbs:
    """Implements the house's verbs of ``LedgerStore``."""

    def __init__(self, image: LedgerImage) -> None:
        self._image = image

    def book_probe(self, probe_id: str, row: ProbeRow, cost_nano_usd: int) -> None:
        """See ``LedgerStore.book_probe``. Raises ValueError for what no row could hold."""
        check_cost(cost_nano_usd)
        _check_row(probe_id, row)
        if not cost_nano_usd:
            return
        image = self._image
        booked = image.ask("SELECT cost_nano_usd FROM probe_costs WHERE probe_id = ?", (probe_id,))
        if booked:
            if booked[0][0] != cost_nano_usd:
                raise Conflict(f"The probe {probe_id!r} was booked with another amount.")
            return
        image.ask(
            "INSERT INTO probe_costs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                probe_id,
                row.at_ms,
                row.provider,
                row.model,
                row.calls,
                row.input_tokens,
                row.output_tokens,
                cost_nano_usd,
            ),
        )
        image.journal.enter(
            EntryKind.PROBE,
            period_of(row.at_ms),
            SUBJECT_PREFIX + probe_id,
            HouseAccount.PROBES,
            HouseAccount.COGS,
            cost_nano_usd,
        )


def _check_row(probe_id: str, row: ProbeRow) -> None:
    (probe_id + row.provider + row.model).encode()  # lone surrogates are str, but not Unicode
    if not probe_id:
        raise ValueError("a probe needs an id")
    if not 0 <= row.at_ms <= MOMENT_MS_MAX:
        raise ValueError("a probe's time is out of range")
    for number in (row.at_ms, row.calls, row.input_tokens, row.output_tokens):
        if type(number) is not int or not 0 <= number <= INT64_MAX:
            raise ValueError("a number is negative, not whole, or does not fit 64 bits")
