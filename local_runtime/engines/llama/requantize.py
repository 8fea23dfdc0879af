"""Another layout of the same weights, and how fast a layout is here. Runs in a child of its own.

Only some layouts have kernels for the matrix units of a processor: measured, Q4_0 made from Q4_1
doubled what 16 streams get. Which one it is depends on the machine, so it is measured.
"""

import ctypes
import json
import re
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.engines.llama import native, sizing
from local_runtime.store.gguf import read_header

# llama.h, enum llama_ftype.
LAYOUTS = {"Q4_0": 2, "Q8_0": 7, "Q5_0": 8, "Q4_K_M": 15, "Q6_K": 18, "IQ4_NL": 25}
STREAMS = 16
_PROMPT_TOKENS = 192
_STEPS = 8
_TRIES = 4
_CONTEXT = 1024
_COUNTER = re.compile(rb"\[\s*(\d+)/\s*(\d+)\]")
_SAMPLE = """The town lies where the river bends, between the old mill and the railway. In spring
the meadows are under water for weeks, and the children row to school. Nobody minds: the bakery
opens at six, the post comes by boat, and whoever is late says that the current was strong. In
1874 a bridge was built, of stone, with three arches; two of them are still there. The third was
blown up in the war and replaced by iron. If you stand in the middle of it at night you can hear
both halves of the town: the dogs on one side, the music on the other. def area(width, height):
return width * height. The sum of two and three is five, and the square of twelve is one hundred
and forty-four."""


def answer(order: dict[str, Any]) -> int:
    """Do what ``fitting.py`` asks; progress and the result are lines of JSON on standard output."""
    native.start_backend(order.get("processor_library", ""))
    try:
        if order["do"] == "requantise":
            _requantise(order["source"], order["target"], order["layout"], order["threads"])
        else:
            _say(result=_measured(order["path"]))
    except (EngineLoadError, OSError, RuntimeError) as error:
        _say(error=str(error))
        return 1
    return 0


def _say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def _requantise(source: str, target: str, layout: str, threads: int) -> None:
    """Write ``target``. Raises RuntimeError when llama.cpp refuses."""
    last = ""

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes function type
    def watch(level: int, text: bytes, _user_data: Any) -> None:
        nonlocal last
        if found := _COUNTER.search(text):
            _say(done=int(found[1]), total=int(found[2]))
        elif level >= native.GGML_ERROR:
            last = text.decode("utf-8", "replace").strip()

    llama_cpp.llama_log_set(watch, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = LAYOUTS[layout], threads, True
    status = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    native.start_backend()
    if status:
        raise RuntimeError(f"llama.cpp cannot make {layout} of this model: {last or 'no reason'}")


def _measured(path: str) -> dict[str, object]:
    """Tokens per second of a prompt, of one stream and of STREAMS; and what it says after each
    token of a sample text, to see how far layouts agree.
    """
    size = sizing.size_of(
        read_header(Path(path)),
        EngineSpec(engine="llama", path=path, sequences_max=STREAMS, gpu_layers=0),
    )
    size = type(size)(
        context_length=_CONTEXT,
        cells=_CONTEXT,
        threads=size.threads,
        flash_attn_type=size.flash_attn_type,
    )
    model = native.Model(path, lambda _fraction: None)
    context = native.Context(model, size, sequences=STREAMS)
    tokens = model.tokenize(_SAMPLE, add_special=True, parse_special=False)[:_PROMPT_TOKENS]
    prompt = (tokens * (_PROMPT_TOKENS // len(tokens) + 1))[:_PROMPT_TOKENS]
    _run(context, [(prompt[:32], 0, 0)])  # the first computation also reads the file
    threads = _fastest(context, size.threads, prompt[0])
    context.use_threads(threads)
    context.forget(0)
    prompt_s = _run(context, [(prompt, 0, 0)])
    context.forget(0)
    said = _said(context, tokens)
    context.forget(0)
    found = {"prompt": len(prompt) / prompt_s, "threads": threads}
    for name, streams in (("one", 1), ("many", STREAMS)):
        walls = [
            _run(context, [([prompt[step]], step, stream) for stream in range(streams)])
            for step in range(_STEPS)
        ]
        found[name] = streams / float(np.median(walls))
        for stream in range(streams):
            context.forget(stream)
    context.close()
    model.close()
    return {**found, "said": said}


def _fastest(context: native.Context, counts: list[int], token: int) -> int:
    """How many threads are best while others use the processor too: all of them wait for the
    slowest.
    """
    walls = {}
    for number, count in enumerate(counts):
        context.use_threads(count)
        position = 32 + _TRIES * number
        walls[count] = sum(_run(context, [([token], position + step, 0)]) for step in range(_TRIES))
    return min(walls, key=lambda count: walls[count])


def _run(context: native.Context, parts: list[tuple[list[int], int, int]]) -> float:
    """Seconds that one batch takes; parts are tokens, position and sequence."""
    for tokens, position, sequence in parts:
        context.add(tokens, position, sequence, outputs=1)
    begun = time.perf_counter()
    if context.decode() != 0:
        raise RuntimeError("the model cannot be computed")
    return time.perf_counter() - begun


def _said(context: native.Context, tokens: list[int]) -> list[int]:
    """The likeliest token after each of the sample's."""
    last = context.add(tokens, 0, 0, outputs=len(tokens))
    if context.decode() != 0:
        raise RuntimeError("the model cannot be computed")
    first = last - len(tokens) + 1
    rows: list[NDArray[np.float32]] = [context.logits(first + at) for at in range(len(tokens))]
    return [int(row.argmax()) for row in rows]
