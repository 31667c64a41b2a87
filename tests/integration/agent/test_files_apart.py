"""Jobs with files that are kept apart: in a sandbox, or as a user of their owner. They read their inputs, and nothing
else of the cache."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.integration.agent.conftest import until
from tests.integration.agent.files_hub import FilesHub, fake_hub
from tests.integration.agent.web import Web

__all__ = ["fake_hub"]

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534
SECRET = b"the secret of ann\n"
# Reads what is its own, and looks for what is not: in the folder that it is told.
LOOK = """
cat mine deep/er/*; id -u
echo more >> mine && echo WROTE; echo more > $(readlink -f mine) && echo WROTE; rm -f $(readlink -f mine) && echo WROTE
echo more >> own && cat own
for folder in "$@"; do
    ls -R "$folder" 2>/dev/null
    cat "$folder" 2>/dev/null
done
true
"""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Where other users may come, as pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="wm-files-", dir="/var/tmp"))
    made.chmod(0o755)
    (made / "work").mkdir()
    (made / "work").chmod(0o755)
    yield made
    until(lambda: is_removed(made), "a killed agent's stager to be done with it")


def is_removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def job(hub: FilesHub, name: str, owner: str, mine: str, *look: str, **work: Any) -> Any:
    inputs = [
        {"to": "mine", "source": mine},
        {"to": "deep/er/public", "source": hub.web.put("/public", b"for all\n")},
        {"to": "own", "source": hub.web.url("/public"), "copy": True},
    ]
    return hub.job(name, "sh", "-c", LOOK, "look", *look, owner=owner, work={"inputs": inputs, **work})


def entries(root: Path) -> list[Path]:
    return sorted(root.glob("entries/*/*/data"))


@pytest.mark.parametrize("how", ["sandbox", "auto"])
@pytest.mark.parametrize("where", ["default", "named"])
def test_owners_read_their_own_inputs_and_nothing_else_of_the_cache(
    fake_hub: FilesHub, start_agent: Any, web: Web, tmp_path: Path, how: str, where: str
) -> None:
    work: dict[str, Any] = {}
    flags = ["--isolation", "none"]
    if how == "sandbox":
        needs.sandbox()
        work, flags = {"isolation": "sandbox", "network": False}, ["--isolation", "sandbox"]
    else:
        needs.root()
        flags += ["--job-user", how]
    root = tmp_path / "work" / f"cache-{os.geteuid()}"
    if where == "named":
        root = tmp_path / "shared" / "cache"
        root.parent.mkdir()
        root.parent.chmod(0o755)
        flags += ["--cache-dir", str(root)]
    start_agent(*flags)
    fake_hub.assign(job(fake_hub, "a", "ann", web.put("/ann?signed", SECRET), **work))
    result = fake_hub.result("a")
    said = fake_hub.logs["a", 1].decode()
    assert result["outcome"] == "succeeded", (result, said)
    of_ann, public = entries(root)
    if of_ann.read_bytes() != SECRET:
        of_ann, public = public, of_ann
    assert (of_ann.read_bytes(), public.read_bytes()) == (SECRET, b"for all\n"), "nobody could write to them"
    words = said.split("\n")
    assert (words[0], words[1]) == (SECRET.decode().strip(), "for all")
    if os.geteuid() == 0:
        assert int(words[2]) >= 700_000
    assert said.endswith("for all\nmore\n"), said
    assert "WROTE" not in said, said
    places = [root, root / "entries", of_ann.parent.parent, of_ann.parent, of_ann, root / "pins", root / "alive"]
    fake_hub.assign(job(fake_hub, "b", "bob", web.put("/bob?signed", b"of bob\n"), *map(str, places), **work))
    result = fake_hub.result("b")
    said = fake_hub.logs["b", 1].decode()
    assert result["outcome"] == "succeeded", (result, said)
    assert said.startswith("of bob\nfor all\n"), said
    for word in ("WROTE", SECRET.decode(), of_ann.parent.name, of_ann.parent.parent.name):
        assert word not in said, said


def test_as_plain_processes_of_one_user_owners_can_read_each_others(
    fake_hub: FilesHub, start_agent: Any, web: Web, tmp_path: Path
) -> None:
    """The docs say so; and it shows that the look finds what there is to find."""
    start_agent("--isolation", "none")
    fake_hub.assign(fake_hub.with_files("a", "cat mine", web.put("/ann?signed/mine", SECRET)))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    (of_ann,) = entries(tmp_path / "work" / f"cache-{os.geteuid()}")
    fake_hub.assign(fake_hub.job("b", "cat", str(of_ann), owner="bob"))
    assert fake_hub.result("b")["outcome"] == "succeeded"
    assert fake_hub.logs["b", 1] == SECRET


def test_a_user_of_its_own_has_no_way_into_a_closed_cache(
    fake_hub: FilesHub, start_agent: Any, web: Web, tmp_path: Path
) -> None:
    """Then each job gets its own, in its own directory."""
    needs.root()
    (tmp_path / "closed").mkdir(mode=0o700)
    agent = start_agent("--isolation", "none", "--job-user", "auto", "--cache-dir", str(tmp_path / "closed" / "cache"))
    fake_hub.assign(job(fake_hub, "a", "ann", web.put("/ann?signed", SECRET)))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    said = fake_hub.logs["a", 1].decode()
    assert said.startswith(SECRET.decode() + "for all\n"), said
    assert "others cannot enter" in agent.said("no-cache")[0]["text"]


