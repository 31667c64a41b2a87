"""What isolation promises, with real processes. Run by test_isolation.py, as root and as somebody else:

    python isolation_scenarios.py <scenario> <empty directory that everybody may enter>

Stdlib only and Python 3.9, because the agent's machine may have no more.
"""
# It speaks of descriptors and /proc, in the words of Python 3.9:
# ruff: noqa: B905, PTH110, PTH208, UP031

import os
import stat
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.integration.keeper_scenarios import Agent, all_gone, children_of, is_alive, sh, wait_for
from worker.isolation import found
from worker.protocol import Shape

SCENARIOS = {}
SANDBOX = {"isolation": "sandbox"}
SECRET = "the-secret-of-ann"
# Finds every process that it can see and everything about slots that it can reach: what of it holds the secret?
SPY = """
echo spying as $(id -u)
cd /proc; grep -ls "the-secret-o[f]-ann" [0-9]*/environ [0-9]*/cmdline 2>/dev/null | grep . && echo "FOUND in a process"
ls -d "$1"/*/ 2>/dev/null | grep -v "^$HOME/$" && echo "FOUND a list of slots"
for each in "$1"/1 "$1"/2 "$1"/3; do cat "$each"/results 2>/dev/null && echo "FOUND a file"; done
cat "$2" 2>/dev/null && echo "FOUND the token"
cat "$3/jobs/keeper.lock" 2>/dev/null && echo "FOUND what the worker keeps"
stack=$(grep -s stack "/proc/$4/maps" | cut -d" " -f1)
[ -n "$stack" ] && dd if="/proc/$4/mem" bs=4096 skip=$((0x${stack%-*} / 4096)) \\
    count=$(((0x${stack#*-} - 0x${stack%-*}) / 4096)) 2>/dev/null | grep -q "the-secret-o[f]-ann" \\
    && echo "FOUND in memory"
ls "/proc/$4/fd" >/dev/null 2>&1 && echo "FOUND open files"
cat "/proc/$4/cwd/results" 2>/dev/null && echo "FOUND a directory by the process in it"
kill -0 "$4" 2>/dev/null && echo "FOUND a process to signal"
( : < "/proc/$5/mem" ) 2>/dev/null && echo "FOUND the memory of the worker"
echo end of spying
"""


def scenario(check):
    SCENARIOS[check.__name__] = check
    return check


def worker(folder, wanted=(), job_user="none", **more):
    """An agent's runner in a work dir, with what was found out there; the folder's `token` is the worker's."""
    work_dir = folder / "work" / "w-1"
    (work_dir / "jobs").mkdir(parents=True)
    token = folder / "token"
    token.write_text("token-of-the-worker\n")
    token.chmod(0o600)
    learned = found.find(
        wanted, job_user, str(work_dir), [str(token)], [], os.environ, registry=str(folder / "users" / "known")
    )
    assert learned.cannot == {}, learned
    return Agent(work_dir / "jobs", isolation=learned.told, **more)


READ = (
    "cat in/file; cat in/file; touch in/file in/new 2>/dev/null && echo WROTE; rm -rf in/file 2>/dev/null; cat $1 || :"
)


def inputs_of(folder, agent):
    """A staged folder with a link to an entry of a cache, which is the worker's own; and the entry beside it, which no
    job was given."""
    jobs = folder / "work" / "w-1" / "jobs"
    cache = folder / "work" / "cache" / "entries" / "scope"
    entries = []
    for name in ("given", "other"):
        entry = cache / name / "data"
        entry.parent.mkdir(parents=True)
        entry.write_text("%s\n" % name)
        entry.chmod(0o444)
        entries.append(entry)
    staged = jobs.parent / "staged" / "job"
    (staged / "in").mkdir(parents=True)
    (staged / "in").chmod(0o755)
    (staged / "in" / "file").symlink_to(entries[0])
    return staged, entries


