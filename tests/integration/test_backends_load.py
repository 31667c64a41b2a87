"""How much is loaded to read what a backend can do: seen in an interpreter of its own."""

import subprocess
import sys
from pathlib import Path

from backends import registry


def test_nothing_but_the_standard_library_is_loaded_to_read_options() -> None:
    code = (
        "import sys; from backends import registry; registry.load('local'); registry.load('memory')\n"
        "ours = ('backends', 'worker')\n"
        "tops = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - set(ours)\n"
        "print(sorted(top for top in tops if not top.startswith('__')), 'importlib.metadata' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False,
                         cwd=Path(registry.__file__).parents[1])  # fmt: skip
    assert ran.stdout.strip() == "[] False", ran.stderr
