"""The page of all backends says what each of them is."""

from backends import registry
from tools import backends_page


def test_the_page_is_up_to_date() -> None:
    assert backends_page.PAGE.read_text() == backends_page.text(), "run python -m tools.backends_page"


def test_every_backend_has_its_words_and_no_other() -> None:
    assert set(backends_page.WORDS) == set(registry.BACKENDS) - {"memory"}


def test_a_backend_whose_workers_are_elsewhere_has_a_page() -> None:
    elsewhere = [name for name in backends_page.names() if registry.load(name).capabilities.elsewhere]
    missing = [name for name in elsewhere if not (backends_page.PAGE.parent / f"{name}.md").exists()]
    assert missing == []
