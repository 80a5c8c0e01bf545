"""Calls over a driver that is none: what the driver is given, and what it never sees."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import Capsule, Exchange, Interface

import jitc

FOLDER = Path(os.environ.get("STUB_DRIVER", ""))
FAMILIES = Path(__file__).resolve().parents[4] / "examples" / "family"
X, Y = 0x70_0000, 0x80_0000

pytestmark = pytest.mark.skipif(
    "STUB_DRIVER" not in os.environ, reason="needs the stub of the driver: bindings/python/check"
)


def say(**answers: object) -> None:
    lines = {"params.scale": "8,8,8,4", "pointer": 0, "count": 2, **answers}
    text = "".join(f"{name} {value}\n" for name, value in lines.items())
    (FOLDER / "answers").write_text(text)


def calls(start: str) -> list[str]:
    path = FOLDER / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if line.startswith(start)]


def launched() -> list[tuple[str, str, list[int]]]:
    """Grid, stream and parameters of every launch since the last time."""
    found = []
    for line in calls("cuLaunchKernel"):
        match = re.search(r"grid (\S+) .* stream (\S+) .* params (\S+)", line)
        assert match, line
        words = [int.from_bytes(bytes.fromhex(word), "little") for word in match[3].split(",")]
        found.append((match[1], match[2], words))
    return found


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> jitc.Jit:
    return jitc.Jit(cache_dir=tmp_path_factory.mktemp("cache"), templates=FAMILIES)


@pytest.fixture
def kernel(engine: jitc.Jit) -> Iterator[jitc.Kernel]:
    say()
    kernel = engine.load("scale", device=0, block=256)
    calls("")
    yield kernel
    say()


def test_a_kernel_says_what_it_is(kernel: jitc.Kernel, engine: jitc.Jit) -> None:
    assert kernel.params == [
        ("x", "f32[n]", "in"),
        ("y", "f32[n]", "out"),
        ("region_timing", "u64[*]", "out"),
        ("n", "u32 = n", "value"),
    ]
    assert (kernel.family, kernel.entry, kernel.arch, kernel.device) == ("scale", "scale", "sm_90a", 0)
    assert kernel.key == engine.key("scale", block=256, arch="sm_90a")
    assert kernel.block_threads == 256


@pytest.mark.parametrize("kind", [Exchange, Capsule, Interface])
def test_every_kind_of_tensor_is_passed_by_its_address(kernel: jitc.Kernel, kind: Any) -> None:
    stream = "0xabc0" if kind is Exchange else "(nil)"
    for x in (X, X + 0x100, X + 0x200):
        kernel(kind(x, (1000,)), kind(Y, (1000,)), 1000)
        assert launched() == [("4,1,1", stream, [x, Y, 0, 1000])]


def test_checks_are_made_once_for_tensors_of_a_kind(kernel: jitc.Kernel) -> None:
    for x in (X, X + 0x100):
        kernel(Exchange(x, (1000,)), Exchange(Y, (1000,)), 1000)
    assert len(calls("cuPointerGetAttribute")) == 2
    kernel(Exchange(X, (999,)), Exchange(Y, (999,)), 999)
    assert len(calls("cuPointerGetAttribute")) == 2


def test_parameters_may_be_given_by_name(kernel: jitc.Kernel) -> None:
    kernel(n=10, y=Exchange(Y, (10,)), x=Exchange(X, (10,)), region_timing=None)
    assert launched() == [("1,1,1", "0xabc0", [X, Y, 0, 10])]


def test_an_offset_and_the_strides_of_ones_are_read(kernel: jitc.Kernel) -> None:
    kernel(Exchange(X, (10,), offset=64), Exchange(Y, (10,), strides=(1,)), 10)
    assert launched()[0][2][:2] == [X + 64, Y]


GOOD: dict[str, Any] = {"x": Exchange(X, (64,)), "y": Exchange(Y, (64,)), "n": 64}


@pytest.mark.parametrize(
    ("given", "named", "said"),
    [
        ({"x": Exchange(X, (64,), dtype=(4, 16, 1))}, "x", "expected f32, got bf16"),
        ({"x": Exchange(X, (63,))}, "x", r"expected f32 \[64\], got f32 \[63\]"),
        ({"x": Exchange(X, (64, 1))}, "x", r"got f32 \[64, 1\]"),
        ({"x": Exchange(X, (64,), strides=(2,))}, "x", "contiguous"),
        ({"x": Exchange(X, (64,), device=(2, 1))}, "x", "expected memory of GPU 0, got memory of GPU 1"),
        ({"x": Exchange(X, (64,), device=(1, 0))}, "x", "memory of the CPU"),
        ({"x": Exchange(X + 2, (64,))}, "x", "aligned to 16 bytes"),
        ({"x": Exchange(X, (64,), dtype=(5, 64, 1))}, "x", "no type of a parameter"),
        ({"x": None}, "x", "got null"),
        ({"x": 3}, "x", "expected a tensor, got a number"),
        ({"x": "text"}, "x", "expected a tensor with __dlpack__"),
        ({"y": Interface(Y, (64,), ">f4")}, "y", "no type of a parameter"),
        ({"y": Interface(Y, (64,), strides=(8,))}, "y", "contiguous"),
        ({"n": -1}, "n", "whole number"),
        ({"n": 0}, "n", "at least 1"),
        ({"z": 1}, "z", "has no parameter `z`"),
    ],
)
def test_what_is_not_as_declared_is_refused_by_name(
    kernel: jitc.Kernel, given: dict[str, Any], named: str, said: str
) -> None:
    kernel(**GOOD)
    with pytest.raises(jitc.ArgumentError, match=said) as caught:
        kernel(**{**GOOD, **given})
    assert caught.value.parameter == named
    assert isinstance(caught.value, ValueError)
    assert len(launched()) == 1


def test_missing_and_too_many_arguments_are_refused(kernel: jitc.Kernel) -> None:
    with pytest.raises(jitc.ArgumentError, match=r"`y`.*got nothing"):
        kernel(Exchange(X, (64,)), n=64)
    with pytest.raises(jitc.ArgumentError, match=r"takes 3 arguments by place \(x, y, n\), got 4"):
        kernel(GOOD["x"], GOOD["y"], 64, 64)
    with pytest.raises(jitc.ArgumentError, match="given twice"):
        kernel(GOOD["x"], GOOD["y"], 64, n=64)
    assert launched() == []


class _Torch:
    cuda_stream = 0x111


class _Cupy:
    ptr = 0x222


class _Core:
    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, 0x333)


@pytest.mark.parametrize(("stream", "passed"), [(_Torch(), 0x111), (_Cupy(), 0x222), (_Core(), 0x333), (0x444, 0x444)])
def test_a_stream_may_be_anybodys(kernel: jitc.Kernel, stream: Any, passed: int) -> None:
    kernel(**GOOD, stream=stream)
    kernel.bind(**GOOD)(stream=stream)
    assert [where for _, where, _ in launched()] == [hex(passed)] * 2
    with pytest.raises(jitc.ArgumentError, match="expected a stream"):
        kernel(**GOOD, stream="s")


def test_the_stream_of_an_array_interface_is_taken(kernel: jitc.Kernel) -> None:
    kernel(Interface(X, (64,), stream=0x555), Interface(Y, (64,)), 64)
    assert launched()[0][1] == "0x555"


def test_a_bound_kernel_launches_up_to_its_sizes_and_holds_its_tensors(kernel: jitc.Kernel) -> None:
    import weakref

    x = Exchange(X, (64,))
    held = weakref.ref(x)
    step = kernel.bind(x, GOOD["y"], 64)
    del x
    gc.collect()
    assert held() is not None and step.most == [64]
    step()
    step(32)
    assert [words[3] for _, _, words in launched()] == [64, 32]
    with pytest.raises(jitc.ArgumentError, match="bound for 1 to 64"):
        step(65)
    del step
    gc.collect()
    assert held() is None


def test_kernels_of_two_gpus_leave_the_threads_own_as_it_was(engine: jitc.Jit, kernel: jitc.Kernel) -> None:
    other = engine.load("scale", device=1, block=256)
    assert (other.device, kernel.device) == (1, 0)
    kernel(**GOOD)
    calls("")
    say(pointer=1)
    other(Exchange(X, (64,), device=(2, 1)), Exchange(Y, (64,), device=(2, 1)), 64)
    assert launched()[0][1] == "0xabc1"
    with pytest.raises(jitc.ArgumentError, match="expected memory of GPU 1, got memory of GPU 0"):
        other(**GOOD)


def test_loading_while_a_stream_captures_says_so(engine: jitc.Jit, kernel: jitc.Kernel) -> None:
    say(capturing=1)
    with pytest.raises(jitc.CaptureError) as caught:
        engine.load("scale", device=0, block=128)
    assert caught.value.hint
    kernel(**GOOD)
    assert len(launched()) == 1
    assert engine.load("scale", device=0, block=256).key == kernel.key


def test_an_error_of_the_driver_is_a_launch_error(kernel: jitc.Kernel) -> None:
    say(cuLaunchKernel=700)
    with pytest.raises(jitc.LaunchError, match="scale"):
        kernel(**GOOD)


def test_a_forked_child_is_told_and_may_still_ask(engine: jitc.Jit, kernel: jitc.Kernel) -> None:
    child = os.fork()
    if child == 0:
        try:
            kernel(**GOOD)
        except jitc.ForkedError:
            os._exit(0 if engine.why("scale", block=256, arch="sm_90a") else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_dropped_engine_unloads_its_modules(tmp_path: Path) -> None:
    say()
    engine = jitc.Jit(cache_dir=tmp_path, templates=FAMILIES)
    kernel = engine.load("scale", device=0, factor=7.0)
    del engine
    gc.collect()
    calls("")
    del kernel
    gc.collect()
    assert len(calls("cuModuleUnload")) == 1


STRUCT = "struct Config { int a; double b; }; extern \"C\" __global__ void k(float* y, Config c, float s, unsigned n) {}"
DECLARED: dict[str, Any] = {
    "entry": "k",
    "parameters": [
        ("y", "f32[n], aligned to 4", "out"),
        ("c", "struct of 16 bytes, aligned to 8"),
        ("s", "f32"),
        ("n", "u32 = n"),
    ],
    "sizes": ["n"],
    "grid": ["ceil_div(a=n, b=64)", 2],
    "block": 64,
}


class Config(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int), ("b", ctypes.c_double))


def words() -> list[str]:
    match = re.search(r"grid (\S+) .* params (\S+)", calls("cuLaunchKernel")[-1])
    assert match
    return [match[1], *match[2].split(",")]


def test_a_string_is_loaded_and_called_with_a_struct_by_value(engine: jitc.Jit) -> None:
    say(**{"params.k": "8,16,4,4"})
    kernel = engine.source(STRUCT, **DECLARED).load(device=0)
    assert kernel.params[1] == ("c", "struct of 16 bytes, aligned to 8", "value")
    given = Config(7, 0.5)
    as_bytes = bytes(given)
    for config in (given, as_bytes, bytearray(as_bytes), memoryview(as_bytes)):
        for scale, bits in ((1.0, "0000803f"), (2.0, "00000040")):
            kernel(Exchange(Y + 4, (100,)), config, scale, 100)
            assert words() == ["2,2,1", "0400800000000000", as_bytes.hex(), bits, "64000000"]
    kernel(Exchange(Y, (100,)), Config(8, 0.5), 2.0, 100)
    assert words()[2] == bytes(Config(8, 0.5)).hex()
    step = kernel.bind(Exchange(Y, (100,)), given, 1.0, 100)
    given.a = 9
    step(50)
    assert words() == ["1,2,1", "0000800000000000", as_bytes.hex(), "0000803f", "32000000"]
    with pytest.raises(jitc.ArgumentError, match="`c`.*15 bytes") as caught:
        kernel(Exchange(Y, (100,)), as_bytes[:15], 1.0, 100)
    assert caught.value.parameter == "c"
    with pytest.raises(jitc.ArgumentError, match="`c`: expected bytes, a structure of ctypes.*got int"):
        kernel(Exchange(Y, (100,)), 7, 1.0, 100)
    kernel(Exchange(Y, (100,)), given, 1.0, 100)
    assert words()[2] == bytes(given).hex()


def test_a_struct_of_numpy_is_passed_by_value(engine: jitc.Jit) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not here")
    say(**{"params.k": "8,16,4,4"})
    kernel = engine.source(STRUCT, **DECLARED).load(device=0)
    value = numpy.array((7, 0, 0.5), dtype=[("a", "i4"), ("padding", "i4"), ("b", "f8")])
    for given in (value, value[()]):
        kernel(Exchange(Y, (1,)), given, 1.0, 1)
        assert words()[2] == bytes(Config(7, 0.5)).hex()


class _Map:
    """As cuda-bindings has it."""

    opaque = tuple(range(16))


def test_a_tensor_map_is_passed_by_value(engine: jitc.Jit) -> None:
    text = 'struct alignas(64) Map { char of[128]; }; extern "C" __global__ void m(const __grid_constant__ Map map) {}'
    say(**{"params.m": "128"})
    kernel = engine.source(text, entry="m", parameters=[("map", "tensor_map")]).load(device=0)
    wanted = b"".join(at.to_bytes(8, "little") for at in range(16))
    for given in (_Map(), wanted, (ctypes.c_uint64 * 16)(*range(16))):
        kernel(given)
        assert words()[1:] == [wanted.hex()]
    with pytest.raises(jitc.ArgumentError, match="tensor_map"):
        kernel(wanted[:64])


def test_calls_of_several_sizes_are_each_checked_once(kernel: jitc.Kernel) -> None:
    for _ in range(3):
        for n in (64, 128, 256):
            kernel(Exchange(X, (n,)), Exchange(Y, (n,)), n)
    assert len(calls("cuPointerGetAttribute")) == 6
    with pytest.raises(jitc.ArgumentError, match=r"expected f32 \[128\], got f32 \[64\]"):
        kernel(Exchange(X, (64,)), Exchange(Y, (128,)), 128)


def test_numbers_that_no_shape_names_change_freely_and_those_of_shapes_are_checked(engine: jitc.Jit) -> None:
    text = 'extern "C" __global__ void f(float* y, int step, unsigned rows, bool last) {}'
    declared: list[tuple[str, str, str]] = [
        ("y", "f32[rows, 4]", "out"),
        ("step", "i32", "value"),
        ("rows", "u32", "value"),
        ("last", "bool", "value"),
    ]
    say(**{"params.f": "8,4,4,1"})
    kernel = engine.source(text, entry="f", parameters=declared).load(device=0)
    assert kernel.params == declared
    calls("")
    for step in (1, -2, 3):
        kernel(Exchange(Y, (2, 4)), step, 2, step == 3)
    recorded = calls("")
    assert len([line for line in recorded if line.startswith("cuPointerGetAttribute")]) == 1
    passed = [line.rsplit("params ", 1)[1].split(",")[1:] for line in recorded if line.startswith("cuLaunch")]
    assert passed == [
        ["01000000", "02000000", "00"],
        ["feffffff", "02000000", "00"],
        ["03000000", "02000000", "01"],
    ]
    with pytest.raises(jitc.ArgumentError, match=r"expected f32 \[3, 4\], got f32 \[2, 4\]"):
        kernel(Exchange(Y, (2, 4)), 1, 3, False)
    with pytest.raises(jitc.ArgumentError, match="`step`: expected a value of type i32, got 0.5"):
        kernel(Exchange(Y, (2, 4)), 0.5, 2, False)


def test_what_is_no_longer_as_before_is_checked_again(kernel: jitc.Kernel) -> None:
    kernel(**GOOD)
    for x, said in [
        (Exchange(0, (64,)), "null"),
        (Exchange(X + 8, (64,)), "aligned to 16"),
        (Exchange(X, (64,), strides=(2,)), "contiguous"),
        (Exchange(X, (64,), dtype=(0, 32, 1)), "expected f32, got i32"),
        (Exchange(X, (8, 8)), r"got f32 \[8, 8\]"),
        (Exchange(X, (64,), device=(2, 1)), "got memory of GPU 1"),
        (Exchange(X, (64,), device=(1, 0)), "memory of the CPU"),
    ]:
        with pytest.raises(jitc.ArgumentError, match=said):
            kernel(**{**GOOD, "x": x})
    assert len(launched()) == 1


def test_tensors_of_tvm_ffi_are_read_and_its_global_functions_may_be_kernels(kernel: jitc.Kernel) -> None:
    tvm_ffi = pytest.importorskip("tvm_ffi", reason="tvm-ffi is not here: pip install apache-tvm-ffi")
    numpy = pytest.importorskip("numpy", reason="numpy is not here")
    on_cpu = tvm_ffi.from_dlpack(numpy.zeros(64, dtype="f4"))
    with pytest.raises(jitc.ArgumentError, match="`x`: expected memory of a GPU, got memory of the CPU"):
        kernel(on_cpu, on_cpu, 64)
    tvm_ffi.register_global_func("jitc_tests.scale", kernel)
    with pytest.raises(Exception, match="`x`: expected memory of a GPU, got memory of the CPU"):
        tvm_ffi.get_global_func("jitc_tests.scale")(on_cpu, on_cpu, 64)
