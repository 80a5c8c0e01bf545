"""The cache behind others. Triton and cuda.core are tried where they are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jitc
from jitc import _program


def files(cache: Path) -> list[Path]:
    return [path for path in (cache / "foreign" / "v2").glob("??/*.jitc")]


def damage(cache: Path) -> None:
    for path in files(cache):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


def test_bytes_come_out_as_they_went_in_and_damaged_ones_do_not(engine: jitc.Jit, tmp_path: Path) -> None:
    cache = jitc.ForeignCache(engine, "mine")
    assert cache.get(b"k") is None and cache.names() == []
    for data in (b"one", b"another", b""):
        cache.put(b"k", data)
        assert cache.get(b"k") == data
    cache.put(b"\x00\xff", b"data")
    assert cache.names() == [b"\x00\xff", b"k"]
    assert jitc.ForeignCache(engine, "other").get(b"k") is None
    damage(tmp_path / "cache")
    assert cache.get(b"\x00\xff") is None
    assert cache.remove(b"\x00\xff") and not cache.remove(b"\x00\xff")
    with pytest.raises(jitc.CacheError, match="expected 1 to 64 small letters"):
        jitc.ForeignCache(engine, "Mine").put(b"k", b"")


def test_what_is_foreign_is_no_entry_of_the_engine(engine: jitc.Jit, tmp_path: Path) -> None:
    jitc.ForeignCache(engine, "mine").put(b"k", b"data")
    program = _program.path()
    assert program and files(tmp_path / "cache")
    listed = subprocess.run(
        [program, "cache", "ls", "--json", "--cache-dir", str(tmp_path / "cache")], capture_output=True, text=True, check=True
    )
    assert "foreign" not in listed.stdout and "mine" not in listed.stdout


def test_a_cache_that_requires_signatures_takes_and_gives_signed_bytes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = _program.path()
    assert program
    secret = tmp_path / "key"
    made = subprocess.run(
        [program, "sign", "keygen", "ours-1", "--out", str(secret)], capture_output=True, text=True, check=True
    )
    public = next(word for word in made.stdout.split() if word.startswith("ours-1:"))
    unsigned = jitc.ForeignCache(jitc.Jit(cache_dir=tmp_path / "cache"), "mine")
    unsigned.put(b"k", b"theirs")
    monkeypatch.setenv("JITC_TRUSTED_KEYS", public)
    monkeypatch.setenv("JITC_REQUIRE", "signed")
    strict = jitc.Jit(cache_dir=tmp_path / "cache")
    cache = jitc.ForeignCache(strict, "mine")
    assert cache.get(b"k") is None
    with pytest.raises(jitc.CacheError, match="signature"):
        cache.put(b"k", b"ours")
    signed = jitc.ForeignCache(strict, "mine", key=secret)
    signed.put(b"k", b"ours")
    assert cache.get(b"k") == b"ours"
    with pytest.raises(jitc.CacheError, match="no-such"):
        jitc.ForeignCache(strict, "mine", key=tmp_path / "no-such")


def test_programs_of_cuda_core_are_kept_and_found(engine: jitc.Jit, tmp_path: Path) -> None:
    core = pytest.importorskip("cuda.core", reason="cuda.core is not here: pip install cuda-core[cu13]")
    from jitc.adapters.cuda_core import ProgramCache

    cache = ProgramCache(engine)
    cache["k"] = bytearray(b"data")
    assert cache[b"k"] == b"data" and cache.get("none") is None and len(cache) == 1
    del cache["k"]
    with pytest.raises(KeyError):
        del cache["k"]
    with pytest.raises(TypeError):
        cache["k"] = 7
    with pytest.raises(TypeError):
        cache.get(7)

    def compile_() -> bytes:
        text = 'extern "C" __global__ void k(float* x) { *x = 1; }'
        program = core.Program(text, "c++", core.ProgramOptions(arch="sm_90"))
        return bytes(program.compile("cubin", cache=cache).code)

    first = compile_()
    assert first[:4] == b"\x7fELF" and len(cache) == 1
    kept = files(tmp_path / "cache")[0].stat().st_mtime_ns
    assert compile_() == first
    assert files(tmp_path / "cache")[0].stat().st_mtime_ns == kept, "found, not kept again"
    damage(tmp_path / "cache")
    assert len(cache) == 0 and compile_() == first and len(cache) == 1
    cache.clear()
    assert len(cache) == 0


TRITON = """
import sys
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

@triton.jit
def add(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, at < n) + 1, at < n)

hits = []
triton.knobs.compilation.listener = lambda *, cache_hit, **_: hits.append(cache_hit)
source = ASTSource(add, {"x": "*fp32", "y": "*fp32", "n": "i32", "BLOCK": "constexpr"}, {(3,): 64})
code = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
print(hits, code[:4] == b"\\x7fELF", "jitc.adapters.triton" in sys.modules)
"""


def test_kernels_of_triton_are_kept_and_found(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not here: pip install triton")
    script = tmp_path / "add.py"
    script.write_text(TRITON)
    own = tmp_path / "triton"

    def run() -> str:
        """With nothing left of Triton's own files."""
        shutil.rmtree(own, ignore_errors=True)
        env: dict[str, Any] = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "JITC_CACHE_DIR": str(tmp_path / "cache"),
            "TRITON_CACHE_DIR": str(own),
            "TRITON_CACHE_MANAGER": "jitc.adapters.triton:CacheManager",
        }
        ran = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout.strip()

    assert run() == "[False] True True"
    assert len(files(tmp_path / "cache")) > 3
    assert run() == "[True] True True"
    damage(tmp_path / "cache")
    assert run() == "[False] True True"
    assert run() == "[True] True True"
