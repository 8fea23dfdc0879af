"""Before an engine is started: does its code run on this processor, and which build of it?"""

import asyncio
import os
from collections.abc import Sequence

import msgspec

from local_runtime.engines.contract import EngineSpec
from local_runtime.engines.llama.libraries import PROCESSOR_LIBRARY
from local_runtime.engines.llama.variants import choose


async def runnable(
    spec: EngineSpec,
    environment: dict[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> EngineSpec:
    """``spec`` with the build to use. Raises EngineLoadError when none runs on this processor.

    ``command`` starts a worker, in whose ``environment`` it is found out; the answer is kept.
    """
    if not spec.engine.startswith("llama"):
        return spec
    found = dict(os.environ) if environment is None else environment
    library = await asyncio.to_thread(choose, command, environment=found)
    return msgspec.structs.replace(spec, options=spec.options | {PROCESSOR_LIBRARY: library})
