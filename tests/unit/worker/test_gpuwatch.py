"""GPUs that fail, and GPUs whose memory is not free again, with a stand-in for NVIDIA's library."""

from types import SimpleNamespace
from typing import Any

import pytest

from worker.gpu.memory import LOOK_MS, PATIENCE_MS, SLACK, Memory
from worker.gpu.watch import GpuWatch
from worker.gpu.xids import NO_SLICE, Xids

A, B = "GPU-aaaa", "GPU-bbbb"
MIB = 2**20
HELD = 600 * MIB  # by the driver itself


class NVMLError(Exception):
    pass


class Library:
    """Two GPUs. A handle is a device's name."""

    NVMLError = NVMLError
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC = 1, 0
    nvmlEventTypeXidCriticalError = 8

    def __init__(self) -> None:
        self.used: dict[str, Any] = {A: HELD, B: HELD}
        self.processes: dict[str, Any] = {A: [], B: []}
        self.slices: dict[str, tuple[str, int]] = {}
        self.events: list[Any] = []
        self.registered: list[str] = []
        self.lost: set[str] = set()

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> str:
        name = uuid.decode()
        if name in self.lost or name not in (A, B, *self.slices):
            raise NVMLError("not found")
        return name

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        if self.used[handle] is None:
            raise NVMLError("not supported")
        return SimpleNamespace(used=self.used[handle])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> Any:
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in self.processes[handle]]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> Any:
        raise NVMLError("not supported")

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=0)

    def nvmlDeviceGetTotalEccErrors(self, handle: str, kind: int, since: int) -> int:
        return 0

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:
        if handle not in self.slices:
            raise NVMLError("no slice")
        return self.slices[handle][0]

    def nvmlDeviceGetGpuInstanceId(self, handle: str) -> int:
        return self.slices[handle][1]

    def nvmlEventSetCreate(self) -> str:
        return "set"

    def nvmlDeviceRegisterEvents(self, handle: str, kinds: int, events: str) -> None:
        assert (kinds, events) == (8, "set")
        self.registered.append(handle)

    def nvmlEventSetWait_v2(self, events: str, timeout_ms: int) -> Any:
        assert (events, timeout_ms) == ("set", 0)
        if not self.events:
            raise NVMLError("timeout")
        device, number, part = self.events.pop(0)
        return SimpleNamespace(device=device, eventData=number, gpuInstanceId=part)


# ---------------------------------------------------------------- Xid


def test_an_error_of_the_gpu_takes_it_out() -> None:
    library = Library()
    xids = Xids(library, [A, B])
    assert library.registered == [A, B]
    assert xids.look() == []
    library.events = [(B, 79, NO_SLICE), (B, 48, NO_SLICE), (A, 140, NO_SLICE)]
    assert xids.look() == [
        (B, "the driver reports Xid 79 (the GPU has fallen off the bus)"),
        (A, "the driver reports Xid 140"),
    ]
    assert xids.look() == []


@pytest.mark.parametrize("number", [13, 31, 43, 45, 68, 109])
def test_what_a_program_did_wrong_takes_nothing_out(number: int) -> None:
    library = Library()
    xids = Xids(library, [A, B])
    library.events = [(A, number, NO_SLICE), (A, 95, NO_SLICE)]
    assert [gpu for gpu, _ in xids.look()] == [A], "but the next one is looked at"


def test_of_a_slices_error_its_neighbours_know_nothing() -> None:
    library = Library()
    library.slices = {"MIG-1": (A, 1), "MIG-2": (A, 2)}
    xids = Xids(library, ["MIG-1", "MIG-2", B])
    assert library.registered == [A, B], "each GPU once"
    library.events = [(A, 94, 2)]
    assert [gpu for gpu, _ in xids.look()] == ["MIG-2"]
    library.events = [(A, 79, NO_SLICE)]
    assert [gpu for gpu, _ in xids.look()] == ["MIG-1", "MIG-2"]


