"""What the keeper promises, with real processes. Run by test_keeper.py, under every interpreter that is present:

    python keeper_scenarios.py <scenario> <empty directory>

Stdlib only and Python 3.9, because the agent's machine may have no more.
"""
# It speaks of descriptors and /proc, in the words of Python 3.9:
# ruff: noqa: B905, PTH112, PTH208, UP031

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from worker.happened import Ended, Hooked, Offered, Output, Progressed, Started
from worker.machine.seat import Seat
from worker.protocol import Shape
from worker.runner import KeeperDied, Runner

DEADLINE_S = 30
SCENARIOS = {}


def scenario(check):
    SCENARIOS[check.__name__] = check
    return check


# ---------------------------------------------------------------- helpers


class Agent:
    """A runner, and everything that it has said so far."""

    def __init__(self, work_dir, **options):
        self.runner = Runner(str(work_dir), **options)
        self.started, self.results, self.output, self.order = {}, {}, {}, []
        self.kept = {}
        self.told = []  # of progress and hooks
        self.keeper = self.runner._pid
        self.offered = None

    def start(self, *commands, **more):
        """Names them a, b, c … after those already given."""
        known = len(self.runner.running()) + len(self.results)
        names = [chr(ord("a") + known + n) for n in range(len(commands))]
        self.runner.start(
            [{"job": name, "epoch": 1, "command": c, "owner": "me", **more} for name, c in zip(names, commands)]
        )
        return names

    def read(self, wait_s=0.1):
        waits = select.poll()
        waits.register(self.runner.fileno(), select.POLLIN | (0 if self.runner.flush() else select.POLLOUT))
        waits.poll(wait_s * 1000)
        for event in self.runner.read():
            if isinstance(event, Output):
                kept = self.output.setdefault(event.job, bytearray())
                assert event.offset == len(kept), "output has a gap"
                assert event.job not in self.results, "output after the end"
                kept += event.data
            elif isinstance(event, Started):
                assert event.job not in self.started, "started twice"
                self.started[event.job] = event
            elif isinstance(event, Offered):
                self.offered = event.amount["cpus"]
            elif isinstance(event, (Hooked, Progressed)):
                self.told.append(event)
            else:
                job = event.result["job"]
                assert job not in self.results, "reported twice"
                self.results[job] = event.result
                self.kept[job] = event.kept
                self.order.append(job)

    def until(self, condition, what="it"):
        """Read until the condition holds."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, "waited in vain for %s; results: %s; output: %s" % (
                what,
                self.results,
                {job: bytes(data[-300:]) for job, data in self.output.items()},
            )
            self.read()

    def all_ended(self):
        self.until(lambda: not self.runner.running(), "the end of %s" % self.runner.running())

    def says(self, job, word):
        self.until(lambda: word in self.text(job), "%r from %s" % (word, job))

    def text(self, job):
        return bytes(self.output.get(job, b"")).decode()


def sh(script):
    return ["sh", "-c", script]


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain for " + what
        time.sleep(0.01)


def is_alive(pid):
    try:
        return Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_gone(pids):
    wait_for(lambda: not any(map(is_alive, pids)), "the end of %s" % [pid for pid in pids if is_alive(pid)])


def children_of(pid):
    return [int(word) for word in Path("/proc/%d/task/%d/children" % (pid, pid)).read_text().split()]


def resident(pid):
    """Bytes of its own: what it shares with other interpreters does not count."""
    lines = Path("/proc/%d/smaps_rollup" % pid).read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean")))


# A process that gets away from its session and its parent: prints its number and stays.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        %s
        print("daemon", os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
"""
# The same with an empty environment, so that nothing tells whose it is.
NAMELESS = (
    DAEMON
    % """os.execve(sys.executable, [sys.executable, "-S", "-c",
            "import os, time; print('daemon', os.getpid(), flush=True); time.sleep(600)"], {})"""
)
DAEMON = DAEMON % ""


def python(script):
    return [sys.executable, "-S", "-c", script]


def daemons(text):
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("daemon")]


# ---------------------------------------------------------------- results


@scenario
def exit_codes_and_signals_are_told_apart(work_dir):
    agent = Agent(work_dir)
    agent.start(["true"], sh("exit 7"), sh("kill -SEGV $$"), sh("kill -35 $$"))
    agent.all_ended()
    found = {job: (r["outcome"], r["exit_code"], r["signal"], r["text"]) for job, r in agent.results.items()}
    assert found["a"] == ("succeeded", 0, None, ""), found
    assert found["b"] == ("failed", 7, None, "exit status 7"), found
    assert found["c"] == ("failed", None, signal.SIGSEGV, "ended by SIGSEGV"), found
    assert found["d"][:3] == ("failed", None, 35), found


