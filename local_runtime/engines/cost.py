"""What a step costs, and who pays for it. Pure: integers in, integers out."""

from collections import deque
from collections.abc import Sequence

_REMEMBERED_STEPS = 8
_MARGIN_PERCENT = 150
# Tokens of a prompt that are read at a time for what each costs to say what more of them would.
PORTION_TOKENS = 64


def share(total_ns: int, weights: Sequence[int]) -> list[int]:
    """Split ``total_ns`` by ``weights`` (positive) into whole nanoseconds that sum to it exactly.

    Each prefix of the list gets its exact part rounded down, so nobody is off by more than 1 ns.
    """
    whole = sum(weights)
    shares: list[int] = []
    given = seen = 0
    for weight in weights:
        seen += weight
        upto = total_ns * seen // whole
        shares.append(upto - given)
        given = upto
    return shares


class Forecast:
    """A guess, on the high side, of what the next step costs per token.

    A token of the prompt is read many at once and is cheaper than a generated one, so the two kinds
    of step are remembered apart. Both start from what loading measured.
    """

    def __init__(self, prompt_token_ns: int, output_token_ns: int) -> None:
        self._prompt: deque[int] = deque([max(1, prompt_token_ns)], maxlen=_REMEMBERED_STEPS)
        self._portions: deque[int] = deque(maxlen=_REMEMBERED_STEPS)
        self._output: deque[int] = deque([max(1, output_token_ns)], maxlen=_REMEMBERED_STEPS)

    def observe(self, wall_ns: int, prompt_tokens: int, output_tokens: int) -> None:
        """A step took ``wall_ns`` for so many tokens of each kind."""
        per_token_ns = max(1, wall_ns // (prompt_tokens + output_tokens))
        if prompt_tokens > output_tokens:
            self._prompt.append(per_token_ns)
            if prompt_tokens >= PORTION_TOKENS:
                self._portions.append(per_token_ns)
        elif not prompt_tokens:
            # A batch of one is the dearest per token, and the batch may shrink to one any time.
            self._output.append(wall_ns)

    @property
    def prompt_token_ns(self) -> int:
        """Upper guess for one token of a prompt."""
        return max(self._prompt) * _MARGIN_PERCENT // 100

    @property
    def output_token_ns(self) -> int:
        """Upper guess for one generated token."""
        return max(self._output) * _MARGIN_PERCENT // 100

    def prompt_tokens_within(self, duration_ns: int) -> int:
        """How many tokens of a prompt are likely read in ``duration_ns``, if they are many.

        The plain median. A few at a time cost so much more each that, were they counted, one small
        portion would be the reason for the next.
        """
        known = sorted(self._portions or self._prompt)
        return duration_ns // known[len(known) // 2]
