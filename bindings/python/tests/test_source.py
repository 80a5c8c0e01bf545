"""Kernels of strings: nothing here wants a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import jitc

SCALE = """#include "own.cuh"
template <int N> __device__ void each(float* y, const float* x) { y[threadIdx.x] = x[threadIdx.x] * N * FACTOR; }
namespace ns { template <int N> __global__ void scale(const float* x, float* y, unsigned n) { each<N>(y, x); } }
"""
GIVEN: dict[str, Any] = {
    "name": "scale",
    "expression": "ns::scale<4>",
    "parameters": [("x", "f32[n]"), ("y", "f32[n]", "out"), ("n", "u32 = n")],
    "sizes": ["n"],
    "grid": "ceil_div(a=n, b=256)",
    "define": {"FACTOR": "2.0f"},
    "headers": {"own.cuh": "// nothing\n"},
}


def test_everything_that_the_compiler_sees_changes_the_key(engine: jitc.Jit) -> None:
    changed: list[dict[str, Any]] = [
        {},
        {"name": "other"},
        {"expression": "ns::scale<8>"},
        {"define": {"FACTOR": "3.0f"}},
        {"define": {"FACTOR": True}},
        {"headers": {"own.cuh": "// something\n"}},
        {"options": ["--std=c++20"]},
    ]
    keys = [engine.source(SCALE, **{**GIVEN, **change}).key() for change in changed]
    keys += [engine.source(SCALE + " ", **GIVEN).key(), engine.source(SCALE, **GIVEN).key(arch="sm_80")]
    assert len(set(keys)) == len(keys)


def test_what_the_compiler_does_not_see_is_not_in_the_key(engine: jitc.Jit) -> None:
    key = engine.source(SCALE, **GIVEN).key()
    changes: list[dict[str, Any]] = [{"grid": 7}, {"block": [32, 2]}, {"parameters": [("n", "u32 = n")]}]
    for change in changes:
        assert engine.source(SCALE, **{**GIVEN, **change}).key() == key


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"expression": None}, "scale: no entry point: expected entry="),
        ({"parameters": [("x",)]}, r"parameter \('x',\): expected \(name, type\)"),
        ({"parameters": [("x", "f32[n]", "output")]}, "parameter `x`: access `output`: expected in, out"),
        ({"parameters": [("x", "float[n]")]}, "parameter `x`: unknown type `float`"),
        ({"parameters": [("x", "f32[m]")]}, "dimension `m` uses `m`, which nobody declares"),
        ({"block": 2048}, "2048"),
        ({"block": "many"}, "block 'many': expected up to three numbers"),
        ({"grid": "n +"}, "grid"),
        ({"use": ["cutlas"]}, "cutlas"),
        ({"name": "a b"}, "is not a name of a source"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_when_it_is_made(
    engine: jitc.Jit, given: dict[str, Any], said: str
) -> None:
    with pytest.raises((jitc.SpecError, jitc.TemplateError), match=said):
        engine.source(SCALE, **{**GIVEN, **given})


def test_a_keyword_that_is_none_is_a_type_error(engine: jitc.Jit) -> None:
    with pytest.raises(TypeError, match="parameter"):
        engine.source(SCALE, parameter=[])  # type: ignore[call-arg]


@pytest.mark.usefixtures("compiler")
def test_a_string_is_compiled_once_and_then_a_hit(engine: jitc.Jit, tmp_path: Path) -> None:
    source = engine.source(SCALE, **GIVEN)
    assert source.why(arch="sm_80").answer == "miss"
    report = source.warm(arch=["sm_80", "sm_90a"])
    assert (report.built, report.failed) == (2, [])
    assert source.cubin(arch="sm_80")[:4] == b"\x7fELF"
    later = jitc.Jit(cache_dir=tmp_path / "cache", miss="forbid")
    assert later.source(SCALE, **GIVEN).why(arch="sm_90a")


@pytest.mark.usefixtures("compiler")
def test_parameters_that_are_not_the_kernels_are_found_when_it_is_compiled(engine: jitc.Jit) -> None:
    wrong = {**GIVEN, "parameters": [("x", "f32[n]"), ("y", "f32[n]", "out"), ("n", "u64 = n")]}
    with pytest.raises(jitc.Error, match="`n`: declared 8 bytes at 16, the kernel takes 4 at 16"):
        engine.source(SCALE, **wrong).cubin()
