"""What the keeper promises of limits, with real processes and the kernel's own groups. Run by test_limits.py:

    python limit_scenarios.py <scenario> <group|watch> <empty directory>

Stdlib only and Python 3.9, because the agent's machine may have no more.
"""
# ruff: noqa: PTH112, PTH115, PTH119, PTH208, UP031

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import keeper_scenarios as keeper
from keeper_scenarios import all_gone, is_alive, python, sh, wait_for

from worker.limits.places import find

MIB = 2**20
SCENARIOS = {}
NO_GROUPS_HERE = 77  # this machine lets nobody make a group

# Takes so many MiB in all and stays. Four at a time, so that a look in between sees it grow.
EATER = """
import sys, time
held = []
for _ in range(%d):
    held.append(b"x" * (4 << 20)); time.sleep(0.01)
print("full", flush=True)
time.sleep(600)
"""


def scenario(check):
    SCENARIOS[check.__name__] = check
    return check


class Agent(keeper.Agent):
    def __init__(self, work_dir, places, **options):
        super().__init__(work_dir, places=places, **options)
        self.places = places

    def asks(self, command, memory=0, **work):
        self.start(command, shape={"cpus": 1000, "memory": memory}, work=work)

    @property
    def tops(self):
        """The folders of its keeper, which holds their locks. Other keepers have others beside them."""
        links = ["/proc/%d/fd/%s" % (self.keeper, name) for name in os.listdir("/proc/%d/fd" % self.keeper)]
        return sorted({read_link(link) for link in links if os.path.basename(read_link(link)).startswith("wm-")})

    @property
    def groups(self):
        """Folders of its jobs that there are now."""
        return [str(each) for top in self.tops for each in Path(top).iterdir() if each.is_dir()]


