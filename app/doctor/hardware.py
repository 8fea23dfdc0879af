"""Processor, memory and accelerators, and whether llama.cpp's code runs here."""

import os
import tempfile
from pathlib import Path

from app.doctor.finding import Finding, Teller, gib
from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.llama.libraries import accelerators, library_folder
from local_runtime.engines.llama.variants import choose, processor_name
from local_runtime.engines.threads import usable_cores
from local_runtime.lifecycle.memory import available_bytes, budget_bytes

_MEMORY_LOW = 1 << 30
_DEVICES = ("nvidia0", "kfd", "dri/renderD128")
_tell = Teller("hardware")


def check_hardware(*, needed: bool) -> list[Finding]:
    """``needed``: whether a model here is to run on llama.cpp. Runs it in a child, for a moment."""
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    of = "" if cores == all_cores else f" of {all_cores}"
    found = [
        _tell.ok("hardware.processor", f"{cores}{of} cores of {processor_name()}"),
        of_memory(available_bytes()),
        _variant(needed=needed),
    ]
    return [*found, *of_accelerators(devices(), [path.name for path in accelerators()])]


def of_memory(available: int | None) -> Finding:
    """``available``: bytes that are free, within the limits of control groups."""
    if available is None:
        return _tell.ok("hardware.memory", "the system does not say how much memory is free")
    text = f"{gib(available)} of memory free, {gib(budget_bytes(available))} of it for models"
    if available >= _MEMORY_LOW:
        return _tell.ok("hardware.memory", text)
    return _tell.warning(
        "hardware.memory_low",
        text,
        "End what takes it (ps aux --sort -rss | head), or give the machine or its control group"
        " more",
    )


def _variant(*, needed: bool) -> Finding:
    if library_folder() is None:
        text = "llama-cpp-python is not installed"
        if not needed:
            return _tell.ok("hardware.engine_none", f"{text}, and no model here needs it")
        return _tell.problem("hardware.engine_none", text, "make setup")
    with tempfile.TemporaryDirectory() as folder:  # asked anew: no answer of an earlier day
        try:
            path = choose(cache=Path(folder) / "answers.json")
        except EngineLoadError as error:
            told = _tell.problem if needed else _tell.warning
            return told("hardware.engine", str(error), "make portable")
    name = Path(path).name if path else "the one that is built in"
    return _tell.ok("hardware.engine", f"llama.cpp runs here, in a child; its code: {name}")


def devices(root: Path = Path("/dev")) -> list[str]:
    """Graphics cards and the like that the system shows to this process."""
    return [f"{root}/{name}" for name in _DEVICES if (root / name).exists()]


def of_accelerators(found: list[str], backends: list[str]) -> list[Finding]:
    """``found`` devices, and llama.cpp's ``backends`` for such."""
    if not found:
        return [_tell.ok("hardware.accelerator", "no accelerator: models run on the processor")]
    shown = ", ".join(found)
    if backends:
        return [_tell.ok("hardware.accelerator", f"{shown}, with {', '.join(backends)}")]
    return [
        _tell.warning(
            "hardware.accelerator_unused",
            f"there is {shown}, and this build of llama.cpp runs on the processor only",
            "Take a binary for graphics cards (`make binary ACCELERATOR=vulkan`), or leave it as it"
            " is: models run without",
        )
    ]
