import pytest

from tests.unit.cli.house import NOW, FakeHub, House, lines

MADE = {"id": "t1", "owner": "ada", "scopes": ["read", "submit"], "token": "wm_secret"}


def test_the_secret_and_nothing_else_goes_to_stdout() -> None:
    house = House(FakeHub({("POST", "/v1/tokens"): MADE}))
    result = house.run("token", "create", "--owner", "ada", "--scope", "submit", "--scope", "read", "--expires", "90d")
    assert (result.code, result.stdout) == (0, "wm_secret\n")
    assert "wm_secret" not in result.stderr
    assert house.hub.asked[0].body == {
        "owner": "ada",
        "scopes": ["read", "submit"],
        "expires_ms": NOW + 90 * 86_400_000,
    }


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--scope", "submit"), "Missing option '--owner'"),
        (("--owner", "ada"), "Missing option '--scope'"),
        (("--owner", "ada", "--scope", "all"), "'all' is not one of"),
        (("--owner", "ada", "--scope", "read", "--expires", "soon"), "--expires: 'soon' is not a duration"),
    ],
)
def test_what_is_missing_or_wrong_is_told(words: tuple[str, ...], problem: str) -> None:
    assert problem in House().refused("token", "create", *words)


def test_the_list_has_no_secrets() -> None:
    listed = {"id": "t1", "owner": "ada", "scopes": ["submit"], "created_ms": NOW - 60_000, "expires_ms": None}
    house = House(FakeHub({("GET", "/v1/tokens"): {"tokens": [{**listed, "created_by": "root"}]}}))
    assert lines(house.ok("token", "list")) == [
        "ID  OWNER  SCOPES  CREATED  BY    EXPIRES",
        "t1  ada    submit  1m ago   root  -",
    ]


def test_revoking() -> None:
    house = House(FakeHub({("DELETE", "/v1/tokens"): {}}))
    assert house.ok("token", "revoke", "t1", "t2") == "t1\nt2\n"
    assert [asked.params for asked in house.hub.asked] == [{"id": "t1"}, {"id": "t2"}]