def read_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def eater(mib):
    return python(EATER % (mib // 4))


# ---------------------------------------------------------------- memory


@scenario
def too_much_memory_ends_the_job(work_dir, places):
    agent = Agent(work_dir, places)
    agent.asks(eater(200), memory=100 * MIB)
    agent.all_ended()
    result = agent.results["a"]
    assert (result["outcome"], result["reason"]) == ("failed", "memory-limit"), result
    assert "of 100 MiB of memory" in result["text"], result
    assert 90 * MIB < result["max_rss"] < 200 * MIB, result


@scenario
def all_processes_of_a_job_count_together(work_dir, places):
    """And the one that goes over takes the others with it."""
    agent = Agent(work_dir, places)
    one = " ".join(map(shlex.quote, eater(80)))
    agent.asks(sh("echo $$; %s & %s & sleep 600 & wait" % (one, one)), memory=120 * MIB)
    agent.all_ended()
    result = agent.results["a"]
    assert (result["outcome"], result["reason"]) == ("failed", "memory-limit"), result
    session = int(agent.text("a").split()[0])
    assert not [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if in_session(pid, session)]


def in_session(pid, session):
    try:
        return os.getsid(pid) == session and is_alive(pid)
    except OSError:
        return False


@scenario
def what_left_the_session_counts_too(work_dir, places):
    agent = Agent(work_dir, places)
    script = "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n%s\n    os._exit(0)\nos.wait()\n"
    inner = "\n".join("        " + line for line in (EATER % 50).splitlines())
    agent.asks(python(script % inner + "import time; time.sleep(600)"), memory=100 * MIB)
    agent.all_ended()
    assert agent.results["a"]["reason"] == "memory-limit", agent.results


@scenario
def a_job_within_its_memory_is_left_alone(work_dir, places):
    """And is told the most that all its processes held together."""
    agent = Agent(work_dir, places)
    one = " ".join(map(shlex.quote, python("held = b'x' * (60 << 20); import time; time.sleep(1.5)")))
    agent.asks(sh("%s & %s & wait" % (one, one)), memory=400 * MIB)
    agent.asks(["true"], memory=1)  # less than any process needs: it means little, and harms nothing
    agent.all_ended()
    assert [agent.results[job]["outcome"] for job in "ab"] == ["succeeded", "succeeded"], agent.results
    assert 120 * MIB < agent.results["a"]["max_rss"] < 200 * MIB, agent.results


@scenario
def pages_of_files_end_no_job(work_dir, places):
    agent = Agent(work_dir, places)
    agent.asks(sh("head -c 150000000 /dev/zero > big; cat big > /dev/null; rm big"), memory=64 * MIB)
    agent.all_ended()
    assert agent.results["a"]["outcome"] == "succeeded", agent.results
    assert agent.results["a"]["max_rss"] < 64 * MIB, agent.results


@scenario
def neighbours_of_a_greedy_job_live(work_dir, places):
    agent = Agent(work_dir, places)
    agent.asks(eater(8), memory=100 * MIB)
    agent.says("a", "full")
    agent.asks(eater(200), memory=100 * MIB)
    agent.until(lambda: "b" in agent.results, "the end of the greedy one")
    assert agent.results["b"]["reason"] == "memory-limit"
    assert agent.runner.running() == {("a", 1): "running"}
    agent.runner.stop(0, "done")
    agent.all_ended()
    assert agent.results["a"]["reason"] == "done"


@scenario
def a_cancelled_job_stays_cancelled(work_dir, places):
    agent = Agent(work_dir, places)
    agent.asks(eater(8), memory=100 * MIB)
    agent.says("a", "full")
    agent.runner.cancel("a", 1, grace_ms=0)
    agent.all_ended()
    assert agent.results["a"]["outcome"] == "cancelled"


# ---------------------------------------------------------------- files, cores


@scenario
def open_files_are_limited_for_good(work_dir, places):
    script = """
import os, resource
print(resource.getrlimit(resource.RLIMIT_NOFILE))
try:
    while True: print(os.dup(1), flush=True)
except OSError as error:
    print(error.errno)
"""
    agent = Agent(work_dir, places)
    agent.asks(python("import time; time.sleep(0.3)\n" + script), max_files=20)
    agent.asks(sh("ulimit -n"))
    agent.all_ended()
    lines = agent.text("a").splitlines()
    assert lines[0] == "(20, 20)", lines
    assert lines[-2:] == ["19", "24"], lines  # the highest number below the limit, EMFILE
    assert int(agent.text("b")) > 20


@scenario
def jobs_are_bound_to_cores_of_their_own(work_dir, places):
    ours = sorted(os.sched_getaffinity(0))
    show = "import os, time; print(sorted(os.sched_getaffinity(0)), flush=True); time.sleep(%d)"
    agent = Agent(work_dir, places)
    for _ in ours:
        agent.asks(python(show % 600), cpu_affinity=True)
    agent.asks(python(show % 0))
    names = [chr(ord("a") + n) for n in range(len(ours))]
    for name in names:
        agent.says(name, "]")
    agent.until(lambda: chr(ord("a") + len(ours)) in agent.results, "the one that asks for none")
    taken = sorted(agent.text(name).strip() for name in names)
    assert taken == sorted("[%d]" % core for core in ours), taken
    assert agent.text(chr(ord("a") + len(ours))).strip() == str(ours)
    agent.runner.stop(0, "done")
    agent.all_ended()


# ---------------------------------------------------------------- processes, and the groups themselves


@scenario
def a_fork_bomb_stays_small(work_dir, places):
    agent = Agent(work_dir, places)
    bomb = """
import os, time
children = 0
try:
    while children < 200:
        if os.fork() == 0:
            time.sleep(600)
        children += 1
except OSError as error:
    print("stopped", children, flush=True)
    raise SystemExit(3)
"""
    agent.asks(python(bomb), max_processes=10)
    agent.all_ended()
    result = agent.results["a"]
    assert agent.text("a") == "stopped 9\n", agent.text("a")
    assert (result["outcome"], result["reason"], result["exit_code"]) == ("failed", "process-limit", 3), result
    assert "10" in result["text"]


@scenario
def a_group_goes_with_its_job(work_dir, places):
    agent = Agent(work_dir, places)
    agent.asks(sh("sleep 600 & echo $$; wait"), memory=100 * MIB, max_processes=5)
    agent.says("a", "\n")
    assert len(agent.groups) == len({place.parent for place in places.values()}), agent.groups
    for folder in agent.groups:
        inside = (Path(folder) / "cgroup.procs").read_text().split()
        assert agent.text("a").strip() in inside, (folder, inside)
        assert str(agent.keeper) not in inside, "the keeper stayed in a job's group"
    agent.runner.stop(0, "done")
    agent.all_ended()
    assert agent.groups == []
    tops = agent.tops
    assert len(tops) == len({place.parent for place in places.values()})
    agent.runner.close()
    assert not any(map(os.path.isdir, tops))


@scenario
def what_cannot_be_started_leaves_no_group(work_dir, places):
    agent = Agent(work_dir, places)
    agent.asks(["no-such-command"], memory=100 * MIB, max_processes=5, max_files=50, cpu_affinity=True)
    agent.asks(python("import os; print(len(os.sched_getaffinity(0)))"), memory=100 * MIB)
    agent.all_ended()
    assert agent.results["a"]["exit_code"] == 127
    assert agent.text("b").strip() == str(len(os.sched_getaffinity(0)))
    assert agent.groups == []


@scenario
def a_killed_keeper_leaves_nothing_after_the_next_start(work_dir, places):
    agent = Agent(work_dir / "first", places)
    agent.asks(sh("echo $$; exec sleep 600"), memory=100 * MIB, max_processes=5)
    agent.says("a", "\n")
    job = int(agent.text("a"))
    left = agent.groups + agent.tops
    assert len(left) > 1
    os.kill(agent.keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(agent.keeper), "the keeper's end")
    assert all(os.path.isdir(folder) for folder in left)
    # The agent has not looked yet, as if it had been killed in the same moment: the job still runs.
    assert is_alive(job)
    following = Agent(work_dir / "second", places)
    following.asks(["true"], memory=100 * MIB)
    following.all_ended()
    assert not any(os.path.isdir(folder) for folder in left)
    all_gone([job])
    tops = following.tops
    following.runner.close()
    assert not any(map(os.path.isdir, tops))


@scenario
def the_agent_of_a_killed_keeper_removes_its_groups(work_dir, places):
    agent = Agent(work_dir, places)
    agent.asks(sh("echo $$; exec sleep 600"), memory=100 * MIB, max_processes=5)
    agent.says("a", "\n")
    left = agent.groups + agent.tops
    os.kill(agent.keeper, signal.SIGKILL)
    try:
        agent.all_ended()
    except keeper.KeeperDied:
        pass
    else:
        raise AssertionError("nobody noticed")
    assert not any(map(os.path.isdir, left))
    all_gone([int(agent.text("a"))])


@scenario
def a_keeper_that_lives_keeps_its_groups(work_dir, places):
    first = Agent(work_dir / "first", places)
    first.asks(sh("echo up; exec sleep 600"), memory=100 * MIB)
    first.says("a", "up")
    folders = first.groups
    second = Agent(work_dir / "second", places)
    second.asks(["true"], memory=100 * MIB)
    second.all_ended()
    second.runner.close()
    assert [folder for folder in folders if os.path.isdir(folder)] == folders
    assert first.runner.running() == {("a", 1): "running"}
    first.runner.close()


@scenario
def groups_below_a_job_go_with_it(work_dir, places):
    """As an agent makes them that is itself a job."""
    agent = Agent(work_dir, places)
    agent.asks(["true"], memory=100 * MIB)
    agent.all_ended()
    (top,) = [each for each in agent.tops if each.startswith(places["memory"].parent + "/wm-")][:1]
    agent.asks(sh("inner=$(echo %s/*/)wm-inner; mkdir -p $inner/2; ls -d $inner" % top), memory=100 * MIB)
    agent.all_ended()
    assert agent.results["b"]["outcome"] == "succeeded", (agent.results, agent.text("b"))
    assert agent.text("b").startswith(top) and not os.path.isdir(agent.text("b").strip())


@scenario
def a_look_costs_little(work_dir, places):
    """One long job with a limit: under a fifth of a percent of a core, however its memory is guarded."""
    agent = Agent(work_dir, places)
    agent.asks(eater(8), memory=400 * MIB)
    agent.says("a", "full")
    ticks, began = cpu_ticks(agent.keeper), time.monotonic()
    end = began + 6
    while time.monotonic() < end:
        agent.read(1)
    share = (cpu_ticks(agent.keeper) - ticks) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)
    assert share <= 0.01, "the keeper used %.2f %% of a core" % (100 * share)  # a tick is 0.17 % of this time
    agent.runner.close()


def cpu_ticks(pid):
    fields = Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def main():
    name, way, work_dir = sys.argv[1:]
    places = find() if way == "group" else {}
    if way == "group" and set(places) != {"memory", "pids"}:
        sys.exit(NO_GROUPS_HERE)
    SCENARIOS[name](Path(work_dir).resolve(), places)


if __name__ == "__main__":
    main()
