"""What steps cost on this machine, measured once a model is loaded."""

import time

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.cost import Forecast
from local_runtime.engines.llama.native import Context, Model

_TOKENS = 32


def calibrate(model: Model, context: Context) -> Forecast:
    """A prompt and one more token: warms the caches up, and gives the first forecast. Raises
    EngineLoadError where that fails."""
    token = min(model.vocab_size - 1, 100)
    walls_ns = []
    for count, position in ((1, 0), (_TOKENS, 1), (1, _TOKENS + 1)):
        context.add([token] * count, position, 0, outputs=1)
        begun_ns = time.monotonic_ns()
        if context.decode() != 0:
            raise EngineLoadError("the model was loaded, but its first computation failed")
        walls_ns.append(time.monotonic_ns() - begun_ns)
    context.forget(0)
    return Forecast(walls_ns[1] // _TOKENS, walls_ns[2])
