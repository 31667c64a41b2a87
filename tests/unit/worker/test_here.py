"""What an agent tells on its node: in a folder whose name is too long for a socket's address, and where nobody is."""

import threading
from pathlib import Path

import pytest

from worker import here


def test_it_answers_in_a_folder_with_a_long_name(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    answering = here.Answering(str(deep))
    assert answering.fileno() >= 0
    told: list[object] = []
    asking = threading.Thread(target=lambda: told.append(here.ask(str(deep), 20)))
    asking.start()
    while asking.is_alive():
        answering.answer(lambda: {"held": ["j" * 40] * 2000})
        asking.join(0.01)
    answering.close()
    assert told == [{"held": ["j" * 40] * 2000}]
    assert here.ask(str(deep), 1) is None


def test_who_does_not_answer_is_not_taken_for_gone(tmp_path: Path) -> None:
    answering = here.Answering(str(tmp_path))
    with pytest.raises(TimeoutError):
        here.ask(str(tmp_path), 0.05)
    answering.close()


def test_what_an_earlier_agent_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text("{}")
    (tmp_path / "agent.sock").write_text("")
    here.leave_note(str(tmp_path), {"worker": "w"})
    assert (tmp_path / "agent.json").read_text() == '{"worker": "w"}'
    assert (tmp_path / "agent.json").stat().st_mode & 0o777 == 0o600
    answering = here.Answering(str(tmp_path))
    assert answering.fileno() >= 0
    answering.close()


def test_no_folder_no_socket(tmp_path: Path) -> None:
    answering = here.Answering(str(tmp_path / "gone"))
    assert answering.fileno() == -1
    answering.answer(dict)
    assert here.ask(str(tmp_path / "gone"), 1) is None
