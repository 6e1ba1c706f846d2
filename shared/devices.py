"""What the device is that models run on, and how much of its memory is taken."""

from __future__ import annotations

from typing import Any


def describe(device: str, visible: str | None = None) -> dict[str, str | int]:
    """`device` by its setting's name; of a GPU also its product name and its memory, `total_bytes` and `used_bytes` of
    all processes, where NVIDIA's management library tells. Never raises.

    `visible` is CUDA_VISIBLE_DEVICES as the process was started with it: CUDA counts those devices only, the library
    counts all. Both count in PCI order where CUDA_DEVICE_ORDER says so, or where all are of one kind.
    """
    known: dict[str, str | int] = {"device": device}
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return known
    try:
        import pynvml
    except ImportError:
        return known
    try:
        return known | _told(pynvml, _nvml_name(int(index or 0), visible))
    except (pynvml.NVMLError, LookupError, ValueError, OSError):
        return known


def _nvml_name(index: int, visible: str | None) -> int | str:
    """CUDA's device `index` as the library knows it: by number, or by UUID where the process was given that."""
    if not visible:
        return index
    name = visible.split(",")[index].strip()
    return int(name) if name.isdigit() else name


def _told(library: Any, name: int | str) -> dict[str, str | int]:
    """What the library tells. It is opened and closed each time, so that nothing is kept."""
    library.nvmlInit()
    try:
        if isinstance(name, int):
            handle = library.nvmlDeviceGetHandleByIndex(name)
        else:
            handle = library.nvmlDeviceGetHandleByUUID(name)
        memory = library.nvmlDeviceGetMemoryInfo(handle)
        product = library.nvmlDeviceGetName(handle)
        return {"name": str(product), "total_bytes": int(memory.total), "used_bytes": int(memory.used)}
    finally:
        library.nvmlShutdown()