@scenario
def usage_is_measured(work_dir):
    agent = Agent(work_dir)
    began = time.time()
    burn = "import time\ndata = b'x' * 60_000_000\nwhile time.process_time() < 0.3: pass"
    agent.start(python(burn))
    agent.all_ended()
    result = agent.results["a"]
    assert result["outcome"] == "succeeded", result
    assert 300 <= result["cpu_ms"] <= 5000, result
    assert result["run_ms"] >= 290, result
    assert 60_000_000 < result["max_rss"] < 200_000_000, result
    assert began * 1000 - 1000 <= result["started_ms"] <= time.time() * 1000, result
    assert agent.started["a"].started_ms == result["started_ms"]


@scenario
def what_cannot_be_started_says_why(work_dir):
    script = work_dir / "no-interpreter"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    plain = work_dir / "plain"
    plain.write_text("#!/bin/sh\n")
    agent = Agent(work_dir / "work")
    agent.start(
        ["surely-no-such-command"],
        [str(plain)],
        [str(script)],
        ["true", "x" * 3_000_000],
        [],
        ["true", "a\0b"],
        ["/"],
        ["./nothing-here"],
    )
    agent.start(["true"], env={"A=B": "c"})
    agent.start(["true"])
    agent.all_ended()
    expected = {
        "a": (127, "not found"),
        "b": (126, "not executable"),
        "c": (126, "#! line"),
        "d": (126, "too long"),
        "e": (126, "empty"),
        "f": (126, "null"),
        "g": (126, "not executable"),
        "h": (127, "not found"),
        "i": (126, "environment"),
    }
    for job, (code, words) in expected.items():
        result = agent.results[job]
        assert (result["outcome"], result["reason"], result["exit_code"]) == ("failed", "start-failed", code), result
        assert words in result["text"], result
        assert result["signal"] is None and result["cpu_ms"] is None, result
        assert job not in agent.started
    assert agent.results["j"]["outcome"] == "succeeded", "the keeper goes on"


@scenario
def two_thousand_quick_jobs_are_each_reported_once(work_dir):
    agent = Agent(work_dir, has=Shape(cpus=4000))
    jobs = ["j%d" % n for n in range(2000)]
    agent.runner.start([{"job": job, "epoch": 1, "command": ["true"], "owner": "me"} for job in jobs])
    agent.all_ended()
    assert sorted(agent.results) == sorted(jobs)
    assert sorted(agent.started) == sorted(jobs)
    assert {result["outcome"] for result in agent.results.values()} == {"succeeded"}
    assert children_of(agent.keeper) == [], "zombies"
    assert len(os.listdir(work_dir / "slots")) <= 4
    descriptors = os.listdir("/proc/%d/fd" % agent.keeper)
    assert len(descriptors) < 15, descriptors


@scenario
def attempts_given_twice_run_once(work_dir):
    agent = Agent(work_dir)
    twice = [{"job": "a", "epoch": 1, "command": sh("echo once >> %s/count" % work_dir), "owner": "me"}] * 2
    agent.runner.start(twice)
    agent.runner.start(twice)
    agent.all_ended()
    assert (work_dir / "count").read_text() == "once\n"


# ---------------------------------------------------------------- output


@scenario
def output_keeps_its_order_and_its_bytes(work_dir):
    agent = Agent(work_dir)
    mixed = "for i in $(seq 300); do echo out$i; echo err$i >&2; done"
    binary = "import os\nfor n in range(256): os.write(1 + n % 2, bytes([n]) * 3)"
    agent.start(sh(mixed), python(binary), sh("printf 'no newline'"), ["true"])
    agent.all_ended()
    assert agent.text("a") == "".join("out%d\nerr%d\n" % (n, n) for n in range(1, 301))
    assert bytes(agent.output["b"]) == b"".join(bytes([n]) * 3 for n in range(256))
    assert agent.text("c") == "no newline"
    assert "d" not in agent.output
    assert [agent.results[job]["output"] for job in "abcd"] == [len(agent.output.get(job, b"")) for job in "abcd"]


@scenario
def output_comes_while_the_job_runs(work_dir):
    agent = Agent(work_dir)
    agent.start(sh("echo early; read never < %s" % fifo(work_dir)))
    agent.says("a", "early")
    assert agent.runner.running() == {("a", 1): "running"}
    agent.runner.close()


def fifo(work_dir):
    path = work_dir / "never-written"
    if not path.exists():
        os.mkfifo(path)
    return path


