"""GPUs by their UUIDs: from the driver's files, `nvidia-smi -L`, a fake of NVML; MIG slices; Slurm; Kubernetes.

The texts follow what the vendor documents; no real GPU was asked.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from worker.gpu import nvml
from worker.gpu.found import Gpu, identified, parse_list, uuid_of
from worker.keeper.packing import Room
from worker.resources import gpus, slurm_gpus

A, B, C = (f"GPU-{letter * 8}-1111-2222-3333-444455556666" for letter in "abc")
SLICES = ("MIG-11111111-aaaa-bbbb-cccc-dddddddddddd", "MIG-22222222-aaaa-bbbb-cccc-dddddddddddd")
LIST = f"""\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A})
  MIG 1g.5gb      Device  0: (UUID: {SLICES[0]})
  MIG 1g.5gb      Device  1: (UUID: {SLICES[1]})
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {B})
"""
DRIVER = ["0000:01:00.0", "0000:02:00.0"]


def driver_files(*uuids: str) -> Any:
    text = "Model: \t\t NVIDIA H200\nIRQ:   \t\t 1\nGPU UUID: \t {}\n"
    pairs = zip(DRIVER, uuids, strict=True)
    return {f"/proc/driver/nvidia/gpus/{name}/information": text.format(uuid) for name, uuid in pairs}.get


def nothing(folder: str) -> list[str]:
    return []


# ---------------------------------------------------------------- the driver's files


def test_the_drivers_own_uuids_are_taken() -> None:
    assert gpus({}, DRIVER, driver_files(A, B), nothing) == ((A, B), "nvidia-h200")
    assert gpus({"NVIDIA_VISIBLE_DEVICES": "3,5"}, DRIVER, driver_files(A, B), nothing)[0] == (A, B)


def test_a_uuid_that_is_not_known_yet_leaves_all_of_them_numbered() -> None:
    assert uuid_of("GPU UUID: \t GPU-????????-????-????-????-????????????\n") is None
    assert gpus({}, DRIVER, driver_files(A, "GPU-????"), nothing)[0] == ("0", "1")


def test_divided_gpus_are_left_to_the_list() -> None:
    def names(folder: str) -> list[str]:
        return ["gi1", "config"] if folder.endswith("gpu1/mig") else []

    assert gpus({}, DRIVER, driver_files(A, B), names)[0] == ("0", "1")


def test_the_environment_wins() -> None:
    assert gpus({"CUDA_VISIBLE_DEVICES": f"{B},{SLICES[0]}"}, DRIVER, driver_files(A, B), nothing)[0] == (B, SLICES[0])
    assert gpus({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, DRIVER, driver_files(A, B), nothing) == ((), "")
    assert gpus({"NVIDIA_VISIBLE_DEVICES": "void"}, DRIVER, driver_files(A, B), nothing) == ((), "")


def test_a_slurm_job_has_the_gpus_that_it_was_given_and_no_other() -> None:
    job = {"SLURM_JOB_ID": "7"}
    assert gpus(job, DRIVER, driver_files(A, B), nothing) == ((), ""), "it asked for none; the node has two"
    assert gpus({**job, "SLURM_JOB_GPUS": "1"}, DRIVER, driver_files(A, B), nothing)[0] == (B,)
    assert gpus({**job, "SLURM_JOB_GPUS": "0,1", "SLURM_STEP_GPUS": "0"}, DRIVER, driver_files(A, B), nothing)[0] == (
        A,
    )
    assert gpus({**job, "CUDA_VISIBLE_DEVICES": "0"}, DRIVER, driver_files(A, B), nothing)[0] == ("0",)
    assert slurm_gpus({"SLURM_JOB_GPUS": "9"}, [A]) == ("9",), "what cannot be named keeps its number"


# ---------------------------------------------------------------- a list of them


def test_the_list_names_gpus_and_slices() -> None:
    first, second = parse_list(LIST)
    assert first == Gpu(A, "NVIDIA A100-SXM4-40GB", ((SLICES[0], "1g.5gb"), (SLICES[1], "1g.5gb")))
    assert second == Gpu(B, "NVIDIA A100-SXM4-40GB")
    assert parse_list("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == []


def test_numbers_become_uuids_and_slices_count_as_devices() -> None:
    there = parse_list(LIST)
    assert identified(("0",), "x", there, {}) == (SLICES, "nvidia-a100-sxm4-40gb-mig-1g.5gb")
    assert identified(("1",), "x", there, {}) == ((B,), "nvidia-a100-sxm4-40gb")
    assert identified(("1", "0"), "x", there, {})[0] == (B, *SLICES)
    assert identified((), "x", there, {}) == ((), "x")


@pytest.mark.parametrize(("ids", "there"), [((A,), LIST), (("0", "7"), LIST), (("0",), "")])
def test_what_the_list_does_not_tell_stays(ids: tuple[str, ...], there: str) -> None:
    assert identified(ids, "x", parse_list(there), {}) == (ids, "x")


def test_numbers_of_unlike_gpus_mean_two_things_unless_their_order_is_said() -> None:
    there = [Gpu(A, "NVIDIA T4"), Gpu(B, "NVIDIA H200")]
    assert identified(("0",), "x", there, {}) == (("0",), "x")
    assert identified(("0",), "x", there, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == ((A,), "nvidia-t4")


# ---------------------------------------------------------------- NVML


class Trouble(Exception):
    pass


class FakeNvml:
    """As pynvml answers; a handle is the device's record."""

    NVMLError = Trouble

    def __init__(self, *devices: dict[str, Any]) -> None:
        self._devices = devices

    def _told(self, handle: dict[str, Any], name: str) -> Any:
        if handle.get(name) is None:
            raise Trouble(f"{name} is not supported")
        return handle[name]

    def nvmlDeviceGetCount(self) -> int:
        return len(self._devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        return self._devices[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> dict[str, Any]:
        slices = [part for device in self._devices for part in device.get("slices", ()) if part]
        for device in [*self._devices, *slices]:
            if device["uuid"] == uuid.decode():
                return device
        raise Trouble("not found")

    def nvmlDeviceGetUUID(self, handle: dict[str, Any]) -> str:
        return str(handle["uuid"])

    def nvmlDeviceGetName(self, handle: dict[str, Any]) -> bytes:
        return str(handle["name"]).encode()  # bytes in older versions, text in newer ones

    def nvmlDeviceGetMigMode(self, handle: dict[str, Any]) -> Any:
        return self._told(handle, "mig")

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: dict[str, Any]) -> int:
        return len(handle["slices"])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: dict[str, Any], index: int) -> Any:
        if handle["slices"][index] is None:
            raise Trouble("not found")
        return handle["slices"][index]

    NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC = 1, 0

    def nvmlDeviceGetTotalEccErrors(self, handle: dict[str, Any], kind: int, since: int) -> int:
        assert (kind, since) == (1, 0)
        return int(self._told(handle, "ecc"))

    def nvmlDeviceGetUtilizationRates(self, handle: dict[str, Any]) -> Any:
        return SimpleNamespace(gpu=self._told(handle, "busy"))

    def nvmlDeviceGetMemoryInfo(self, handle: dict[str, Any]) -> Any:
        return SimpleNamespace(used=self._told(handle, "used"))


