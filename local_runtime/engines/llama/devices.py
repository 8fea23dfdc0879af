"""What memory there is: measured, on the host and on accelerators.

Devices are asked through llama.cpp's own library (``ggml_backend_dev_memory``), so what is counted
is what the engine would really use. A build for the processor alone has none.
"""

import ctypes
from typing import Any

import msgspec

from local_runtime.engines.llama.backends import ggml
from local_runtime.engines.llama.sizing import Free
from local_runtime.lifecycle.memory import available_bytes, memory_now

_KINDS = {1: "gpu", 2: "igpu"}  # ggml-backend.h, enum ggml_backend_dev_type
_LEFT_ALONE_BYTES = 512 * 1024 * 1024  # the driver's own, and what fragments
_LEFT_ALONE_SHARE = 0.05


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """An accelerator. An ``igpu`` shares the host's memory."""

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int


def devices() -> list[Device]:
    """All accelerators, in llama.cpp's order. The backends must have been loaded."""
    library = _ggml()
    found = []
    for index in range(library.ggml_backend_dev_count()):
        handle = library.ggml_backend_dev_get(index)
        kind = _KINDS.get(library.ggml_backend_dev_type(handle))
        if kind is None:
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        library.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Device(
                name=library.ggml_backend_dev_name(handle).decode("utf-8", "replace"),
                description=library.ggml_backend_dev_description(handle).decode("utf-8", "replace"),
                kind=kind,
                free_bytes=free.value,
                total_bytes=total.value,
            )
        )
    return found


def usable_bytes(found: list[Device]) -> int:
    """What a model may take of all devices together. Graphics chips in the processor count only
    where there is nothing else, as llama.cpp itself does.
    """
    chosen = [device for device in found if device.kind == "gpu"] or found
    return sum(
        max(
            0,
            device.free_bytes - max(_LEFT_ALONE_BYTES, int(device.total_bytes * _LEFT_ALONE_SHARE)),
        )
        for device in chosen
    )


def free_now() -> Free:
    """What may be taken now."""
    return Free(host_bytes=available_bytes(), device_bytes=usable_bytes(devices()))


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes in use: by this process on the host, by whomever on all accelerators together."""

    host_bytes: int
    device_bytes: int


def taken_now() -> Taken:
    """For a difference: what a load took is what there is after it less what there was before."""
    used = sum(device.total_bytes - device.free_bytes for device in devices())
    return Taken(host_bytes=memory_now(), device_bytes=used)


def _ggml() -> Any:
    library = ggml()
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    pointer_of = library.ggml_backend_dev_get
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    for name, result in (
        ("name", ctypes.c_char_p), ("description", ctypes.c_char_p), ("type", ctypes.c_int),
    ):  # fmt: skip
        function = getattr(library, f"ggml_backend_dev_{name}")
        function.restype, function.argtypes = result, [ctypes.c_void_p]
    size = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size, size]
    library.ggml_backend_dev_memory.restype = None
    return library