@scenario
def much_output_needs_little_memory_even_when_nobody_reads(work_dir):
    agent = Agent(work_dir)
    agent.start(["true"])
    agent.all_ended()
    before = resident(agent.keeper)
    size = 100 * 1000 * 1000
    agent.runner.start([{"job": "big", "epoch": 1, "command": ["head", "-c", str(size), "/dev/zero"], "owner": "me"}])
    agent.until(lambda: "big" in agent.started, "the start")
    job = agent.runner._pids["big", 1]
    # Nobody reads now: the job is made to wait in its write, the keeper holds a bounded amount.
    wait_for(lambda: stands_in_a_write(job), "back-pressure on the job")
    most, received = resident(agent.keeper), len(agent.output.get("big", b""))
    while agent.runner.running():
        select.select([agent.runner.fileno()], [], [], DEADLINE_S)
        for event in agent.runner.read():
            if isinstance(event, Output):
                assert event.offset == received
                assert not event.data.strip(b"\0")
                received += len(event.data)
                most = max(most, resident(agent.keeper))
            elif isinstance(event, Ended):
                assert event.result["output"] == size, event.result
    assert received == size
    assert most - before < 16 * 1024 * 1024, "the keeper grew by %d bytes" % (most - before)


def stands_in_a_write(pid):
    return "pipe" in Path("/proc/%d/wchan" % pid).read_text()


@scenario
def output_beyond_its_limit_is_counted_and_not_kept(work_dir):
    agent = Agent(work_dir)
    agent.start(sh("seq 100000; echo the very end"), sh("printf 0123456789"), sh("printf 0123456789a"), output_limit=10)
    agent.all_ended()
    total = len("".join("%d\n" % n for n in range(1, 100001))) + len("the very end\n")
    assert agent.results["a"]["output"] == total, agent.results["a"]
    kept = agent.text("a")
    assert kept.startswith("1\n2\n3\n4\n5\n\n[worker: %d bytes left out" % (total - 10 - 16384)), kept[:100]
    assert kept.endswith("\nthe very end\n")
    assert len(kept) < 17_000
    assert agent.text("b") == "0123456789"
    assert agent.text("c") == "0123456789a", "what is shorter than the note about it stays"


# ---------------------------------------------------------------- limits and cancels

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 600; done"


@scenario
def a_time_limit_ends_the_job(work_dir):
    agent = Agent(work_dir)
    agent.start(sh("sleep 600"), time_limit_ms=200, grace_ms=20_000)
    agent.start(sh(STUBBORN), time_limit_ms=300, grace_ms=200)
    agent.start(["true"], time_limit_ms=20_000)
    agent.all_ended()
    for job, number in (("a", signal.SIGTERM), ("b", signal.SIGKILL)):
        result = agent.results[job]
        assert (result["outcome"], result["reason"], result["signal"]) == ("failed", "time-limit", number), result
        assert "time limit" in result["text"], result
    assert 200 <= agent.results["a"]["run_ms"] < 10_000
    assert 500 <= agent.results["b"]["run_ms"] < 10_000
    assert agent.results["c"]["outcome"] == "succeeded"


@scenario
def a_cancel_is_asked_first_and_then_forced(work_dir):
    agent = Agent(work_dir)
    polite = "trap 'echo goodbye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    agent.start(sh(polite), sh(STUBBORN), sh(STUBBORN), sh("echo ready; kill -STOP $$"), grace_ms=600_000)
    for job in "abcd":
        agent.says(job, "ready")
    agent.runner.cancel("a", 1, "cancelled", "by its owner")
    agent.runner.cancel("b", 1, "drained", "the worker goes", grace_ms=100, outcome="returned")
    agent.runner.cancel("c", 1, "cancelled", "first")
    agent.runner.cancel("c", 1, "again", "with less patience", grace_ms=100)
    agent.runner.cancel("d", 1, "cancelled", "")
    agent.runner.cancel("unknown", 1)
    agent.runner.cancel("a", 2)
    agent.all_ended()
    brief = {j: (r["outcome"], r["reason"], r["exit_code"], r["signal"], r["text"]) for j, r in agent.results.items()}
    assert brief["a"] == ("cancelled", "cancelled", 3, None, "by its owner"), brief
    assert agent.text("a").endswith("goodbye\n"), agent.text("a")
    assert brief["b"] == ("returned", "drained", None, signal.SIGKILL, "the worker goes"), brief
    assert brief["c"] == ("cancelled", "cancelled", None, signal.SIGKILL, "first"), brief
    assert brief["d"][:4] == ("cancelled", "cancelled", None, signal.SIGTERM), brief


