"""The types that the KV cache may be kept in: how they are called, and what they cost."""

import msgspec


class CacheType(msgspec.Struct, frozen=True):
    """ggml's number of the type, and how many numbers make a block of how many bytes."""

    name: str
    number: int
    block: int
    block_bytes: int

    @property
    def quantised(self) -> bool:
        """Whether numbers are rounded in blocks, which only flash attention can read as values."""
        return self.block > 1

    def bytes_of(self, width: int) -> int:
        """Bytes of so many numbers, a whole number of blocks."""
        return -(-width // self.block) * self.block_bytes


# What llama.cpp's own server offers for --cache-type-k and -v; sizes as in ggml-common.h.
CACHE_TYPES = {
    each.name: each
    for each in (
        CacheType("f32", 0, 1, 4),
        CacheType("f16", 1, 1, 2),
        CacheType("bf16", 30, 1, 2),
        CacheType("q8_0", 8, 32, 34),
        CacheType("q5_1", 7, 32, 24),
        CacheType("q5_0", 6, 32, 22),
        CacheType("q4_1", 3, 32, 20),
        CacheType("q4_0", 2, 32, 18),
        CacheType("iq4_nl", 20, 32, 18),
    )
}
