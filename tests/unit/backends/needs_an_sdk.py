"""A backend whose SDK is not installed: loading it works, making one does not."""

from collections.abc import Mapping
from typing import Any

from backends.base import Backend, Capabilities, Context, Option

OPTIONS = (Option("region", help="where"), Option("key", secret=True, help="what opens it"))
CAPABILITIES = Capabilities()


def create(options: Mapping[str, Any], context: Context) -> Backend:
    import a_package_that_nobody_has

    return a_package_that_nobody_has.connect(options)  # type: ignore[no-any-return]