def test_a_cache_whose_users_have_other_numbers_is_done_without(
    fake_hub: FilesHub, start_agent: Any, web: Web, tmp_path: Path, eventually: Any
) -> None:
    """One that was used by root on another machine: ann's number there may be bob's here."""
    needs.root()
    root = tmp_path / "work" / "cache-0"
    root.mkdir()
    (root / "numbers").write_text("another list")
    agent = start_agent("--isolation", "none", "--job-user", "auto")
    fake_hub.assign(job(fake_hub, "a", "ann", web.put("/ann?signed", SECRET)))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    assert fake_hub.logs["a", 1].decode().startswith(SECRET.decode() + "for all\n")
    assert [each.read_bytes() for each in entries(root)] == [b"for all\n"], "what is public is shared all the same"
    said = eventually(lambda: agent.said("stager"), "a word about it")
    assert "other numbers" in said[0]["text"]


@pytest.mark.parametrize("how", ["sandbox", "auto"])
def test_what_is_kept_is_the_jobs_and_no_file_that_it_has_a_link_to(
    fake_hub: FilesHub, start_agent: Any, web: Web, tmp_path: Path, how: str
) -> None:
    """Whoever collects may be root, and may read more than the job."""
    needs.root()
    secret = tmp_path / "secret"
    secret.write_text("of the worker\n")
    secret.chmod(0o600)
    work = {}
    if how == "sandbox":
        needs.sandbox()
        work, flags = {"isolation": "sandbox"}, ["--isolation", "sandbox"]
    else:
        flags = ["--isolation", "none", "--job-user", "auto"]
    start_agent(*flags)
    script = f"mkdir out; echo good > out/good; ln -s {secret} out/link; ln -s {tmp_path} out/folder; cat {secret}"
    outputs = [{"glob": "out/**", "to": "s3://b/", "always": True}]
    fake_hub.assign(fake_hub.with_files("a", script + "; exit 0", work={**work, "outputs": outputs}))
    result = fake_hub.result("a")
    assert result["outcome"] == "succeeded", (result, fake_hub.logs["a", 1])
    assert [one["path"] for one in result["files"]] == ["out/good"]
    assert web.files["/kept/out/good"] == b"good\n"
    assert b"of the worker" not in b"".join(web.files.values()) + fake_hub.logs["a", 1]


def test_an_agent_without_rights_moves_files_too(
    fake_hub: FilesHub, start_agent: Any, web: Web, tmp_path: Path
) -> None:
    """Folders that nobody may write to cannot be renamed by just anybody: with a cache, and without one."""
    needs.root()
    python = next((each for each in ("/usr/bin/python3", sys.executable) if can(each)), "")
    if not python:
        needs.missing("a Python that everybody may run: apt-get install python3")
    shutil.chown(tmp_path, NOBODY, NOBODY)
    as_nobody = f'chown -R {NOBODY} {tmp_path}; exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"'
    program = ["sh", "-c", as_nobody, "sh", python, "-B", "-m", "worker"]
    packed = web.put("/tree.tar", archive("folder/deep/file", b"of the tree\n"))
    inputs = [
        {"to": "tree", "source": packed, "unpack": True},
        {"to": "own", "source": packed, "unpack": True, "copy": True},
        {"to": "a/b/archive", "source": packed},
    ]
    script = """
    cat tree/folder/deep/file own/folder/deep/file; id -u
    touch tree/folder/new tree/new 2>/dev/null && echo WROTE
    echo more >> own/folder/deep/file && touch own/new && mkdir out && mv own out/own && touch a/b/new && echo done
    """
    work = {"inputs": inputs, "outputs": [{"glob": "out/", "to": "s3://b/"}]}
    for number, flags in enumerate(((), ("--no-cache",), ("--delete-work-dir-on-exit",))):
        hub = fake_hub if not number else FilesHub(web)
        if number:
            hub.up()
        agent = start_agent(*flags, "--isolation", "none", "--server", hub.url, program=program, worker=f"w-{number}")
        hub.assign(hub.job("a", "sh", "-c", script, work=work))
        result = hub.result("a")
        said = hub.logs["a", 1].decode()
        assert result["outcome"] == "succeeded", (result, said)
        assert said.split("\n") == ["of the tree", "of the tree", str(NOBODY), "done", ""], said
        assert sorted(one["path"] for one in result["files"]) == ["out/own/folder/deep/file", "out/own/new"]
        agent.process.terminate()
        assert agent.exit_code() == 0
        hub.down()
    assert not agent.work_dir.exists(), "nor does its cache stay"


def archive(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def can(python: str) -> bool:
    probe = [python, "-B", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import worker.agent", str(ROOT)]
    try:
        return subprocess.run(probe, capture_output=True, user=NOBODY, group=NOBODY, extra_groups=[]).returncode == 0
    except OSError:
        return False
