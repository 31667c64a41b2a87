"""How a job is kept apart: what is started for it, word by word; whose fault an image is; which user is whose."""

from pathlib import Path
from typing import Any

import pytest

from worker import answers
from worker.isolation import apptainer, containers, sandbox, ways
from worker.isolation.found import JobUserError, find
from worker.isolation.users import Users, chosen, numbers
from worker.options import UsageError, parse

# ---------------------------------------------------------------- what a job asks for


@pytest.mark.parametrize(
    ("work", "isolation", "told"),
    [
        (None, {}, None),
        ({}, {}, None),
        ({"max_files": 20}, {}, None),
        ({"isolation": "process"}, {}, None),
        ({"isolation": "sandbox"}, {}, ("sandbox", "", True)),
        ({"isolation": "docker", "image": "a:1", "network": False}, {}, ("docker", "a:1", False)),
        (None, {"each_owner": True}, ("process", "", True)),
    ],
)
def test_what_the_keeper_is_told(work: Any, isolation: dict[str, Any], told: Any) -> None:
    assert ways.told(work, isolation) == told


@pytest.mark.parametrize(
    ("work", "mistake"),
    [
        ({"isolation": "sandbox", "network": False}, ""),
        ({"isolation": "docker", "image": "a/b:1"}, ""),
        ({"isolation": "docker"}, "needs an image"),
        ({"isolation": "sandbox", "image": "a"}, "has no image"),
        ({"isolation": "chroot"}, "isolation makes no sense"),
        ({"isolation": ["sandbox"]}, "isolation makes no sense"),
        ({"isolation": "docker", "image": "--privileged"}, "image makes no sense"),
        ({"isolation": "docker", "image": "a", "cpu_affinity": True}, "cannot bind"),
        ({"network": False}, "cannot be kept from the network"),
        ({"network": 0, "isolation": "sandbox"}, "network makes no sense"),
        ({"seccomp": True}, "does not know seccomp"),
    ],
)
def test_what_makes_no_sense_is_not_run(work: dict[str, Any], mistake: str) -> None:
    said = answers.mistake_in({"command": ["true"], "work": work})
    assert mistake in said
    assert bool(said) == bool(mistake)


# ---------------------------------------------------------------- the sandbox

VIEW = sandbox.View(hidden=("/home", "/space"), masked=("/etc/token",), shown=("/home/ann/env",))


def words(user: tuple[int, int] | None = None, network: bool = True, **more: Any) -> list[str]:
    return sandbox.arguments(VIEW, "/space/w/jobs/slots/1", user, network, **more).decode().split("\0")[:-1]


def test_a_sandbox_hides_before_it_shows() -> None:
    said = " ".join(words())
    order = [
        "--ro-bind / /",
        "--tmpfs /home",
        "--tmpfs /space",
        "--ro-bind /home/ann/env /home/ann/env",
        "--ro-bind-try /dev/null /etc/token",
        "--dir /space/w/jobs/slots",
        "--bind /space/w/jobs/slots/1 /space/w/jobs/slots/1",
    ]
    places = [said.index(each) for each in order]
    assert places == sorted(places)
    assert "--die-with-parent" in said
    assert "--unshare-net" not in said
    assert "--unshare-net" in words(network=False)


def test_only_root_keeps_what_it_needs_to_change_the_user() -> None:
    assert "--unshare-user" in words()
    assert "--cap-add" not in words()
    assert "--unshare-user" not in words((7, 7))
    assert words((7, 7)).count("--cap-add") == 3


def test_devices_and_cache_entries() -> None:
    said = " ".join(words(devices=["/dev/nvidia0"], readable=["/cache/ab"], writable=["/space/saved/1"]))
    assert "--dir /space/saved --bind /space/saved/1 /space/saved/1" in said
    assert "--dev-bind /dev/nvidia0 /dev/nvidia0" in said
    assert "--ro-bind /cache/ab /cache/ab" in said


def test_the_command_of_a_sandbox_has_no_variable_and_changes_the_user_before_the_job_is_heard() -> None:
    programs = sandbox.Programs("/b", "/e", "/s")
    said = sandbox.command(programs, None, ["x", "y"])
    assert said[-7:] == ["job", sandbox.ENV_FILE, "/e", sandbox.RESTORE, "--", "x", "y"]
    assert "/s" not in said
    said = sandbox.command(programs, (5, 6), ["x"])
    assert said.index("--reuid=5") < said.index(sandbox.ENV_FILE)
    assert {"--regid=6", "--clear-groups", "--no-new-privs", "--bounding-set=-all"} <= set(said)
    assert sandbox.RESTORE == "--default-signal=HUP,INT,QUIT,TERM,USR1,USR2"