def reads_its_inputs(folder, agent, work, owner="ann"):
    """In a sandbox or a container: what it was given, and nothing else."""
    staged, (given, other) = inputs_of(folder, agent)
    assignment = {"job": "reads", "epoch": 1, "command": ["sh", "-c", READ, "sh", str(other)], "owner": owner}
    agent.runner.start([{**assignment, "work": work}], {("reads", 1): (str(staged), (str(given),), 1)})
    agent.until(lambda: "reads" in agent.results, "it")
    text = agent.text("reads")
    assert text.startswith("given\ngiven\n") and "WROTE" not in text and "other\n" not in text, text
    assert (given.read_text(), other.read_text()) == ("given\n", "other\n")
    assert agent.results["reads"]["outcome"] == "succeeded", agent.results
    assert os.listdir(agent.kept["reads"]) == ["in"], "its directory is set aside"


def start_as(agent, owner, command, work=None, **more):
    """Like `start`, of this owner."""
    name = chr(ord("a") + len(agent.runner.running()) + len(agent.results))
    agent.runner.start([{"job": name, "epoch": 1, "command": command, "owner": owner, "work": work or {}, **more}])
    return name


# ---------------------------------------------------------------- owners


def spied(folder, agent, work):
    """Ann's job runs, with a secret in its variables and its files; Bob's looks for them."""
    ann = start_as(agent, "ann", sh("echo $SECRET > results; echo up; sleep 600"), work, env={"SECRET": SECRET})
    agent.says(ann, "up")
    slots = folder / "work" / "w-1" / "jobs" / "slots"
    words = [str(slots), str(folder / "token"), str(folder / "work" / "w-1")]
    words += [str(process_of(agent, ann)), str(os.getpid())]
    bob = start_as(agent, "bob", ["sh", "-c", SPY, "spy", *words], work)
    agent.until(lambda: bob in agent.results, "the spy")
    text = agent.text(bob)
    assert "end of spying" in text, text
    again = start_as(agent, "ann", sh("id -u"), work)
    agent.until(lambda: again in agent.results, "another job of ann")
    agent.runner.stop(0, "enough")
    agent.all_ended()
    return text, agent.text(again).strip()


def process_of(agent, job):
    """Of a job that has its secret in its environment; the innermost, where wrappers stand around it."""
    inner = [agent.runner._pids[job, 1]]
    while children_of(inner[-1]):
        inner.append(children_of(inner[-1])[0])
    return next(pid for pid in reversed(inner) if SECRET.encode() in Path("/proc/%d/environ" % pid).read_bytes())


@scenario
def two_owners_in_sandboxes_see_nothing_of_each_other(folder):
    text, ann = spied(folder, worker(folder, ["sandbox"]), SANDBOX)
    assert "FOUND" not in text, text
    if os.geteuid() == 0:
        assert "spying as 0" not in text and ann not in text.splitlines()[0], text


@scenario
def two_owners_with_users_of_their_own_see_nothing_of_each_other(folder):
    text, ann = spied(folder, worker(folder, job_user="auto"), None)
    assert "FOUND" not in text, text
    assert int(ann) >= 700000 and text.splitlines()[0] != "spying as " + ann, (ann, text)


@scenario
def two_owners_as_plain_processes_do_see_each_other(folder):
    """The docs say so; and it shows that the spy finds what there is to find."""
    text, _ = spied(folder, worker(folder), None)
    found = ["in a process", "a list of slots", "a file", "the token", "open files", "a process to signal"]
    found += ["a directory by the process in it"]
    if os.geteuid() == 0:  # others may be kept from it by the kernel (yama)
        found += ["in memory", "the memory of the worker"]
    for what in found:
        assert "FOUND " + what in text, text


@scenario
def a_user_stays_the_owners(folder):
    first, second = worker(folder, job_user="auto"), []
    for owner in ("ann", "bob", "ann"):
        job = start_as(first, owner, sh("id -u; id -G; touch mine; stat -c %u . mine"))
        first.until(lambda job=job: job in first.results, "it")
        second.append(set(first.text(job).split()))
    assert all(len(numbers) == 1 for numbers in second), second
    assert second[0] == second[2] != second[1], second


@scenario
def what_cannot_be_started_says_why_as_before(folder):
    agent = worker(folder, job_user="auto")
    missing = start_as(agent, "ann", ["no-such-command"])
    (folder / "script").write_text("no interpreter")
    (folder / "script").chmod(0o755)
    nothing = start_as(agent, "ann", [str(folder / "script")])
    (folder / "mine").write_text("#!/bin/sh\n")
    (folder / "mine").chmod(0o700)
    refused = start_as(agent, "ann", [str(folder / "mine")])
    killed = start_as(agent, "ann", sh("kill -SEGV $$"))
    agent.all_ended()
    codes = [agent.results[job]["exit_code"] for job in (missing, nothing, refused)]
    assert codes == [127, 126, 126], agent.results
    assert all(agent.results[job]["reason"] == "start-failed" for job in (missing, nothing, refused)), agent.results
    assert agent.results[killed]["signal"] == 11, agent.results


