"""The jobs of the demo: a mixed bag, as people really submit them."""

from typing import Any

MIB = 2**20


def batch() -> list[dict[str, Any]]:
    small = {"cpus": 1000, "memory": 64 * MIB}
    return [
        *({"name": f"short-{n}", "command": ["sh", "-c", f"echo hello {n}"], "resources": small} for n in range(6)),
        *({"name": f"long-{n}", "command": ["sleep", str(2 + n)], "resources": small} for n in range(3)),
        {
            "name": "fails",
            "command": ["sh", "-c", "echo 'no such data' >&2; exit 3"],
            "resources": small,
            "retries": 1,
        },
        {
            "name": "after-the-short-ones",
            "command": ["echo", "the first two are done"],
            "resources": small,
            "depends_on": [{"job": "#0", "needs": "success"}, {"job": "#1", "needs": "success"}],
        },
        {"name": "too-big", "command": ["true"], "resources": {"cpus": 64_000, "memory": 96 * 1024 * MIB}},
        {
            "name": "array",
            "command": ["sh", "-c", "echo task $WM_ARRAY_INDEX"],
            "resources": small,
            "array": {"count": 40},
        },
    ]


# name → how it must end; everything not named must succeed.
EXPECTED = {"fails": "failed", "too-big": "cancelled"}


def expected(name: str) -> str:
    return EXPECTED.get(name, "succeeded")
