"""The README's Python, run as it stands over the stub of the driver."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from fakes import Exchange
from test_calls import launched, say

import jitc
from jitc import _program

ROOT = Path(__file__).resolve().parents[4]
README = (ROOT / "bindings" / "python" / "README.md").read_text()

pytestmark = pytest.mark.skipif(
    "STUB_DRIVER" not in os.environ, reason="needs the stub of the driver: bindings/python/check"
)


def block(heading: str) -> str:
    """The first piece of Python under a heading."""
    found = re.search(rf"## {heading}\n.*?```python\n(.*?)```", README, re.DOTALL)
    assert found, heading
    return found[1]


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> object:
    """As much of torch as the README uses, with tensors in memory that is not there."""
    module: Any = types.ModuleType("torch")
    module.randn = lambda n, device: Exchange(0x70_0000, (n,))
    module.empty_like = lambda x: Exchange(0x80_0000, tuple(x.shape))
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def test_from_jitc_new_to_a_call_is_ten_lines_of_python(
    torch: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = _program.path()
    assert program
    subprocess.run([program, "new", "twice"], check=True, capture_output=True)
    code = block("A family of one's own")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    say(**{"params.twice": "8,8,4"})
    exec(code, {})
    assert launched() == [("16,1,1", "0xabc0", [0x70_0000, 0x80_0000, 4096])]


def test_the_kernel_of_a_string_is_compiled_and_called(torch: object) -> None:
    say(**{"params.add": "8,8,8,4"})
    names = {"jitc": jitc, "x": Exchange(0x70_0000, (4096,)), "y": Exchange(0x80_0000, (4096,))}
    exec("import struct\n" + block("A kernel of a string"), names)
    wanted = [0x70_0000, 0x80_0000, int.from_bytes(bytes.fromhex("0000c03f07000000"), "little"), 4096]
    assert launched() == [("16,1,1", "0xabc0", wanted)]


def test_the_family_of_the_repository_is_loaded_bound_and_called(
    torch: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    say()
    exec(block("From a family to a call on a tensor"), {})
    assert [words[:2] for _, _, words in launched()] == [[0x70_0000, 0x80_0000]] * 2