@scenario
def a_library_of_the_job_is_loaded_by_nothing_but_the_job(folder):
    """Whoever loads it complains on the output: the job's own programs do, and nothing before them."""
    for number, (wanted, user, work) in enumerate(
        [(["sandbox"], "none", SANDBOX), ((), "auto" if os.geteuid() == 0 else "none", None)]
    ):
        sub = folder / str(number)
        sub.mkdir()
        sub.chmod(0o755)
        agent = worker(sub, wanted, user)
        job = start_as(agent, "ann", ["true"], work, env={"LD_PRELOAD": "/no/such/library.so"})
        agent.all_ended()
        said = [line for line in agent.text(job).splitlines() if "library.so" in line]
        assert 1 <= len(said) <= 2, agent.text(job)  # `env`, which is the job's already, and `true`


# ---------------------------------------------------------------- the sandbox


@scenario
def a_sandboxed_job_writes_only_where_it_may(folder):
    agent = worker(folder, ["sandbox"])
    outside = folder / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    script = """
    for each in / /etc /usr/bin "%s"; do touch "$each/new" 2>/dev/null && echo "WROTE to $each"; done
    for each in . "$HOME" "$TMPDIR" /tmp /var/tmp /dev/shm; do touch "$each/new" || echo "CANNOT write to $each"; done
    ls /tmp /home /root; hostname other 2>/dev/null && echo RENAMED
    mount -t tmpfs none /mnt 2>/dev/null && echo MOUNTED
    """
    job = start_as(agent, "ann", sh(script % outside), SANDBOX)
    agent.all_ended()
    text = agent.text(job)
    for word in ("WROTE", "CANNOT", "RENAMED", "MOUNTED"):
        assert word not in text, text
    assert not (outside / "new").exists() and not os.path.exists("/tmp/new")


@scenario
def a_sandboxed_job_reads_its_inputs_and_no_others(folder):
    reads_its_inputs(folder, worker(folder, ["sandbox"]), SANDBOX)


@scenario
def a_sandboxed_job_reads_its_inputs_where_nothing_else_hides_them(folder):
    """A cache elsewhere is hidden like the work dir."""
    work_dir = folder / "a" / "w-1"
    (work_dir / "jobs").mkdir(parents=True)
    staged, (given, other) = inputs_of(folder, None)
    learned = found.find(
        ["sandbox"], "none", str(work_dir), [], [], os.environ, str(folder / "users" / "known"), [str(folder / "work")]
    )
    agent = Agent(work_dir / "jobs", isolation=learned.told)
    here = work_dir / "staged"
    staged.rename(here)
    command = ["sh", "-c", READ, "sh", str(other)]
    assignment = {"job": "reads", "epoch": 1, "command": command, "owner": "ann", "work": SANDBOX}
    agent.runner.start([assignment], {("reads", 1): (str(here), (str(given),), 0)})
    agent.all_ended()
    text = agent.text("reads")
    assert text.startswith("given\ngiven\n") and "WROTE" not in text and "other\n" not in text, text


@scenario
def a_user_of_its_own_owns_what_was_put_together_for_it(folder):
    agent = worker(folder, job_user="auto")
    staged = folder / "work" / "w-1" / "staged"
    (staged / "deep").mkdir(parents=True)
    (staged / "deep" / "copy").write_text("mine\n")
    (staged / "deep" / "link").symlink_to("/etc/passwd")
    script = "stat -c %u . deep deep/copy | sort -u; id -u; echo more >> deep/copy; cat deep/copy"
    assignment = {"job": "owns", "epoch": 1, "command": sh(script), "owner": "ann"}
    agent.runner.start([assignment], {("owns", 1): (str(staged), (), 2)})
    agent.all_ended()
    first, second, *rest = agent.text("owns").split()
    assert first == second and int(first) >= 700000 and rest == ["mine", "more"], agent.text("owns")
    assert Path("/etc/passwd").stat().st_uid == 0
    assert Path(agent.kept["owns"]).parent.stat().st_mode & 0o077 == 0, "nobody else comes to what is kept"