@scenario
def what_waits_is_cancelled_or_recalled_at_once(work_dir):
    agent = Agent(work_dir, has=Shape(cpus=1000))
    agent.start(sh("read never < %s" % fifo(work_dir)), ["true"], ["true"], ["true"])
    agent.until(lambda: "a" in agent.started, "the first")
    assert agent.runner.running()["b", 1] == "queued"
    agent.runner.cancel("b", 1, "cancelled", "not wanted")
    agent.runner.recall([("a", 1), ("c", 1), ("nobody", 4)])
    agent.until(lambda: len(agent.results) == 2, "two ends")
    assert agent.results["b"]["outcome"] == "cancelled"
    assert (agent.results["c"]["outcome"], agent.results["c"]["reason"]) == ("returned", "recalled")
    assert agent.results["c"]["exit_code"] is None
    assert agent.runner.running() == {("a", 1): "running", ("d", 1): "queued"}
    agent.runner.stop(10_000, "drained", "the worker goes")
    agent.all_ended()
    assert [(agent.results[j]["outcome"], agent.results[j]["reason"]) for j in "ad"] == [("returned", "drained")] * 2
    assert "d" not in agent.started


@scenario
def jobs_share_what_the_worker_has(work_dir):
    agent = Agent(work_dir, has=Shape(cpus=2000, gpus=2), gpus=["GPU-x", "GPU-y"])
    show = "echo gpus=$CUDA_VISIBLE_DEVICES cpus=$WM_CPUS; read x < %s" % fifo(work_dir)
    one = {"cpus": 500, "gpus": 1}
    agent.start(sh(show), sh(show), sh(show), shape=one)
    agent.start(sh("echo gpus=$CUDA_VISIBLE_DEVICES"), shape={"cpus": 500})
    agent.start(["true"], shape={"cpus": 2500})
    agent.all_but = lambda: len(agent.results) == 2
    agent.until(agent.all_but, "the small one and the one that never fits")
    assert agent.results["e"]["outcome"] == "returned" and "cpus: job asks 2.5" in agent.results["e"]["text"]
    assert agent.text("d") == "gpus=\n", "it asked for none, so it sees none"
    agent.says("a", "gpus=")
    agent.says("b", "gpus=")
    assert {agent.text("a"), agent.text("b")} == {"gpus=GPU-x cpus=1\n", "gpus=GPU-y cpus=1\n"}
    assert "c" not in agent.started
    agent.runner.cancel("a", 1)
    agent.says("c", "gpus=")
    assert agent.text("c") == agent.text("a"), "it gets the one that became free"
    agent.runner.close()


# ---------------------------------------------------------------- nothing is left behind


@scenario
def a_background_process_that_holds_the_output_does_not_keep_the_job(work_dir):
    agent = Agent(work_dir)
    agent.start(sh("sleep 600 & echo daemon $!; exit 5"))
    agent.all_ended()
    assert agent.results["a"]["exit_code"] == 5
    assert agent.results["a"]["run_ms"] < 20_000
    all_gone(daemons(agent.text("a")))


@scenario
def daemons_end_with_their_job(work_dir):
    agent = Agent(work_dir)
    agent.start(python(DAEMON), python(DAEMON + "\nos.kill(os.getpid(), 9)"))
    agent.all_ended()
    pids = daemons(agent.text("a")) + daemons(agent.text("b"))
    for pid in pids:
        assert not is_alive(pid), "reported over while process %d was there" % pid
    assert children_of(agent.keeper) == []


@scenario
def a_cancel_ends_daemons_too(work_dir):
    agent = Agent(work_dir)
    agent.start(python(DAEMON + "\ntime.sleep(600)"), grace_ms=5000)
    agent.says("a", "daemon")
    agent.runner.cancel("a", 1)
    agent.all_ended()
    (daemon,) = daemons(agent.text("a"))
    assert not is_alive(daemon)
    assert children_of(agent.keeper) == []


@scenario
def the_daemon_of_a_running_job_is_left_alone(work_dir):
    agent = Agent(work_dir)
    agent.start(python(DAEMON + "\nopen('%s').read()" % fifo(work_dir)))
    agent.says("a", "daemon")
    agent.start(["true"], python(DAEMON))
    agent.until(lambda: len(agent.results) == 2, "the others")
    (daemon,) = daemons(agent.text("a"))
    assert is_alive(daemon)
    agent.runner.cancel("a", 1)
    agent.all_ended()
    assert not is_alive(daemon)


@scenario
def a_nameless_daemon_ends_when_nobody_can_have_started_it(work_dir):
    agent = Agent(work_dir)
    agent.start(sh("read never < %s" % fifo(work_dir)))
    agent.until(lambda: "a" in agent.started, "the older job")
    agent.start(python(NAMELESS + "\nopen('%s').read()" % fifo(work_dir)))
    agent.says("b", "daemon")
    agent.runner.cancel("b", 1)
    agent.until(lambda: "b" in agent.results, "its end")
    (daemon,) = daemons(agent.text("b"))
    assert is_alive(daemon), "it may be the older job's"
    agent.runner.cancel("a", 1)
    agent.all_ended()
    all_gone([daemon])


