"""Kernels as native functions of tvm-ffi, over a driver that is none."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import DLTensor, _Facts, _new
from test_calls import FAMILIES, X, Y, calls, launched, say

import jitc

pytestmark = pytest.mark.skipif(
    "STUB_DRIVER" not in os.environ, reason="needs the stub of the driver: bindings/python/check"
)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class Managed(_Facts):
    """As tvm-ffi takes over what has `__dlpack__`."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        self.managed = _Managed()
        self.fill(self.managed.tensor)
        return _new(ctypes.addressof(self.managed), b"dltensor", None)


@pytest.fixture
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[jitc.Kernel]:
    say()
    engine = jitc.Jit(cache_dir=tmp_path_factory.mktemp("cache"), templates=FAMILIES)
    kernel = engine.load("scale", device=0, block=256)
    calls("")
    yield kernel
    say()


@pytest.fixture
def tvm_ffi() -> Any:
    return pytest.importorskip("tvm_ffi", reason="tvm-ffi is not here: pip install apache-tvm-ffi")


def test_a_kernel_is_called_through_tvm_ffi_on_its_stream(kernel: jitc.Kernel, tvm_ffi: Any) -> None:
    function = kernel.tvm_ffi("jitc_tests.native")
    x, y = Managed(X, (1000,)), Managed(Y, (1000,))
    function(x, y, 1000)
    tvm_ffi.get_global_func("jitc_tests.native")(x, y, 1000, None)
    assert launched() == [("4,1,1", "(nil)", [X, Y, 0, 1000])] * 2
    with tvm_ffi.use_raw_stream(tvm_ffi.device("cuda", 0), 0xABC0):
        function(x, y, 1000)
    assert launched() == [("4,1,1", "0xabc0", [X, Y, 0, 1000])]


def test_what_is_wrong_is_raised_with_the_name_of_the_parameter(kernel: jitc.Kernel, tvm_ffi: Any) -> None:
    function = kernel.tvm_ffi("jitc_tests.checked")
    x, y = Managed(X, (64,)), Managed(Y, (64,))
    for values, error, words in [
        ((x, y), TypeError, r"expected 3 to 4 arguments \(x, y, n, region_timing\), got 2"),
        ((x, y, 64, None, 1), TypeError, "got 5"),
        ((x, 3, 64), TypeError, "parameter `y`: expected a tensor"),
        ((x, y, 1.5), TypeError, "parameter `n`: expected a launch size"),
        ((x, y, -1), TypeError, "parameter `n`: expected a launch size"),
        ((x, y, 65), ValueError, "parameter `x`"),
        ((x, None, 64), ValueError, "parameter `y`"),
        ((Managed(X, (64,), dtype=(4, 16, 1)), y, 64), ValueError, "expected f32, got bf16"),
    ]:
        with pytest.raises(error, match=words):
            function(*values)
    assert launched() == []


def test_a_function_holds_its_kernel_and_a_name_is_taken_once(kernel: jitc.Kernel, tvm_ffi: Any) -> None:
    function = kernel.tvm_ffi("jitc_tests.held")
    with pytest.raises(jitc.ArgumentError, match="jitc_tests.held"):
        kernel.tvm_ffi("jitc_tests.held")
    function = kernel.tvm_ffi("jitc_tests.held", replace=True)
    del kernel
    gc.collect()
    function(Managed(X, (10,)), Managed(Y, (10,)), 10)
    assert launched() == [("1,1,1", "(nil)", [X, Y, 0, 10])]
