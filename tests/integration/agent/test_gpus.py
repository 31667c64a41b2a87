"""A GPU that fails under a real agent. A fake of pynvml stands where the agent's interpreter finds it first."""

import json
from pathlib import Path
from typing import Any

GPUS = [f"GPU-{letter * 8}-1111-2222-3333-444455556666" for letter in "ab"]
FAKE = """
import json
NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC = 1, 0
class NVMLError(Exception): pass
class Use: gpu = 40
def nvmlInit(): pass
def nvmlDeviceGetHandleByUUID(uuid): return uuid.decode()
def nvmlDeviceGetTotalEccErrors(handle, kind, since): return json.load(open("%(errors)s"))[handle]
def nvmlDeviceGetUtilizationRates(handle): return Use
def nvmlDeviceGetMemoryInfo(handle):
    import os, types
    return types.SimpleNamespace(used=int(open("%(used)s").read()) if os.path.exists("%(used)s") else 5)
def nvmlDeviceGetComputeRunningProcesses(handle): return []
def nvmlDeviceGetGraphicsRunningProcesses(handle): return []
nvmlEventTypeXidCriticalError = 8
def nvmlDeviceGetUUID(handle): return handle
def nvmlEventSetCreate(): return 1
def nvmlDeviceRegisterEvents(handle, kinds, events): pass
def nvmlEventSetWait_v2(events, timeout):
    import os, types
    try:
        os.rename("%(xid)s", "%(xid)s.told")
    except OSError:
        raise NVMLError("timeout") from None
    device, number = open("%(xid)s.told").read().split()
    return types.SimpleNamespace(device=device, eventData=int(number), gpuInstanceId=0xFFFFFFFF)
"""


def fake_of(tmp_path: Path) -> str:
    """The folder for PYTHONPATH. What the fake tells is in files beside it: errors, used, xid."""
    (tmp_path / "errors").write_text(json.dumps(dict.fromkeys(GPUS, 0)))
    folder = tmp_path / "fake"
    folder.mkdir()
    names = {name: str(tmp_path / name) for name in ("errors", "used", "xid")}
    (folder / "pynvml.py").write_text(FAKE % names)
    return str(folder)


def test_a_gpu_with_memory_errors_goes_out_and_its_job_goes_on(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    agent = start_agent(env={"CUDA_VISIBLE_DEVICES": ",".join(GPUS), "PYTHONPATH": fake_of(tmp_path)})
    asks = {"cpus": 100, "gpus": 1}
    fake_hub.assign(fake_hub.job("a", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES; exec sleep 600", shape=asks))
    eventually(lambda: fake_hub.logs["a", 1], "the first to say its GPU")
    assert fake_hub.registrations[0]["shape"]["gpus"] == 2
    assert fake_hub.logs["a", 1].decode().strip() == GPUS[0]

    def told() -> Any:
        return next((r["usage"]["gpus"] for r in fake_hub.reports if (r.get("usage") or {}).get("gpus")), None)

    assert eventually(told, "a heartbeat with their use") == [[each, 40, 5] for each in GPUS]
    errors.write_text(json.dumps({GPUS[0]: 3, GPUS[1]: 0}))
    shape = eventually(lambda: next((r["shape"] for r in fake_hub.reports if r.get("shape")), None), "a smaller shape")
    assert shape["gpus"] == 1
    (said,) = agent.said("gpu-out")
    assert (said["gpu"], said["left"]) == (GPUS[0], 1)
    assert not fake_hub.results["a", 1], "its job goes on"
    fake_hub.tell(cancel=[{"job": "a", "epoch": 1, "reason": "cancelled"}])
    fake_hub.result("a")
    fake_hub.assign(fake_hub.job("b", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", shape=asks))
    assert fake_hub.result("b")["outcome"] == "succeeded"
    assert fake_hub.logs["b", 1].decode().strip() == GPUS[1]


def test_a_gpu_is_given_on_when_its_memory_is_free(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    agent = start_agent(env={"CUDA_VISIBLE_DEVICES": GPUS[0], "PYTHONPATH": fake_of(tmp_path)})
    eventually(lambda: any((r.get("usage") or {}).get("gpus") for r in fake_hub.reports), "a look at its GPU")
    asks = {"cpus": 100, "gpus": 1}
    script = f"echo $(( 9 << 30 )) > {tmp_path}/used.new; mv {tmp_path}/used.new {tmp_path}/used"
    fake_hub.assign(fake_hub.job("a", "sh", "-c", script, shape=asks))
    assert fake_hub.result("a")["outcome"] == "succeeded", "its result does not wait"
    fake_hub.assign(fake_hub.job("b", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", shape=asks), fake_hub.job("c", "true"))
    assert fake_hub.result("c")["outcome"] == "succeeded"
    assert ("b", 1) not in fake_hub.started
    (tmp_path / "used").unlink()
    assert fake_hub.result("b")["outcome"] == "succeeded"
    assert fake_hub.logs["b", 1].decode().strip() == GPUS[0]
    assert agent.said("gpu-out") == []


def test_an_xid_takes_a_gpu_out(fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path) -> None:
    agent = start_agent(env={"CUDA_VISIBLE_DEVICES": ",".join(GPUS), "PYTHONPATH": fake_of(tmp_path)})
    eventually(lambda: any((r.get("usage") or {}).get("gpus") for r in fake_hub.reports), "a look at its GPUs")
    (tmp_path / "xid.new").write_text(f"{GPUS[1]} 79")
    (tmp_path / "xid.new").rename(tmp_path / "xid")
    (said,) = eventually(lambda: agent.said("gpu-out"), "the agent to see it")
    assert (said["gpu"], said["left"]) == (GPUS[1], 1)
    assert "Xid 79" in said["text"]
    fake_hub.assign(
        *(fake_hub.job(n, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", shape={"cpus": 1, "gpus": 1}) for n in "ab")
    )
    assert {fake_hub.result(n)["outcome"] for n in "ab"} == {"succeeded"}
    assert {fake_hub.logs[n, 1].decode().strip() for n in "ab"} == {GPUS[0]}


def test_among_neighbours_a_gpu_is_offered_again_when_its_memory_is_free(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    flags = ("--share", str(tmp_path / "machine"))
    start_agent(*flags, env={"CUDA_VISIBLE_DEVICES": GPUS[0], "PYTHONPATH": fake_of(tmp_path)})
    eventually(lambda: any((r.get("usage") or {}).get("gpus") for r in fake_hub.reports), "a look at its GPU")

    def offered() -> int:
        shapes = [fake_hub.registrations[0]["shape"], *(r["shape"] for r in fake_hub.reports if r.get("shape"))]
        return int(shapes[-1].get("gpus", 0))

    asks = {"cpus": 100, "gpus": 1}
    script = f"echo $(( 9 << 30 )) > {tmp_path}/used.new; mv {tmp_path}/used.new {tmp_path}/used"
    fake_hub.assign(fake_hub.job("a", "sh", "-c", script, shape=asks))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    (tmp_path / "used").unlink()
    eventually(lambda: offered() == 1, "the GPU to be offered")
    fake_hub.assign(fake_hub.job("b", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", shape=asks))
    assert fake_hub.result("b")["outcome"] == "succeeded"
    assert fake_hub.logs["b", 1].decode().strip() == GPUS[0]