@scenario
def a_sandboxed_job_has_a_clean_start(folder):
    agent = worker(folder, ["sandbox"])
    script = "ls /proc/self/fd; grep -E 'SigIgn|CapEff|NoNewPrivs' /proc/self/status; env | cut -d= -f1 | sort"
    job = start_as(agent, "ann", sh(script), SANDBOX, env={"SAID": "two\nlines 'and' \"quotes\" $HOME"})
    plain = start_as(agent, "ann", sh("env | cut -d= -f1 | sort"), env={"SAID": "two\nlines 'and' \"quotes\" $HOME"})
    told = start_as(agent, "ann", sh('echo "$SAID"'), SANDBOX, env={"SAID": "two\nlines 'and' \"quotes\" $HOME"})
    agent.all_ended()
    words = agent.text(job).split()
    assert words[:4] == ["0", "1", "2", "3"], words  # 3 is the list's own
    facts = dict(zip(words[4:10:2], words[5:10:2]))
    assert int(facts["SigIgn:"], 16) & 0x7FFF == 0, facts
    assert int(facts["CapEff:"], 16) == 0 and facts["NoNewPrivs:"] == "1", facts
    assert words[10:] == agent.text(plain).split(), words
    assert agent.text(told) == "two\nlines 'and' \"quotes\" $HOME\n"


@scenario
def a_sandboxed_job_can_be_kept_from_the_network(folder):
    agent = worker(folder, ["sandbox"])
    count = sh("grep -c : /proc/net/dev; cat /proc/net/route | wc -l")
    with_it = start_as(agent, "ann", count, SANDBOX)
    without = start_as(agent, "ann", count, {**SANDBOX, "network": False})
    agent.all_ended()
    ours = str(sum(":" in line for line in Path("/proc/net/dev").read_text().splitlines()))
    assert agent.text(with_it).split()[0] == ours
    assert agent.text(without).split() == ["1", "1"], agent.text(without)  # loopback, and a headline


@scenario
def the_devices_of_gpus_are_seen_in_a_sandbox_by_who_asked_for_one(folder):
    device = "/dev/nvidia-of-a-test-%d" % os.getpid()
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    try:
        agent = worker(folder, ["sandbox"], has=Shape(cpus=2000, gpus=2), gpus=("GPU-a", "GPU-b"))
        look = sh("ls %s; echo gpu=$CUDA_VISIBLE_DEVICES.; sleep 600" % device)
        ann = start_as(agent, "ann", look, SANDBOX, shape={"cpus": 1, "gpus": 1})
        bob = start_as(agent, "bob", look, SANDBOX, shape={"cpus": 1, "gpus": 1})
        eve = start_as(agent, "eve", look, SANDBOX, shape={"cpus": 1})
        for job in (ann, bob, eve):
            agent.says(job, "gpu=")
        agent.runner.stop(0, "enough")
        agent.all_ended()
    finally:
        Path(device).unlink()
    seen = {job: agent.text(job).splitlines() for job in (ann, bob, eve)}
    assert seen[ann][0] == seen[bob][0] == device, seen
    assert {seen[ann][1], seen[bob][1]} == {"gpu=GPU-a.", "gpu=GPU-b."}, seen
    assert device not in seen[eve] and seen[eve][-1] == "gpu=.", seen


@scenario
def open_files_of_a_sandboxed_job_are_limited_whatever_its_keeper_has_open(folder):
    agent = worker(folder, ["sandbox"])
    others = [start_as(agent, "ann", sh("echo up; sleep 600")) for _ in range(20)]
    for job in others:
        agent.says(job, "up")
    counts = sh("ulimit -Sn; ulimit -Hn")
    few = start_as(agent, "ann", counts, {**SANDBOX, "max_files": 20})
    none = start_as(agent, "ann", counts, {**SANDBOX, "max_files": 1})
    agent.until(lambda: {few, none} <= set(agent.results), "both")
    assert agent.text(few).split() == ["20", "20"], agent.text(few)
    assert agent.results[none]["outcome"] == "failed", "its own fault: no other worker could run it"
    agent.runner.stop(0, "enough")
    agent.all_ended()


