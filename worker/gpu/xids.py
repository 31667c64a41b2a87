"""Errors that NVIDIA's driver tells of a GPU by a number (Xid), as events of its management library.

Some are what a program did wrong, and the next one finds a GPU that works; all others take it out. As everywhere the
library object is handed in, and what it does not offer is "not told".
"""

from typing import Any, Dict, List, Sequence, Tuple

# A program's own: a bad instruction or address (13, 31), a time-out of its work (43, 45, 68, 109).
OF_PROGRAMS = (13, 31, 43, 45, 68, 109)
NAMES = {
    48: "uncorrectable memory error",
    63: "memory row remapped",
    64: "memory row could not be remapped",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "its firmware does not answer",
    120: "error of its firmware",
}
MOST = 100  # events at one look
NO_SLICE = 0xFFFFFFFF


class Xids:
    def __init__(self, nvml: Any, ids: Sequence[str]) -> None:
        self._nvml = nvml
        self._cannot = (nvml.NVMLError, AttributeError)  # the latter: of an older pynvml
        self._of: Dict[str, List[Tuple[str, int]]] = {}  # whole GPU → (what is given out of it, its slice)
        self._set: Any = None
        try:
            self._set = nvml.nvmlEventSetCreate()
        except self._cannot:
            return
        for each in ids:
            self._register(each)

    def _register(self, each: str) -> None:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(each.encode())
            whole, part = self._whole(handle)
            name = _text(nvml.nvmlDeviceGetUUID(whole))
            if name not in self._of:
                nvml.nvmlDeviceRegisterEvents(whole, nvml.nvmlEventTypeXidCriticalError, self._set)
            self._of.setdefault(name, []).append((each, part))
        except self._cannot:
            pass  # a GPU that tells nothing

    def _whole(self, handle: Any) -> Tuple[Any, int]:
        try:
            whole = self._nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
            return whole, int(self._nvml.nvmlDeviceGetGpuInstanceId(handle))
        except self._cannot:
            return handle, NO_SLICE

    def look(self) -> List[Tuple[str, str]]:
        """Those that are not to be used any more, and why."""
        out: Dict[str, str] = {}
        for _ in range(MOST if self._of else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                number, name = int(event.eventData), _text(self._nvml.nvmlDeviceGetUUID(event.device))
            except self._cannot:
                break  # there is no further one
            if number not in OF_PROGRAMS:
                for each in self._hit(name, getattr(event, "gpuInstanceId", NO_SLICE)):
                    out.setdefault(each, "the driver reports Xid %d%s" % (number, _in_words(number)))
        return list(out.items())

    def _hit(self, name: str, part: int) -> List[str]:
        """Of a slice's error the others know nothing."""
        return [each for each, its in self._of.get(name, ()) if NO_SLICE in (part, its) or its == part]


def _in_words(number: int) -> str:
    return " (%s)" % NAMES[number] if number in NAMES else ""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
