"""Usage × price → nano-USD, exactly: integers all the way and one ceil at the end (I16). Pure.

Token prices are nano-USD per 10^6 tokens, compute is nano-USD per second and measured in
nanoseconds; so every product is a whole number of 10^-9 nano-USD, and only the sum is rounded.
"""

from plugins.contract import Price, Usage

_PER_NANO_USD = 10**9
_PER_TOKEN_UNIT = 1_000  # 10^-9 nano-USD in a millionth of a nano-USD


def rate(usage: Usage, price: Price) -> int:
    """What a call cost in nano-USD: the provider's own bill where it sent one.

    ``0 <= rate - exact < 1``. Raises ValueError for a negative quantity. A negative bill is no
    bill. A free offer costs nothing, whatever was used.
    """
    _check(usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    _check(usage.output_tokens, usage.reasoning_tokens, usage.compute_ns)
    if price.free:
        return 0
    if usage.cost_nano_usd is not None and usage.cost_nano_usd >= 0:
        return usage.cost_nano_usd
    tokens = (
        usage.input_tokens * price.input
        + usage.cache_read_tokens * _or(price.cache_read, price.input)
        + usage.cache_write_tokens * _or(price.cache_write, price.input)
        + usage.output_tokens * price.output
        + usage.reasoning_tokens * _or(price.reasoning, price.output)
    )
    return _ceil(tokens * _PER_TOKEN_UNIT + usage.compute_ns * price.compute_per_second)


def ceiling(
    price: Price, input_tokens_max: int, output_tokens_max: int, compute_ns_max: int
) -> int:
    """The most that a call within these bounds can cost in nano-USD, whatever buckets it fills."""
    _check(input_tokens_max, output_tokens_max, compute_ns_max)
    if price.free:
        return 0
    tokens = input_tokens_max * dearest_input(price) + output_tokens_max * dearest_output(price)
    return _ceil(tokens * _PER_TOKEN_UNIT + compute_ns_max * price.compute_per_second)


def affordable_output_tokens(
    price: Price, amount_nano_usd: int, input_tokens_max: int
) -> int | None:
    """The most output tokens with ``ceiling(price, input_tokens_max, it, 0) <= amount_nano_usd``.

    0 where not even the input is covered, None where output is not what costs.
    """
    per_token = dearest_output(price)
    if price.free or per_token == 0:
        return None
    left = amount_nano_usd * _PER_NANO_USD // _PER_TOKEN_UNIT
    left -= input_tokens_max * dearest_input(price)
    return max(left // per_token, 0)


def affordable_compute_ns(price: Price, amount_nano_usd: int) -> int | None:
    """The most compute with ``ceiling(price, 0, 0, it) <= amount_nano_usd``; None where free."""
    if price.free or price.compute_per_second == 0:
        return None
    return amount_nano_usd * _PER_NANO_USD // price.compute_per_second


def dearest_input(price: Price) -> int:
    """The price of a prompt token in its dearest bucket."""
    return max(price.input, price.cache_read or 0, price.cache_write or 0)


def dearest_output(price: Price) -> int:
    """The price of a generated token in its dearest bucket."""
    return max(price.output, price.reasoning or 0)


def _ceil(amount: int) -> int:
    return -(-amount // _PER_NANO_USD)


def _or(own: int | None, fallback: int) -> int:
    return fallback if own is None else own


def _check(*quantities: int) -> None:
    if min(quantities) < 0:
        raise ValueError("a quantity is negative")
