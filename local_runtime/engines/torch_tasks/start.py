"""The first step towards a torch engine: what has to be so before torch is imported."""

import os
from typing import TYPE_CHECKING

from local_runtime.engines.contract import EngineLoadError

if TYPE_CHECKING:
    from local_runtime.engines.torch_tasks.engine import TorchEncoder


def fresh_engine() -> "TorchEncoder":
    """Nothing loaded; torch is imported by this. Raises EngineLoadError where it does not run.

    torch's threads wait for each other many times in each step, by spinning. Where something else
    wants a core, the one that is waited for does not get it: beside one busy process a text of 20
    tokens took 115 ms on two cores, and 18 ms where those that wait sleep, which costs a tenth
    where nobody else is busy. Torch's OpenMP library reads this once, when it is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from local_runtime.engines.torch_tasks.engine import TorchEncoder
    except (ImportError, OSError, RuntimeError) as error:
        # A library of it is missing, or what it wants of the system, such as /dev/urandom.
        raise EngineLoadError(f"torch does not run on this system: {error}") from error
    return TorchEncoder()
