"""What the tests share: a cache of their own, a GPU or a stub of the driver, and skips
that say why."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jitc
import pytest

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = ROOT / "examples" / "family"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests, and a cache of the test's own."""
    for name in list(os.environ):
        if name.startswith("JITC_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JITC_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def engine(tmp_path: Path) -> jitc.Jit:
    return jitc.Jit(cache_dir=tmp_path / "cache", templates=FAMILIES, arch="sm_90a")


@functools.cache
def _why_no_compiler() -> str | None:
    try:
        probe = jitc.Jit(templates=FAMILIES, arch="sm_90a", cache_dir="/dev/null/jitc")
        probe.cubin("scale")
    except jitc.ToolchainError as error:
        return str(error)
    return None


@pytest.fixture
def compiler() -> None:
    """For tests that compile: NVRTC is found or fetched, else they skip."""
    why = _why_no_compiler()
    if why is not None:
        pytest.skip(f"no NVRTC: {why}")


def python(code: str, env: dict[str, str] | None = None, **kwargs: Any) -> str:
    """What an interpreter of its own prints, in an environment with nothing but this."""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": "/dev/null", "PATH": "/usr/bin:/bin", **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **kwargs,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return str(ran.stdout)


def has_gpu() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return bool(driver.cuInit(0) == 0)