@scenario
def many_that_fork_on_are_all_ended(work_dir):
    agent = Agent(work_dir)
    deep = """
import os, sys, time
depth = 0
while depth < 25:
    if os.fork():
        time.sleep(600)
    os.setsid()
    depth += 1
print("deep", flush=True)
time.sleep(600)
"""
    agent.start(python(deep))
    agent.says("a", "deep")
    agent.runner.cancel("a", 1, grace_ms=50)
    agent.all_ended()
    assert children_of(agent.keeper) == []
    assert processes_with("WM_KEEPER=%s" % agent.runner._keeper_id) == []


def processes_with(variable):
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


# ---------------------------------------------------------------- when agent or keeper die


@scenario
def a_killed_agent_takes_its_jobs_with_it(work_dir):
    ready = subprocess.Popen(
        [sys.executable, __file__, "an_agent_that_waits", str(work_dir)], stdout=subprocess.PIPE, text=True
    )
    keeper, *pids = map(int, ready.stdout.readline().split())
    assert len(pids) == 4 and all(map(is_alive, pids)), pids
    ready.kill()
    ready.wait()
    all_gone([keeper, *pids])


def an_agent_that_waits(work_dir):
    agent = Agent(work_dir)
    agent.start(sh("sleep 600 & echo daemon $!; wait"), sh(STUBBORN), python(DAEMON + "\ntime.sleep(600)"))
    agent.says("a", "daemon")
    agent.says("b", "ready")
    agent.says("c", "daemon")
    pids = [agent.runner._pids[job, 1] for job in "ab"] + daemons(agent.text("a") + agent.text("c"))
    print(agent.keeper, *pids, flush=True)
    signal.pause()


@scenario
def the_end_of_the_lease_ends_everything(work_dir):
    agent = Agent(work_dir, lease_ms=600_000)
    agent.start(sh(STUBBORN), python(DAEMON + "\ntime.sleep(600)"))
    agent.says("a", "ready")
    agent.says("b", "daemon")
    pids = [agent.runner._pids["a", 1], *daemons(agent.text("b")), agent.keeper]
    agent.runner.extend_lease(300)
    # The agent does nothing from here: the keeper decides alone.
    wait_for(lambda: not any(map(is_alive, pids)), "the end of the lease")
    try:
        agent.all_ended()
    except KeeperDied as death:
        assert "lease" in str(death), death
    else:
        raise AssertionError("the agent was not told")
    assert set(agent.runner.running()) == {("a", 1), ("b", 1)}, "they are to be handed back"


@scenario
def a_lease_that_is_extended_does_not_end(work_dir):
    agent = Agent(work_dir, lease_ms=400)
    agent.start(sh("sleep 1.2; echo done"))
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        agent.runner.extend_lease(400)
        agent.read(0.05)
    agent.runner.extend_lease(60_000)
    agent.all_ended()
    assert agent.text("a") == "done\n"
    agent.runner.extend_lease(1000, asked_at_ms=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 - 2000)
    wait_for(lambda: not is_alive(agent.keeper), "the end of a lease that is counted from when it was asked for")


@scenario
def a_killed_keeper_is_noticed_and_its_jobs_end(work_dir):
    agent = Agent(work_dir)
    agent.start(sh(STUBBORN), python(DAEMON + "\ntime.sleep(600)"))
    agent.says("a", "ready")
    agent.says("b", "daemon")
    pids = [*agent.runner._pids.values(), *daemons(agent.text("b"))]
    os.kill(agent.keeper, signal.SIGKILL)
    try:
        agent.all_ended()
    except KeeperDied as death:
        assert "SIGKILL" in str(death), death
    else:
        raise AssertionError("the death was not noticed")
    all_gone(pids)
    agent.runner.close()


def sharing(work_dir, name, cpus=2000):
    shape = Shape(cpus=cpus)
    seat = Seat(str(work_dir / "machine"), name, shape, shape, ())
    return Agent(work_dir / name, has=shape, seat=seat)


