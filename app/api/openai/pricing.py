"""A price as the clients of ``GET /v1/models`` read it."""

from plugins.contract import Price

_NANO = 10**9
_MILLION = 10**6


def pricing(price: Price) -> dict[str, float]:
    """USD per million tokens (``input``, ``output``), as the router's clients expect them; what
    else the offer has a price for is under the names of the configuration: other tokens likewise,
    ``image`` per image, ``characters`` per million of them, ``audio_second`` and ``video_second``
    per second heard and made, ``compute_per_second``, and ``per_request``.
    """
    described = {"input": price.input / _NANO, "output": price.output / _NANO}
    if price.compute_per_second:
        described["compute_per_second"] = price.compute_per_second / _NANO
    for name in ("cache_read", "cache_write", "reasoning", "audio_input", "audio_output"):
        own: int | None = getattr(price, name)
        if own is not None:
            described[name] = own / _NANO
    if price.image:
        described["image"] = price.image / _NANO / _MILLION
    for name, figure in (
        ("characters", price.character),
        ("audio_second", price.audio_second),
        ("video_second", price.video_second),
        ("per_request", price.per_request),
    ):
        if figure:
            described[name] = figure / _NANO
    return described
