"""NVIDIA's management library, by pynvml where that is installed; nothing else of the agent touches it.

The library object is handed in, so that a fake stands for it in tests. An error of it is "not told", never a zero.
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple

from worker.gpu.device import Gpu


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


class Health:
    """Looks after devices: which is not to be used any more, and why. Each is told once."""

    def __init__(self, nvml: Any, ids: Sequence[str]) -> None:
        self._nvml = nvml
        self._errors: Dict[str, Optional[int]] = {}  # uncorrectable ones since the driver came up, at the first look
        for each in ids:
            if self._handle(each) is not None:  # what NVML does not know it cannot look after
                self._errors[each] = self._uncorrectable(each)

    def look(self) -> List[Tuple[str, str]]:
        found = [(each, self._trouble(each, before)) for each, before in self._errors.items()]
        out = [(each, text) for each, text in found if text]
        for each, _ in out:
            del self._errors[each]
        return out

    def _trouble(self, each: str, before: Optional[int]) -> str:
        if self._handle(each) is None:
            return "the driver does not find it any more"
        now = self._uncorrectable(each)
        if now is not None and before is not None and now > before:
            return "%d uncorrectable memory errors (ECC) since this worker began" % (now - before)
        return ""

    def _handle(self, each: str) -> Any:
        try:
            return self._nvml.nvmlDeviceGetHandleByUUID(each.encode())
        except self._nvml.NVMLError:
            return None

    def _uncorrectable(self, each: str) -> Optional[int]:
        nvml = self._nvml
        try:
            kind, since = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            return int(nvml.nvmlDeviceGetTotalEccErrors(self._handle(each), kind, since))
        except nvml.NVMLError:
            return None  # a GPU without such memory, or a slice
