"""How a stager begins, dies, is begun anew, and ends; and whom it believes."""

import os
import random
import signal
import ssl
import subprocess
import threading
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.live_stager import LiveStager, StartStager
from tests.place import until
from tests.stand_ins.file_hub import FileHub
from worker.cache.store import Cache
from worker.link.address import Endpoint
from worker.staging.messages import Cache as CacheSaid
from worker.staging.messages import Collected, NotCollected, Note, NotStaged, Staged
from worker_manager.hub import authority

DATA = os.urandom(300_000)


def pins(stager: LiveStager) -> list[str]:
    return sorted(path.name.rpartition("~")[0] for path in (stager.cache_dir / "pins" / "agent-1").iterdir())


def test_what_is_held_survives_its_death_and_the_rest_does_not(start_stager: StartStager, hub: FileHub) -> None:
    first = start_stager()
    for number in range(3):
        first.staged({"to": "x", "source": f"blob:{hub.add(DATA + b'%d' % number)}"}, job=f"j{number}")
    news = first.hear(CacheSaid, lambda said: said.news["counts"]["misses"] == 3).news
    first.kill()
    second = start_stager(held=[["j0", 1], ["j1", 1]], counts=news["counts"])
    until(lambda: pins(second) == ["j0.1", "j1.1"], "what nobody holds to be let go")
    until(lambda: not second.folder("j2").exists(), "its folder to be gone")
    assert second.folder("j0").exists() and second.folder("j1").exists()
    assert second.hear(CacheSaid).news["counts"]["misses"] == 3, "counts go on"
    second.drop("j0")
    until(lambda: pins(second) == ["j1.1"], "its pin to be let go")
    again = second.staged({"to": "x", "source": f"blob:{hub.add(DATA + b'1')}"}, job="j1", epoch=2)
    assert again.stats["hits"] == 1


def test_others_cannot_evict_what_a_dead_stager_held_while_its_agent_lives(
    start_stager: StartStager, hub: FileHub, tmp_path: Path
) -> None:
    stager = start_stager()
    stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    stager.kill()
    other = Cache(str(stager.cache_dir), "other", quota=1)
    other.tidy()
    assert len(list(other.entries.all())) == 1


def test_one_that_was_taken_for_dead_pins_anew_what_its_jobs_use(start_stager: StartStager, hub: FileHub) -> None:
    stager = start_stager(beat_s=0.1)
    for job in ("j1", "j2"):
        stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"}, job=job)
    other = Cache(str(stager.cache_dir), "other")
    other._clear("agent-1")
    assert "took this one for dead" in stager.hear(Note).text
    until(lambda: (stager.cache_dir / "pins" / "agent-1").exists() and pins(stager) == ["j1.1", "j2.1"], "its pins")
    stager.drop("j1")
    until(lambda: pins(stager) == ["j2.1"], "the pin that was made anew to be let go")


def test_a_dead_agents_pins_are_the_others_to_clear(start_stager: StartStager, hub: FileHub) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as agent:
        stager = start_stager(agent=agent.pid)
        stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
        stager.kill()
    other = Cache(str(stager.cache_dir), "other", quota=1)
    other.tidy()
    assert not list(other.entries.all())


