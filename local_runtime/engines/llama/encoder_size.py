"""How much memory an encoder will take on the host, told from its header before it is loaded."""

from local_runtime.engines.llama.cache_types import CACHE_TYPES
from local_runtime.engines.llama.footprint import PROCESS_BYTES
from local_runtime.engines.llama.shape import cell_bytes, shape_of
from local_runtime.kinds import only_encodes, reads_in_parts
from local_runtime.store.gguf import GgufHeader

BATCH_TOKENS = 512
"""What a batch usually holds; a longer text that must be seen whole gets a longer one."""

_BYTES_PER_VALUE = 4


def encoder_bytes(header: GgufHeader, context_length: int) -> int:
    """The most that it takes, once it has read a text of ``context_length`` tokens: weights, the
    cache of a model that has one, and for each token of a batch the attention mask, the vectors of
    a layer, and what llama.cpp keeps of the output, a row as wide as the vocabulary.
    """
    shape = shape_of(header)
    room = batch_room(header, context_length)
    cells = room + (context_length if reads_in_parts(header) else 0)
    values = CACHE_TYPES["f16"]
    cell = 0 if only_encodes(header) else cell_bytes(shape.layers, values, values, flash=True)
    layer = 3 * shape.feed_forward_length + 4 * shape.embedding_length
    outputs = shape.vocab_size + shape.embedding_length
    token = cells * shape.attention_bytes(flash=True) + _BYTES_PER_VALUE * (layer + outputs)
    return shape.weight_bytes + cell * cells + room * token + PROCESS_BYTES


def batch_room(header: GgufHeader, context_length: int) -> int:
    """Tokens of the longest batch."""
    return BATCH_TOKENS if reads_in_parts(header) else max(BATCH_TOKENS, context_length)