def test_events_of_gpus_that_are_not_ours_and_libraries_without_events() -> None:
    library = Library()
    xids = Xids(library, [A, "0"])
    library.events = [(B, 79, NO_SLICE)]
    assert xids.look() == []

    class Old:
        NVMLError = NVMLError

    assert Xids(Old(), [A]).look() == []


# ---------------------------------------------------------------- memory


def test_a_gpu_that_is_free_goes_to_the_next_at_once() -> None:
    library = Library()
    memory = Memory(library, [A, B])
    memory.begin([A], 1000)
    assert memory.due == 1000
    assert memory.look(1000) == ([A], [])
    assert memory.due is None


def test_memory_that_nobody_holds_is_waited_for() -> None:
    library = Library()
    memory = Memory(library, [A, B])
    library.used[A] = HELD + 5000 * MIB
    memory.begin([A, B], 1000)
    assert memory.look(1000) == ([B], [])
    assert memory.due == 1000 + LOOK_MS
    library.used[A] = HELD + SLACK
    assert memory.look(1500) == ([A], [])
    assert memory.due is None


def test_memory_that_never_comes_back_takes_the_gpu_out() -> None:
    library = Library()
    memory = Memory(library, [A])
    library.used[A] = HELD + 5000 * MIB
    memory.begin([A], 1000)
    assert memory.look(1000 + PATIENCE_MS - 1) == ([], [])
    free, ((gpu, text),) = memory.look(1000 + PATIENCE_MS)
    assert (free, gpu) == ([], A)
    assert text == "5000 MiB of its memory are still in use 30 s after its last job, and by no process"
    assert memory.due is None


def test_what_others_run_there_is_not_ours_to_judge() -> None:
    library = Library()
    memory = Memory(library, [A])
    library.used[A] = HELD + 5000 * MIB
    library.processes[A] = [(1, 4000 * MIB), (2, 1000 * MIB)]
    memory.begin([A], 0)
    assert memory.look(0) == ([A], [])
    library.processes[A] = [(1, None)]
    memory.begin([A], 0)
    assert memory.look(0) == ([A], []), "what is not told counts as free"
    library.used[A] = None
    memory.begin([A], 0)
    assert memory.look(0) == ([A], [])


def test_a_worker_that_begins_beside_a_job_learns_later_how_little_can_be_in_use() -> None:
    library = Library()
    library.used[A] = HELD + 9000 * MIB
    memory = Memory(library, [A])
    library.used[A] = HELD
    memory.learn([A])
    library.used[A] = HELD + 9000 * MIB
    memory.begin([A], 0)
    assert memory.look(0) == ([], [])


# ---------------------------------------------------------------- both


def test_a_gpu_is_out_once_whatever_happens_to_it() -> None:
    library = Library()
    watch = GpuWatch(library, [A, B])
    assert watch.troubles() == []
    library.events, library.lost = [(A, 79, NO_SLICE)], {A}
    ((gpu, text),) = watch.troubles()
    assert (gpu, "Xid 79" in text) == (A, True)
    assert watch.troubles() == []
    watch.left([A, B], 0)
    assert watch.due == 0
    assert watch.look(0) == ([A, B], []), "a job had it still, and nobody waits for it"
    assert watch.due is None
    library.events = [(A, 79, NO_SLICE)]
    assert watch.troubles() == []
    assert [row[0] for row in watch.usage()] == [B]


def test_a_gpu_given_up_for_its_memory_is_not_told_again() -> None:
    library = Library()
    watch = GpuWatch(library, [A, B])
    library.used[A] = HELD + 5000 * MIB
    watch.left([A], 0)
    assert watch.due == 0
    assert watch.look(0) == ([], [])
    assert [gpu for gpu, _ in watch.look(PATIENCE_MS)[1]] == [A]
    library.events = [(A, 79, NO_SLICE)]
    assert watch.troubles() == []