def test_it_dies_in_the_middle_and_the_next_one_begins_anew(start_stager: StartStager, hub: FileHub) -> None:
    first = start_stager()
    asked = threading.Event()

    def half(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        request.wfile.write(DATA[:200_000])
        asked.set()
        request.rfile.read(1)

    hub.faults["get"] = [half]
    source = {"to": "x", "source": f"blob:{hub.add(DATA)}"}
    first.stage(source)
    assert asked.wait(30)
    first.kill()
    second = start_stager()
    assert (Path(second.staged(source).folder) / "x").read_bytes() == DATA
    assert not list((second.cache_dir / "building" / "agent-1").iterdir())


def test_it_ends_with_its_agent(stager: LiveStager, hub: FileHub) -> None:
    stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    go_on = threading.Event()
    hub.faults["get"] = [lambda request: go_on.wait(30) and False]
    stager.stage({"to": "x", "source": f"blob:{hub.add(b'other')}"}, job="j2")
    until(lambda: hub.count("get") == 2, "it to be asked for")
    assert stager.end() == 0
    go_on.set()
    assert not list((stager.cache_dir / "pins").iterdir())
    assert not list((stager.cache_dir / "claims").iterdir())
    assert not list(stager.work_dir.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_the_agents(stager: LiveStager, hub: FileHub, number: int) -> None:
    stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    os.kill(stager.pid, number)
    stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"}, job="j2")


# ---------------------------------------------------------------- whom it believes


class Certificates:
    def __init__(self, folder: Path, name: str) -> None:
        now = datetime.now(UTC)
        self.ca, self.certificate = folder / f"{name}-ca.pem", folder / f"{name}.pem"
        keys = folder / f"{name}-ca.key", folder / f"{name}.key"
        authority.make_root(self.ca, keys[0], now)
        authority.make_certificate(self.ca, keys[0], self.certificate, keys[1], ("127.0.0.1",), now)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, keys[1])
        self.fingerprint = sha256(ssl.PEM_cert_to_DER_cert(self.ca.read_text())).hexdigest()


def test_a_hub_is_known_by_its_certificate_and_another_is_told_nothing(
    start_stager: StartStager, tmp_path: Path
) -> None:
    good, other = Certificates(tmp_path, "good"), Certificates(tmp_path, "other")
    hub, liar = FileHub(good.context), FileHub(other.context)
    try:
        for each, shows in ((hub, good), (liar, other)):
            each.ca = shows.ca.read_bytes()
        stager = start_stager(Endpoint(True, "127.0.0.1", hub.port, "", good.fingerprint))
        source = f"blob:{hub.add(DATA)}"
        stager.staged({"to": "x", "source": source})
        folder = tmp_path / "aside"
        folder.mkdir()
        (folder / "out").write_bytes(b"kept")
        assert stager.collected(folder, {"glob": "out"}).files[0]["size"] == 4
        lied_to = start_stager(Endpoint(True, "127.0.0.1", liar.port, "", good.fingerprint), cache_name="agent-2")
        said = lied_to.not_staged({"to": "x", "source": f"blob:{'0' * 64}"})
        assert (said.outcome, said.reason) == ("returned", "staging-failed")
        assert "not the one that was pinned" in said.text
        assert not liar.asked, "nothing was said to it"
    finally:
        hub.close()
        liar.close()


def test_a_certificate_that_changes_while_it_works(start_stager: StartStager, tmp_path: Path) -> None:
    good, other = Certificates(tmp_path, "good"), Certificates(tmp_path, "other")
    hub = FileHub(good.context)
    hub.ca = good.ca.read_bytes()
    try:
        stager = start_stager(Endpoint(True, "127.0.0.1", hub.port, "", good.fingerprint))
        stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
        count = len(hub.asked)
        good.context.load_cert_chain(other.certificate, tmp_path / "other.key")
        said = stager.not_staged({"to": "x", "source": f"blob:{hub.add(b'new')}"}, job="j2")
        assert "not the one that was pinned" in said.text
        assert len(hub.asked) == count
    finally:
        hub.close()


# ---------------------------------------------------------------- other users


def test_a_jobs_user_may_read_what_is_its_owners_and_no_other_may(start_stager: StartStager, hub: FileHub) -> None:
    needs.root()
    folder = Path(
        subprocess.run(["mktemp", "-d", "/var/tmp/stager-XXXXXX"], capture_output=True, text=True).stdout.strip()
    )
    try:
        folder.chmod(0o711)
        stager = start_stager(cache_dir=str(folder / "cache"))
        hub.jobs["job:j0/tree"] = {"a/b": b"1"}
        hub.web["/web/x"] = b"public"
        inputs = (
            {"to": "d/x", "source": f"blob:{hub.add(DATA)}"},
            {"to": "tree", "source": "job:j0/tree"},
            {"to": "mine", "source": "job:j0/tree", "copy": True},
            {"to": "web", "source": hub.url + "/web/x"},
        )
        said = stager.staged(*inputs, user=(700_001, 700_001))
        private, public = sorted(said.visible, key=lambda path: "/public/" in path)[::2]
        assert can_read(private, 700_001) and can_read(public, 700_001)
        assert not can_read(private, 700_002) and can_read(public, 700_002)
        owned = [Path(said.folder) / name for name in ("d", "mine", "mine/a", "mine/a/b")]
        assert all((path.stat().st_uid, path.stat().st_gid) == (700_001, 700_001) for path in owned)
        without = start_stager(cache_dir="", cache_name="agent-2")
        said = without.staged(*inputs, job="j2", user=(700_001, 700_001))
        for path in Path(said.folder).rglob("*"):
            assert path.stat().st_uid == 700_001
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def can_read(path: str, user: int) -> bool:
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "find", path, "-type", "f", "-exec"]
    return subprocess.run([*words, "cat", "{}", "+"], capture_output=True, cwd="/").returncode == 0


