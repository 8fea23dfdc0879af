"""What a model asks of its machine, and what loading it has taken."""

import msgspec


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a model asks of the machine. ``memory_bytes`` is a guess until it was loaded once;
    ``size_bytes`` is the length of its files. ``keep``: it never leaves for others or by itself.
    ``keep_alive_s``: how long it stays without a call, 0 for ever.
    """

    memory_bytes: int = 0
    size_bytes: int = 0
    keep: bool = False
    keep_alive_s: float = 0.0


class Loads(msgspec.Struct):
    """The loads there were: how many, and how long they took in all. ``out_of_memory`` is how often
    the engine ended, or was not loaded, because it got no more memory.
    """

    count: int = 0
    total_ms: int = 0
    out_of_memory: int = 0
