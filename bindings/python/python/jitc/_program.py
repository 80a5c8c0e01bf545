"""The native program ``jitc`` that comes with the package: the command line, and what
compiles in processes of its own."""

from __future__ import annotations

import os
import sys


def path() -> str | None:
    """The program, or ``None`` where the package was built without it."""
    found = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "jitc")
    return found if os.access(found, os.X_OK) else None


def main() -> None:
    """Becomes the program: same arguments, same exit code, no Python left."""
    program = path()
    if program is None:
        sys.exit("error: this package was built without its program `jitc`")
    # Its own environment is where its compiler is looked for, as for the library.
    if sys.prefix != sys.base_prefix:
        os.environ["VIRTUAL_ENV"] = sys.prefix
    os.execv(program, ["jitc", *sys.argv[1:]])