# ---------------------------------------------------------------- proxies


def test_a_proxy_is_for_everything_but_the_hub(start_stager: StartStager, hub: FileHub) -> None:
    asked: list[str] = []
    proxy = FileHub()
    try:

        def passed_on(request: Any) -> None:
            asked.append(request.path)
            assert request.headers["Proxy-Authorization"] == "Basic dXNlcjpwYXNz"
            request.says(200, DATA)

        proxy.faults["get"] = [passed_on] * 9
        env = {"HTTP_PROXY": f"http://user:pass@127.0.0.1:{proxy.port}", "no_proxy": "direct.example"}
        stager = start_stager(env=env)
        digest = sha256(DATA).hexdigest()
        stager.staged(
            {"to": "x", "source": "http://files.example/data", "sha256": digest},
            {"to": "y", "source": f"blob:{hub.add(b'blob')}"},
        )
        assert asked == ["http://files.example/data"]
    finally:
        proxy.close()


def test_many_jobs_at_once_that_come_and_go(start_stager: StartStager, hub: FileHub) -> None:
    """Lines break, jobs are dropped at any moment: every other one gets what it needs, and nothing is left."""
    chance = random.Random(26)  # noqa: S311
    stager = start_stager(cache_quota=2_000_000, patience=[20, 0.01, 0.05], long_patience=[20, 0.01, 0.05])
    blobs = [hub.add(os.urandom(chance.randrange(1, 400_000))) for _ in range(12)]
    for kind in ("get", "patch", "grants"):
        hub.faults[kind] = [chance.choice((cut_off, unavailable, as_usual, as_usual)) for _ in range(150)]
    folder = stager.work_dir / "aside"
    folder.mkdir()
    for number in range(20):
        (folder / f"f{number}").write_bytes(os.urandom(50_000))
    staged, wanted = set(), {f"j{number}" for number in range(60)}
    for job in sorted(wanted):
        inputs = chance.sample(blobs, 3)
        stager.stage(*({"to": f"x{at}", "source": f"blob:{blob}"} for at, blob in enumerate(inputs)), job=job)
        if chance.random() < 0.2:
            stager.drop(job)
            wanted.discard(job)
    while not wanted <= staged:
        said = stager.hear((Staged, NotStaged), lambda said: said.job in wanted)  # type: ignore[arg-type]
        assert isinstance(said, Staged), said
        for link in Path(said.folder).iterdir():
            digest = link.readlink().parent.name.removeprefix("file-")
            assert sha256(link.read_bytes()).hexdigest() == digest
        staged.add(said.job)
        stager.collect(folder, {"glob": f"f{chance.randrange(2)}*"}, job=said.job)
    for _ in wanted:
        kept = stager.hear((Collected, NotCollected))  # type: ignore[arg-type]
        assert isinstance(kept, Collected), kept
        stager.drop(kept.job)
    until(lambda: pins(stager) == [], "all pins to be let go")
    until(lambda: not list((stager.work_dir / "staged").iterdir()), "all folders to be gone")
    cache = Cache(str(stager.cache_dir), "checker")
    assert all(cache.scrub(found.scope, found.key) for found in list(cache.entries.all()))


def cut_off(request: Any) -> None:
    request.body()
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    request.wfile.write(b"x" * 10)
    request.cut()


def unavailable(request: Any) -> None:
    request.body()
    request.says(503)


def as_usual(_request: Any) -> bool:
    return False
