from worker_manager.config.catalogue import Installed
from worker_manager.config.problems import did_you_mean
from worker_manager.policy.laws import LAWS


def test_the_laws_of_the_policy_are_those_of_the_configuration() -> None:
    installed = Installed()
    assert set(installed.laws()) == set(LAWS)
    assert {law: installed.law_options(law) for law in installed.laws()} == {
        "backlog": ["target-jobs"],
        "idle": ["idle-workers"],
        "pack": [],
        "step": [],
    }
    assert did_you_mean("random", installed.laws()) == "known here: backlog, idle, pack, step"
