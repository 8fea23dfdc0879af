"""Usage × price → nano-USD, exactly: integers all the way and one ceil at the end (I16). Pure.

Token prices are nano-USD per 10^6 tokens, images and characters likewise; compute is nano-USD per
second and measured in nanoseconds, sound and video per second and in milliseconds. So every product
is a whole number of 10^-9 nano-USD, and only the sum is rounded.
"""

from plugins.contract import Price, Usage

_PER_NANO_USD = 10**9
_PER_TOKEN_UNIT = 1_000  # 10^-9 nano-USD in a millionth of a nano-USD
_PER_MS_UNIT = 1_000_000  # 10^-9 nano-USD in a thousandth of a nano-USD


def rate(usage: Usage, price: Price) -> int:
    """What a call cost in nano-USD: the provider's own bill where that is what the price says.

    ``0 <= rate - exact < 1``. The price per request is due as soon as anything was used at all.
    Raises ValueError for a negative quantity. A negative bill is no bill. A free offer costs
    nothing, whatever was used.
    """
    _check_usage(usage)
    if price.free:
        return 0
    if price.as_billed and usage.cost_nano_usd is not None and usage.cost_nano_usd >= 0:
        return usage.cost_nano_usd
    units = (
        usage.input_tokens * price.input
        + usage.cache_read_tokens * _or(price.cache_read, price.input)
        + usage.cache_write_tokens * _or(price.cache_write, price.input)
        + usage.audio_input_tokens * _or(price.audio_input, price.input)
        + usage.output_tokens * price.output
        + usage.reasoning_tokens * _or(price.reasoning, price.output)
        + usage.audio_output_tokens * _or(price.audio_output, price.output)
    )
    cost = _sum(units, usage, price)
    return cost + price.per_request if is_anything(usage) else cost


def is_anything(usage: Usage) -> bool:
    """Whether any quantity was used at all."""
    return bool(
        usage.input_tokens
        or usage.output_tokens
        or usage.cache_read_tokens
        or usage.cache_write_tokens
        or usage.audio_input_tokens
        or usage.reasoning_tokens
        or usage.audio_output_tokens
        or usage.images
        or usage.characters
        or usage.audio_ms
        or usage.video_ms
        or usage.compute_ns
    )


def ceiling(
    price: Price, input_tokens_max: int, output_tokens_max: int, compute_ns_max: int
) -> int:
    """The most that a chat within these bounds can cost in nano-USD, whatever buckets it fills.

    The same as ``ceiling_of`` a usage of these three. A provider's own bill knows no bounds; where
    it is charged, this is what is set aside for it.
    """
    if input_tokens_max < 0 or output_tokens_max < 0 or compute_ns_max < 0:
        raise ValueError("a quantity is negative")
    if price.free:
        return 0
    units = input_tokens_max * dearest_input(price) + output_tokens_max * dearest_output(price)
    return price.per_request + _ceil(
        units * _PER_TOKEN_UNIT + compute_ns_max * price.compute_per_second
    )


def ceiling_of(usage_max: Usage, price: Price) -> int:
    """The most that a call can cost in nano-USD that uses ``usage_max`` or less.

    Less is: in each quantity no more, except that tokens may lie in other buckets of the same side,
    in the dearest if need be; only the sums of those read and of those made are bounds.
    """
    _check_usage(usage_max)
    if price.free:
        return 0
    read = (
        usage_max.input_tokens
        + usage_max.cache_read_tokens
        + usage_max.cache_write_tokens
        + usage_max.audio_input_tokens
    )
    made = usage_max.output_tokens + usage_max.reasoning_tokens + usage_max.audio_output_tokens
    units = read * dearest_input(price) + made * dearest_output(price)
    return price.per_request + _sum(units, usage_max, price)


def affordable_output_tokens(
    price: Price, amount_nano_usd: int, input_tokens_max: int
) -> int | None:
    """The most output tokens with ``ceiling(price, input_tokens_max, it, 0) <= amount_nano_usd``.

    0 where not even the input is covered, None where output is not what costs.
    """
    per_token = dearest_output(price)
    if price.free or per_token == 0:
        return None
    left = (amount_nano_usd - price.per_request) * _PER_NANO_USD // _PER_TOKEN_UNIT
    left -= input_tokens_max * dearest_input(price)
    return max(left // per_token, 0)


def affordable_compute_ns(price: Price, amount_nano_usd: int) -> int | None:
    """The most compute with ``ceiling(price, 0, 0, it) <= amount_nano_usd``; None where free.

    0 where not even the price per request is covered.
    """
    if price.free or price.compute_per_second == 0:
        return None
    left = (amount_nano_usd - price.per_request) * _PER_NANO_USD
    return max(left // price.compute_per_second, 0)


def dearest_input(price: Price) -> int:
    """The price of a prompt token in its dearest bucket."""
    return max(price.input, price.cache_read or 0, price.cache_write or 0, price.audio_input or 0)


def dearest_output(price: Price) -> int:
    """The price of a generated token in its dearest bucket."""
    return max(price.output, price.reasoning or 0, price.audio_output or 0)


def is_missing(price: Price) -> bool:
    """Whether nothing in it costs anything although it is not free: then nobody set a price."""
    return not price.free and not (
        price.per_request
        or price.image
        or price.character
        or price.audio_second
        or price.video_second
        or price.compute_per_second
        or dearest_input(price)
        or dearest_output(price)
    )


def _sum(token_units: int, usage: Usage, price: Price) -> int:
    """Tokens at millionths of a nano-USD, and whatever else was used: nano-USD, rounded up."""
    units = token_units + usage.images * price.image + usage.characters * price.character
    ms_units = usage.audio_ms * price.audio_second + usage.video_ms * price.video_second
    return _ceil(
        units * _PER_TOKEN_UNIT
        + ms_units * _PER_MS_UNIT
        + usage.compute_ns * price.compute_per_second
    )


def _ceil(amount: int) -> int:
    return -(-amount // _PER_NANO_USD)


def _or(own: int | None, fallback: int) -> int:
    return fallback if own is None else own


def _check_usage(usage: Usage) -> None:
    least = min(
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.audio_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.audio_output_tokens,
        usage.images,
        usage.characters,
        usage.audio_ms,
        usage.video_ms,
        usage.compute_ns,
    )
    if least < 0:
        raise ValueError("a quantity is negative")