@scenario
def neighbours_never_hold_more_than_there_is(work_dir):
    one, other = sharing(work_dir, "one"), sharing(work_dir, "other")
    one.start(sh(STUBBORN), shape={"cpus": 1500})
    one.says("a", "ready")
    other.start(["true"], shape={"cpus": 1000})
    other.start(["true"], shape={"cpus": 500})
    other.all_ended()
    assert (other.results["a"]["outcome"], other.results["a"]["reason"]) == ("returned", "neighbours")
    assert other.results["b"]["outcome"] == "succeeded", other.results
    other.until(lambda: other.offered == 500, "what is left")
    pids = list(one.runner._pids.values())
    os.kill(one.keeper, signal.SIGKILL)
    try:
        one.all_ended()
    except KeeperDied:
        pass
    else:
        raise AssertionError("the death was not noticed")
    assert not any(map(is_alive, pids)), "its share returns with them"
    other.until(lambda: other.offered == 2000, "all of it")
    other.start(["true"], shape={"cpus": 2000})
    other.all_ended()
    assert other.results["c"]["outcome"] == "succeeded", other.results
    for agent in (one, other):
        agent.runner.close()
    assert os.listdir(str(work_dir / "machine")) == []


@scenario
def a_neighbour_waits_for_a_short_job_and_for_its_own(work_dir):
    one, other = sharing(work_dir, "one"), sharing(work_dir, "other")
    one.start(sh("sleep 0.05"), sh("sleep 0.3"), ["true"], shape={"cpus": 2000})
    one.until(lambda: "a" in one.started, "the first")
    other.start(["true"], shape={"cpus": 100})
    one.all_ended()
    other.all_ended()
    assert [one.results[job]["outcome"] for job in "abc"] == ["succeeded"] * 3, one.results
    assert other.results["a"]["outcome"] in ("succeeded", "returned"), other.results
    for agent in (one, other):
        agent.runner.close()


@scenario
def closing_kills_what_still_runs(work_dir):
    agent = Agent(work_dir)
    agent.start(sh(STUBBORN), python(DAEMON + "\ntime.sleep(600)"))
    agent.says("a", "ready")
    agent.says("b", "daemon")
    pids = [*agent.runner._pids.values(), *daemons(agent.text("b")), agent.keeper]
    agent.runner.close()
    assert not any(map(is_alive, pids))
    agent.runner.close()


@scenario
def signals_for_the_agents_group_do_not_touch_keeper_or_jobs(work_dir):
    agent = Agent(work_dir)
    agent.start(sh("echo ready; read never < %s; echo never" % fifo(work_dir)))
    agent.says("a", "ready")
    assert os.getsid(agent.keeper) == agent.keeper
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(agent.keeper, number)
    agent.start(["true"])
    agent.until(lambda: "b" in agent.results, "another job")
    assert agent.runner.running() == {("a", 1): "running"}
    agent.runner.close()


# ---------------------------------------------------------------- what a job sees


@scenario
def a_job_sees_a_clean_environment(work_dir):
    os.environ["AGENT_SECRET"] = "not for jobs"
    agent = Agent(work_dir, env={"LANG": "C.UTF-8"})
    agent.start(
        ["env", "-0"],
        env={"MINE": "is ü\nmine", "WM_JOB": "forged", "WM_KEEPER": "forged", "PATH": "/usr/bin:/bin"},
        array_index=0,
        shape={"cpus": 1500, "memory": 2**30},
    )
    agent.all_ended()
    found = dict(entry.split("=", 1) for entry in agent.text("a").rstrip("\0").split("\0"))
    slot = found.pop("HOME")
    assert found.pop("TMPDIR") == slot and slot.startswith(str(work_dir))
    assert found.pop("WM_KEEPER") != "forged"
    assert found == {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MINE": "is ü\nmine",
        "WM_JOB": "a",
        "WM_EPOCH": "1",
        "WM_ATTEMPT": "a.1",
        "WM_CPUS": "2",
        "WM_MEMORY": str(2**30),
        "WM_ARRAY_INDEX": "0",
    }, found


@scenario
def a_job_has_three_descriptors_and_default_signals(work_dir):
    leak = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leak, True)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    agent = Agent(work_dir)
    agent.start(sh("ls -l /proc/self/fd | cat; grep Sig /proc/self/status; pwd; ls -A; ps -o sid= -p $$; echo $$"))
    agent.all_ended()
    text = agent.text("a")
    names = [line.split(" ")[-3:] for line in text.splitlines() if "->" in line]
    # ls has its three, and the directory it lists
    assert [(fd, to.partition(":")[0]) for fd, _, to in names if "/proc/" not in to] == [
        ("0", "/dev/null"),
        ("1", "pipe"),
        ("2", "pipe"),
    ], text
    masks = {
        line.split(":")[0]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith(("SigI", "SigB"))
    }
    internal = 1 << 31 | 1 << 32  # 32 and 33 belong to the C library, which ignores them in what it spawns
    assert masks["SigIgn"] & ~internal == 0 and masks["SigBlk"] == 0, text
    *_, where, session, pid = text.split()
    assert where.startswith(str(work_dir / "slots")), text
    assert session == pid, "a session of its own"


