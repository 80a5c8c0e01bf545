"""Importing costs nothing and touches nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import python

import jitc

PROBE = """
import json, os, sys, threading
before = set(os.listdir("/proc/self/fd"))
threads = len(os.listdir("/proc/self/task"))
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import jitc
maps = open("/proc/self/maps").read()
print(json.dumps({
    "fds": sorted(set(os.listdir("/proc/self/fd")) - before - {"3"}),
    "threads": len(os.listdir("/proc/self/task")) - threads,
    "modules": [name for name in ("torch", "numpy", "cupy", "subprocess") if name in sys.modules],
    "libraries": [name for name in ("libcuda", "libnvrtc") if name in maps],
    "opened": [path for path in opened if "jitc" not in path and not path.startswith((sys.prefix, sys.base_prefix, "/proc"))],
}))
"""


def test_importing_opens_no_driver_no_compiler_no_thread_and_no_other_package() -> None:
    found = json.loads(python(PROBE))
    assert found == {"fds": [], "threads": 0, "modules": [], "libraries": [], "opened": []}


def test_importing_makes_no_cache(tmp_path: Path) -> None:
    python("import jitc", {"HOME": str(tmp_path), "JITC_CACHE_DIR": str(tmp_path / "cache")})
    assert list(tmp_path.iterdir()) == []


def test_bad_settings_are_said_when_they_are_needed_and_not_at_import() -> None:
    code = "import jitc\ntry: jitc.families()\nexcept jitc.ConfigError as e: print(e)"
    said = python(code, {"JITC_JOBS": "none"})
    assert "JITC_JOBS" in said


def test_every_name_of_the_module_is_there_and_has_words() -> None:
    for name in jitc.__all__:
        assert getattr(jitc, name).__doc__, name


def test_the_command_line_is_the_native_program() -> None:
    from jitc import _program

    program = _program.path()
    assert program is not None
    script = Path(sys.executable).with_name("jitc")
    command = [str(script)] if script.exists() else [sys.executable, "-c", "from jitc._program import main; main()"]
    ran = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("jitc ")
    ran = subprocess.run([*command, "no-such-verb"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