def a_machine() -> FakeNvml:
    part = {"uuid": SLICES[0], "name": "NVIDIA A100 MIG 1g.5gb", "used": 7}
    whole = {"uuid": A, "name": "NVIDIA A100", "mig": (1, 1), "slices": [None, part], "busy": 0, "used": 5}
    return FakeNvml(whole, {"uuid": B, "name": "NVIDIA A100", "busy": 40, "used": 2**30})


def test_nvml_tells_gpus_and_the_slices_that_there_are() -> None:
    assert nvml.gpus(a_machine()) == [Gpu(A, "NVIDIA A100", ((SLICES[0], "1g.5gb"),)), Gpu(B, "NVIDIA A100")]
    assert nvml.gpus(None) is None


def test_a_library_that_fails_tells_nothing() -> None:
    class Broken(FakeNvml):
        def nvmlDeviceGetCount(self) -> int:
            raise Trouble("the GPU is lost")

    assert nvml.gpus(Broken()) is None


def test_use_is_told_as_far_as_it_is_known() -> None:
    assert nvml.usage(a_machine(), [B, SLICES[0], C, "0"]) == [[B, 40, 2**30], [SLICES[0], None, 7]]


# ---------------------------------------------------------------- health


def test_new_uncorrectable_errors_take_a_gpu_out_once() -> None:
    good, bad = {"uuid": A, "ecc": 4}, {"uuid": B, "ecc": 4}
    health = nvml.Health(FakeNvml(good, bad), [A, B, C, "0"])
    assert health.look() == [], "errors from before were mended, or nobody would run here"
    bad["ecc"] = 6
    assert health.look() == [(B, "2 uncorrectable memory errors (ECC) since this worker began")]
    assert health.look() == []


def test_a_gpu_that_is_gone_is_out() -> None:
    there = {"uuid": A}
    health = nvml.Health(FakeNvml(there), [A])
    assert health.look() == [], "it tells no errors, which is no error"
    there["uuid"] = "something else"
    assert health.look() == [(A, "the driver does not find it any more")]


def test_a_lost_gpu_is_given_to_nobody_again() -> None:
    room = Room((("gpus", 3),), [A, B, C])
    (held,) = room.take((("gpus", 1),))
    assert held == A
    room.lose_gpu(A)
    room.lose_gpu(B)
    room.resize((("gpus", 1),))
    assert not room.fits((("gpus", 1),)), "one is in use, and only one is left"
    room.give_back((("gpus", 1),), [held])
    assert room.take((("gpus", 1),)) == [C]