@scenario
def an_owner_never_sees_what_another_left(work_dir):
    agent = Agent(work_dir, has=Shape(cpus=1000))
    look = "pwd; ls -A"

    def run(job, owner, script):
        agent.runner.start([{"job": job, "epoch": 1, "command": sh(script), "owner": owner}])
        agent.until(lambda: job in agent.results, job)
        assert agent.results[job]["exit_code"] == 0, agent.results[job]
        return agent.text(job).split()

    (first,) = run("a", "ann", look)
    (second,) = run("b", "ann", look)
    assert first == second, "the same owner gets the empty one again"
    run("c", "ann", "echo secret > left; mkdir -p deep/er; touch deep/er/file; chmod 000 deep")
    (third,) = run("d", "ann", look)
    assert third != first, "it was not empty"
    (other,) = run("e", "bob", look)
    assert other not in (first, third), "another owner"
    run("f", "ann", "chmod 755 .")
    (fourth,) = run("g", "ann", look)
    assert fourth not in (first, other)
    assert run("h", "ann", "rmdir $HOME; ln -s /etc $HOME") == []
    (fifth,) = run("i", "ann", look)
    assert fifth != fourth
    run("j", "ann", "rmdir $HOME; mkdir $HOME")
    run("k", "ann", "true")
    agent.start(["true"])
    agent.until(lambda: "l" in agent.results, "the last")
    wait_for(lambda: not os.listdir(work_dir / "trash"), "the removal of what was left")
    assert os.path.isdir("/etc")
    agent.runner.close()


@scenario
def what_an_earlier_keeper_left_is_removed(work_dir):
    for name in ("slots/7/data", "trash/9/data"):
        (work_dir / name).parent.mkdir(parents=True)
        (work_dir / name).write_text("secret")
    agent = Agent(work_dir)
    agent.start(sh("pwd; ls -A"))
    agent.all_ended()
    assert agent.text("a") == "%s/slots/10\n" % work_dir
    agent.start(["true"])
    agent.all_ended()
    wait_for(lambda: not os.listdir(work_dir / "trash"), "the removal")


def staged(work_dir, name, **files):
    """A folder as the stager puts it together: a file for each word, and a link to something of a cache."""
    folder = work_dir.parent / "staged" / name
    (folder / "deep").mkdir(parents=True)
    entry = work_dir.parent / "cache" / name
    entry.parent.mkdir(exist_ok=True)
    entry.write_text("shared\n")
    (folder / "deep" / "link").symlink_to(entry)
    for each, text in files.items():
        (folder / each).write_text(text)
    return folder, entry


def with_files(agent, name, command, folder="", when=0, owner="me", visible=(), **more):
    assignment = {"job": name, "epoch": 1, "command": command, "owner": owner, **more}
    agent.runner.start([assignment], {(name, 1): (str(folder), tuple(map(str, visible)), when)})


@scenario
def what_was_put_together_is_in_the_jobs_directory(work_dir):
    agent = Agent(work_dir / "jobs")
    folder, entry = staged(work_dir / "jobs", "a.1", one="first\n", two="second\n")
    with_files(agent, "a", sh("ls -A . deep; cat one two deep/link"), folder, visible=[entry])
    agent.all_ended()
    assert agent.text("a").split() == [".:", "deep", "one", "two", "deep:", "link", "first", "second", "shared"]
    assert not folder.exists() and entry.read_text() == "shared\n"
    assert agent.kept["a"] == ""
    agent.start(sh("ls -A"))
    agent.all_ended()
    assert agent.text("b") == "", "the next job of this owner finds nothing"


@scenario
def a_directory_is_set_aside_when_something_of_it_is_wanted(work_dir):
    agent = Agent(work_dir / "jobs")
    good, bad = sh("echo x > out"), sh("echo x > out; exit 3")
    wanted = {"never": (good, 0, False), "well": (good, 1, True), "badly": (bad, 1, False), "always": (bad, 2, True)}
    for name, (command, when, _) in wanted.items():
        with_files(agent, name, command, "", when)
    with_files(agent, "nothing", ["no-such-command"], "", 2)
    with_files(agent, "limited", sh("echo x > out; sleep 600"), "", 2, time_limit_ms=200, grace_ms=100)
    with_files(agent, "cancelled", sh("echo up; echo x > out; sleep 600"), "", 2)
    agent.says("cancelled", "up")
    agent.runner.cancel("cancelled", 1)
    with_files(agent, "removed", sh("rm -rf $HOME"), "", 2)
    with_files(agent, "replaced", sh("rm -rf $HOME; ln -s /etc $HOME"), "", 2)
    agent.all_ended()
    for name, (_, _, kept) in wanted.items():
        assert bool(agent.kept[name]) == kept, (name, agent.kept)
        assert not kept or Path(agent.kept[name], "out").read_text() == "x\n"
    assert {name for name, kept in agent.kept.items() if kept} == {"well", "always", "limited"}, agent.kept
    assert len(os.listdir(work_dir / "jobs" / "kept")) == 3
    agent.runner.discard([agent.kept["well"]])
    wait_for(lambda: not Path(agent.kept["well"]).exists(), "its removal")
    assert Path(agent.kept["always"]).exists() and Path("/etc/passwd").exists()
    agent.runner.close()
    again = Agent(work_dir / "jobs")
    again.start(["true"])
    again.all_ended()
    wait_for(lambda: not os.listdir(work_dir / "jobs" / "kept"), "what nobody asks for any more")


