"""What a played provider charges, so that its books say an amount for each request.

Worked out here with fractions, by nobody's code but the test's own: a ledger that agrees has not
merely agreed with itself.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Nano-USD per token, per request and per second of compute."""

    input: int = 0
    output: int = 0
    per_request: int = 0
    per_second: int = 0

    def bill(self, input_tokens: int, output_tokens: int, compute_ns: int = 0) -> int:
        """For these quantities, rounded up once; nothing for nothing."""
        if not (input_tokens or output_tokens or compute_ns):
            return 0
        tokens = self.input * input_tokens + self.output * output_tokens + self.per_request
        return ceil(tokens + Fraction(self.per_second * compute_ns, 10**9))

    def toml(self) -> str:
        """The keys of a model that is sold at these rates."""
        if self.per_second:
            return f'price_per_second = "{_usd(self.per_second, 9)}"'
        prices = {
            "input": _usd(self.input, 3),
            "output": _usd(self.output, 3),
            "per_request": _usd(self.per_request, 9),
        }
        return "price = { " + ", ".join(f'{k} = "{v}"' for k, v in prices.items()) + " }"


def _usd(nano_usd: int, places: int) -> str:
    """Exact decimals: a price per token has three of nano-USD to a million."""
    whole, rest = divmod(nano_usd, 10**places)
    return f"{whole}.{rest:0{places}d}"