@scenario
def cancel_means_the_same_in_a_sandbox(folder):
    agent = worker(folder, ["sandbox"])
    kind = start_as(agent, "ann", sh('trap "echo got it; exit 7" TERM; echo up; while :; do sleep 0.05; done'), SANDBOX)
    deaf = start_as(agent, "ann", sh('trap "" TERM; echo up; while :; do sleep 0.05; done'), SANDBOX, grace_ms=300)
    plain = start_as(agent, "ann", sh("echo up; exec sleep 600"), SANDBOX, grace_ms=60_000)
    late = start_as(agent, "ann", sh("echo up; exec sleep 600"), SANDBOX, time_limit_ms=700)
    for job in (kind, deaf, plain):
        agent.says(job, "up")
        agent.runner.cancel(job, 1)
    agent.all_ended()
    ends = {job: (agent.results[job]["outcome"], agent.results[job]["exit_code"]) for job in (kind, deaf, plain, late)}
    assert ends[kind] == ("cancelled", 7) and "got it" in agent.text(kind), agent.results
    assert agent.results[deaf]["signal"] == 9 and ends[deaf][0] == "cancelled", agent.results
    assert ends[plain] == ("cancelled", 128 + 15), agent.results
    assert agent.results[late]["reason"] == "time-limit", agent.results


@scenario
def a_signal_of_the_jobs_own_reaches_it_in_a_sandbox(folder):
    agent = worker(folder, ["sandbox"])
    hears = "trap 'echo saved; exit 0' USR1; echo up; while :; do sleep 0.05; done"
    job = start_as(agent, "ann", sh(hears), SANDBOX)
    agent.says(job, "up")
    os.killpg(agent.runner._pids[job, 1], 10)
    agent.all_ended()
    assert (agent.results[job]["exit_code"], "saved" in agent.text(job)) == (0, True), agent.results


@scenario
def exit_statuses_come_out_of_a_sandbox(folder):
    agent = worker(folder, ["sandbox"])
    jobs = [start_as(agent, "ann", c, SANDBOX) for c in (["true"], sh("exit 3"), ["no-such"], sh("kill -SEGV $$"))]
    agent.all_ended()
    assert [agent.results[job]["exit_code"] for job in jobs] == [0, 3, 127, 128 + 11], agent.results
    assert "SIGSEGV" in agent.results[jobs[3]]["text"], agent.results


def pids_with(word):
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and word in cmdline(int(name)) and is_alive(int(name)) and int(name) != os.getpid()
    ]


def cmdline(pid):
    try:
        return Path("/proc/%d/cmdline" % pid).read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


@scenario
def nothing_gets_out_of_a_sandbox_alive(folder):
    """Strays end with the job; with a killed keeper, and with a killed agent (its channel closes), everything does."""
    mark = "60%06d" % os.getpid()
    stray = sh("setsid sh -c 'sleep %s & sleep %s' & echo up; [ -n \"$END\" ] || sleep 600" % (mark, mark))
    agent = worker(folder, ["sandbox"])
    job = start_as(agent, "ann", stray, SANDBOX, env={"END": "1"})
    agent.until(lambda: job in agent.results, "the end")
    all_gone(pids_with(mark))
    for end in ("keeper", "agent"):
        job = start_as(agent, "ann", stray, SANDBOX)
        agent.says(job, "up")
        wait_for(lambda: len(pids_with(mark)) >= 2, "the strays")
        if end == "keeper":
            os.kill(agent.keeper, 9)
        else:
            os.close(agent.runner.fileno())
        wait_for(lambda: not pids_with(mark), "the end of %s" % pids_with(mark))
        if end == "keeper":
            second = folder / "second"
            second.mkdir()
            second.chmod(0o755)
            agent = worker(second, ["sandbox"])


@scenario
def what_is_not_there_is_refused(folder):
    agent = worker(folder)
    jobs = [start_as(agent, "ann", ["touch", str(folder / "ran")], {"isolation": kind, "image": "x"})
            for kind in ("sandbox", "docker", "podman", "apptainer")]  # fmt: skip
    agent.all_ended()
    for job in jobs:
        assert agent.results[job]["outcome"] == "returned", agent.results
        assert "cannot run a job by" in agent.results[job]["text"], agent.results
    assert not (folder / "ran").exists()


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