@scenario
def a_shortage_of_the_machine_costs_no_job_its_files(work_dir):
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    agent = Agent(work_dir / "jobs")
    for number in range(60):
        folder, entry = staged(work_dir / "jobs", "j%d.1" % number, word="of %d\n" % number)
        with_files(agent, "j%d" % number, sh("cat word; sleep 0.05"), folder, visible=[entry])
    agent.all_ended()
    assert {result["outcome"] for result in agent.results.values()} == {"succeeded"}
    for number in range(60):
        assert agent.text("j%d" % number) == "of %d\n" % number


@scenario
def a_folder_that_is_gone_is_the_workers_fault(work_dir):
    agent = Agent(work_dir / "jobs")
    with_files(agent, "a", ["true"], work_dir / "staged" / "gone")
    agent.all_ended()
    assert (agent.results["a"]["outcome"], agent.results["a"]["reason"]) == ("returned", "start-failed")


@scenario
def a_shortage_of_the_machine_fails_no_job(work_dir):
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    agent = Agent(work_dir)
    jobs = ["j%d" % n for n in range(100)]
    agent.runner.start([{"job": job, "epoch": 1, "command": ["sleep", "0.05"], "owner": "me"} for job in jobs])
    agent.all_ended()
    assert {result["outcome"] for result in agent.results.values()} == {"succeeded"}
    assert len(agent.results) == 100


@scenario
def two_keepers_never_share_a_directory(work_dir):
    first = Agent(work_dir)
    first.start(sh("read never < %s" % fifo(work_dir)))
    first.until(lambda: "a" in first.started, "the first")
    second = Agent(work_dir)
    second.start(["true"])
    for _ in range(5):
        second.read()
    assert not second.started
    first.runner.close()
    second.all_ended()
    assert second.results["a"]["outcome"] == "succeeded"


def main():
    name, work_dir = sys.argv[1:]
    check = SCENARIOS.get(name) or {"an_agent_that_waits": an_agent_that_waits}[name]
    check(Path(work_dir).resolve())


# ---------------------------------------------------------------- progress and hooks


@scenario
def progress_is_found_in_what_jobs_write(work_dir):
    agent = Agent(work_dir / "jobs")
    last = work_dir / "last"
    wait = "while [ ! -e %s ]; do sleep 0.05; done" % last
    agent.start(["/bin/sh", "-c", "echo @progress 3/4 far; " + wait])
    agent.start(["/bin/sh", "-c", "echo 12 %; " + wait], work={"progress_regex": r"(\d+) %"})
    agent.until(lambda: len(agent.told) == 2, "their progress")
    assert {event.job: tuple(event)[2:] for event in agent.told} == {"a": (3, 4, "far"), "b": (12, 100, "")}
    last.touch()
    agent.until(lambda: len(agent.results) == 2, "their end")
    agent.runner.close()


@scenario
def hooks_stand_around_jobs(work_dir):
    agent = Agent(work_dir / "jobs")
    log = work_dir / "log"
    before, after = "echo before $WM_JOB >> %s; test $WM_JOB != b" % log, "echo after $WM_JOB $WM_EXIT_CODE >> %s" % log
    agent.runner.use_hooks({"before": before, "after": after, "limit_ms": 60_000, "env": {"PATH": os.environ["PATH"]}})
    agent.start(["/bin/sh", "-c", "echo job >> %s; exit 5" % log])
    agent.until(lambda: "a" in agent.results, "the first")
    agent.start(["true"])
    agent.until(lambda: "b" in agent.results, "the second")
    assert log.read_text().split("\n") == ["before a", "job", "after a 5", "before b", ""]
    assert agent.results["a"]["exit_code"] == 5
    assert (agent.results["b"]["outcome"], agent.results["b"]["reason"]) == ("returned", "hook-failed")
    assert [(event.job, event.hook, event.wrong) for event in agent.told] == [
        ("b", "before-job", "ended with exit status 1")
    ]
    agent.runner.close()


if __name__ == "__main__":
    main()
