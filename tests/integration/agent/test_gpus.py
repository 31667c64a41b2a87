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
class Memory: used = 5
def nvmlInit(): pass
def nvmlDeviceGetHandleByUUID(uuid): return uuid.decode()
def nvmlDeviceGetTotalEccErrors(handle, kind, since): return json.load(open(%r))[handle]
def nvmlDeviceGetUtilizationRates(handle): return Use
def nvmlDeviceGetMemoryInfo(handle): return Memory
"""


def test_a_gpu_with_memory_errors_goes_out_and_its_job_goes_on(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    errors.write_text(json.dumps(dict.fromkeys(GPUS, 0)))
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "pynvml.py").write_text(FAKE % str(errors))
    agent = start_agent(env={"CUDA_VISIBLE_DEVICES": ",".join(GPUS), "PYTHONPATH": str(fake)})
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