def test_variables_are_quoted() -> None:
    text = sandbox.env_text({"A": "it's $HOME\n`id`"}).decode()
    assert text.splitlines()[0] == "unset PWD OLDPWD SHLVL"
    assert "export A='it'\"'\"'s $HOME\n`id`'" in text


def test_what_lies_in_something_hidden_is_hidden_with_it(tmp_path: Path) -> None:
    outer, inner, token = tmp_path / "a", tmp_path / "a" / "b", tmp_path / "token"
    inner.mkdir(parents=True)
    token.write_text("x")
    (inner / "token").write_text("x")
    view = sandbox.view([str(inner), str(outer), str(tmp_path / "no")], [str(inner / "token")], [])
    assert (view.hidden, view.masked) == ([str(outer)], [])


def test_the_first_folder_that_others_cannot_enter(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for folder in (tmp_path / "a", inner):
        folder.chmod(0o711)
    above = sandbox.first_closed(str(tmp_path))
    assert sandbox.first_closed(str(inner)) == above
    (tmp_path / "a").chmod(0o700)
    assert sandbox.first_closed(str(inner)) == (above or str(tmp_path / "a"))


# ---------------------------------------------------------------- containers


def container(engine: str = "/usr/bin/docker", **more: Any) -> list[str]:
    share = more.pop("share", containers.Share(1500, 1 << 20, ["GPU-1", "GPU-2"], 20, 50))
    found = containers.run(
        engine, "wm-j1-2-ab", "a:1", ["run", "--it"], "/w/s,1", "/p/env", share, (7, 8), more.pop("network", False),
        {"wm.lock": "/l"}, "/p/note", **more,
    )  # fmt: skip
    return found[found.index("run", 4) :]


def test_only_one_whose_memory_is_limited_stays_until_it_was_asked_how_it_ended() -> None:
    assert container(share=containers.Share(1000, 0, []))[:2] == ["run", "--rm"]
    assert "--rm" not in container()
    asks = containers.inquire("/usr/bin/docker", "wm-1", "/p/a.oom", 5)
    assert asks[3:] == ["inquest", "/usr/bin/docker", "wm-1", "/p/a.oom", "5"]
    assert [containers.asked_again(status) for status in (0, 3 << 8, 137 << 8, 9)] == [0, 1, 5, 0]


def test_a_container_word_by_word() -> None:
    assert " ".join(container()) == (
        "run --pull=never --name wm-j1-2-ab --hostname job --label wm.lock=/l --user 7:8 --cap-drop ALL"
        ' --security-opt no-new-privileges --mount type=bind,"source=/w/s,1","target=/w/s,1" --workdir /w/s,1'
        " --env-file /p/env --cpus 1.500 --memory 1048576 --memory-swap 1048576 --pids-limit 20 --ulimit nofile=50:50"
        ' --gpus "device=GPU-1,GPU-2" --network none --init --entrypoint run a:1 --it'
    )


def test_podman_names_gpus_otherwise_and_keeps_our_number() -> None:
    said = container("/usr/bin/podman", rootless=True)
    assert "--gpus" not in said
    assert said[said.index("--device") + 1] == "nvidia.com/gpu=GPU-1"
    assert "--userns=keep-id" in said
    assert "--userns=keep-id" not in container("/usr/bin/podman")


def test_no_limit_is_no_word() -> None:
    said = container(share=containers.Share(0, 0, []), network=True)
    assert not {"--cpus", "--memory", "--pids-limit", "--ulimit", "--gpus", "--network"} & set(said)


def test_a_variable_with_a_line_break_is_refused() -> None:
    assert containers.env_text({"A": "1 2", "B": "#'$x"}) == "A=1 2\nB=#'$x\n"
    for value in ("a\nB=c", "a\rb"):
        with pytest.raises(ValueError, match="A holds a line break"):
            containers.env_text({"A": value})


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("Error response from daemon: manifest for x:1 not found: manifest unknown: manifest unknown", "missing"),
        ("pull access denied for x, repository does not exist or may require login", "missing"),
        ("denied: requested access to the resource is denied", "missing"),
        ("no matching manifest for linux/arm64 in the manifest list entries", "missing"),
        ("invalid reference format", "missing"),
        ("dial tcp: lookup r.invalid: no such host", "unreachable"),
        ("net/http: TLS handshake timeout", "unreachable"),
        ("toomanyrequests: You have reached your pull rate limit", "unreachable"),
        ("received unexpected HTTP status: 503 Service Unavailable", "unreachable"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", "unreachable"),
        ("", "unreachable"),
    ],
)  # fmt: skip
def test_whose_fault_an_image_is(said: str, fault: str) -> None:
    assert containers.pull_failure(said) == fault


