"""NVIDIA's management library, by pynvml where that is installed; nothing else of the agent touches it.

The library object is handed in, so that a fake stands for it in tests. An error of it is "not told", never a zero.
"""

from typing import Any, List, Optional, Sequence, Tuple

from worker.gpus import Gpu


def library() -> Any:
    """pynvml, ready to be asked; None where there is none, or no driver that it likes."""
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]

        pynvml.nvmlInit()
    except Exception:  # whatever is wrong with it, the worker goes on without
        return None
    return pynvml


def gpus(nvml: Any) -> Optional[List[Gpu]]:
    """In the driver's order, with MIG slices; None when it cannot tell."""
    if nvml is None:
        return None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [
            Gpu(_text(nvml.nvmlDeviceGetUUID(each)), _text(nvml.nvmlDeviceGetName(each)), _slices(nvml, each))
            for each in handles
        ]
    except nvml.NVMLError:
        return None


def _slices(nvml: Any, handle: Any) -> Tuple[Tuple[str, str], ...]:
    try:
        if not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return ()
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        return ()  # a GPU that cannot be divided
    found = []
    for index in range(most):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue  # a place without a slice
        found.append((_text(nvml.nvmlDeviceGetUUID(part)), _text(nvml.nvmlDeviceGetName(part)).split(" MIG ")[-1]))
    return tuple(found)


def usage(nvml: Any, ids: Sequence[str]) -> List[List[Any]]:
    """[id, percent busy, bytes in use] of each that has a UUID; None for what it does not tell."""
    found = []
    for each in ids:
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(each.encode())
        except nvml.NVMLError:
            continue
        found.append([each, _busy(nvml, handle), _memory(nvml, handle)])
    return found


def _busy(nvml: Any, handle: Any) -> Optional[int]:
    try:
        return int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:
        return None  # a slice has none of its own


def _memory(nvml: Any, handle: Any) -> Optional[int]:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
    except nvml.NVMLError:
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
