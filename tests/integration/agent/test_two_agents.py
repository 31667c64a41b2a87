"""Two real agents share what one of them was given."""

from pathlib import Path
from typing import Any

TASKS = 60
LONG = 20


def test_what_stands_behind_a_long_task_goes_to_the_other_agent(
    hub: Any, join: Any, eventually: Any, tmp_path: Path
) -> None:
    """The array's tasks are quick and so are assigned ahead; one of them turns out to wait for us. All others must end
    while it runs, wherever they stood, and none may have lost anything by that."""
    go = tmp_path / "go"
    held = f"while [ ! -e {go} ]; do sleep 0.05; done"
    array = hub.submit("sh", "-c", f"[ $WM_ARRAY_INDEX != {LONG} ] || {held}", array={"count": TASKS})
    for name in ("one", "two"):
        work_dir = str(tmp_path / name)
        join(hub, hub.token("worker"), "--worker-id", name, "--cpus", "1", "--work-dir", work_dir)
    counts: Any = eventually(
        lambda: (found := hub.get(f"/v1/jobs/{array}")["array"])["succeeded"] == TASKS - 1 and found,
        "all tasks but the long one",
    )
    assert (counts["running"], counts["queued"], counts["assigned"]) == (1, 0, 0)
    go.touch()
    eventually(lambda: hub.get(f"/v1/jobs/{array}")["state"] == "succeeded", "the long one")
    shown = [hub.get(f"/v1/jobs/{array}-{index}") for index in range(TASKS)]
    assert all(task["losses"] == 0 and task["reason"] == "" for task in shown)
    assert {task["worker"] for task in shown} == {"one", "two"}