def test_containers_of_a_living_keeper_are_not_abandoned(tmp_path: Path) -> None:
    import fcntl

    held, free = tmp_path / "held", tmp_path / "free"
    free.touch()
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = f"a {held}\nb {free}\nc {tmp_path}/gone\nd \n"
        assert containers.abandoned(lines) == ["b", "c"]


def test_apptainer_word_by_word() -> None:
    said = apptainer.run("/a", "/i.sif", ["x", "--y"], "/w/1", "/p/env", gpus=True, network=False, readable=["/c"])
    assert " ".join(said) == (
        "/a --silent exec --containall --no-home --no-privs --env-file /p/env --bind /w/1:/w/1:rw --pwd /w/1"
        " --bind /c:/c:ro --nv --net --network none /i.sif x --y"
    )
    with pytest.raises(ValueError, match="colon"):
        apptainer.bind("/a:b", "rw")


# ---------------------------------------------------------------- users


def test_an_owners_number_is_its_own_and_stays(tmp_path: Path) -> None:
    registry = str(tmp_path / "users" / "known")
    here, there = Users(registry), Users(registry)
    ann, bob = here.of("ann"), there.of("bob")
    assert ann == (700_000, 700_000)
    assert bob == (700_001, 700_001)
    assert (there.of("ann"), Users(registry).of("bob")) == (ann, bob)
    assert Path(registry).stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_cut_short_takes_its_number_along(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("ann\nbo")
    users = Users(str(tmp_path / "known"))
    assert users.of("bob") == (700_002, 700_002)
    assert users.of("ann") == (700_000, 700_000)


def test_numbers_come_to_an_end(tmp_path: Path) -> None:
    users = Users(str(tmp_path / "known"), 10, 11)
    users.of("a"), users.of("b")
    with pytest.raises(OSError, match="used up"):
        users.of("c")


def test_every_list_of_numbers_has_a_name_of_its_own(tmp_path: Path) -> None:
    here, there = Users(str(tmp_path / "here" / "known")), Users(str(tmp_path / "there" / "known"))
    assert here.numbers() == Users(str(tmp_path / "here" / "known")).numbers() != there.numbers()
    assert numbers({"root": True}, here) == here.numbers()
    assert numbers({"root": True, "one_user": (5, 6)}, here) == "user 5:6"
    assert numbers({"root": False}, Users("/proc/no/such")) == "", "others than root have no users to give"


@pytest.mark.parametrize(
    ("told", "kind", "user"),
    [
        ({}, "sandbox", None),
        ({"root": False, "each_owner": True}, "process", None),
        ({"root": True}, "process", None),
        ({"root": True}, "sandbox", (700_000, 700_000)),
        ({"root": True, "each_owner": True}, "process", (700_000, 700_000)),
        ({"root": True, "each_owner": True, "one_user": [5, 6]}, "process", (5, 6)),
    ],
)
def test_as_whom_a_job_runs(tmp_path: Path, told: Any, kind: str, user: Any) -> None:
    assert chosen(told, kind, "ann", Users(str(tmp_path / "known"))) == user


# ---------------------------------------------------------------- the agent


def test_what_was_asked_for_and_is_not_there_says_why(tmp_path: Path) -> None:
    found = find(["podman", "sandbox"], "none", str(tmp_path), [], [], {"PATH": "/nowhere"}, str(tmp_path / "u"))
    assert found.can == ()
    assert found.cannot == {
        "podman": "podman is not on this machine (package podman)",
        "sandbox": "bwrap is not on this machine (package bubblewrap)",
    }
    nothing = find(None, "none", str(tmp_path), [], [], {"PATH": "/nowhere"}, str(tmp_path / "u"))
    assert (nothing.can, nothing.cannot) == ((), {})


def test_a_user_that_cannot_be_had(tmp_path: Path) -> None:
    closed = tmp_path / "closed" / "w"
    closed.mkdir(parents=True)
    closed.parent.chmod(0o700)
    with pytest.raises(JobUserError, match="--job-user"):
        find((), "auto", str(closed), [], [], {}, str(tmp_path / "u"))


def test_the_agents_flags(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    base = ["--server", "http://127.0.0.1:1", "--join-token-file", str(token)]
    options = parse([*base, "--isolation", "sandbox,docker", "--job-user", "auto"], {})
    assert (options.isolation, options.job_user, options.secrets) == (("sandbox", "docker"), "auto", (str(token),))
    assert parse([*base, "--isolation", "none"], {}).isolation == ()
    assert parse(base, {}).isolation is None
    with pytest.raises(UsageError, match="none of sandbox, docker"):
        parse([*base, "--isolation", "jail"], {})
