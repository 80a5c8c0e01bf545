"""A kernel of the C interface as a function of tvm-ffi, over the stub of the driver.

Run by ./check, where apache-tvm-ffi is at hand: `through_tvm_ffi.py LIBJITC FAMILIES`."""

from __future__ import annotations

import ctypes
import sys

import tvm_ffi

libjitc, families = sys.argv[1:]
jitc = ctypes.CDLL(libjitc)


class Options(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), *((name, ctypes.c_void_p) for name in "ab"), ("c", ctypes.c_size_t),
                ("templates", ctypes.c_char_p), *((name, ctypes.c_void_p) for name in "defghij"),
                *((name, ctypes.c_int32) for name in "klmn"))


class Error(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("status", ctypes.c_int), ("message", ctypes.c_char_p))


class Managed(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("kind", ctypes.c_int32), ("device", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
                ("offset", ctypes.c_uint64), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


jitc.jitc_last_error.restype = ctypes.POINTER(Error)
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Tensor:
    def __init__(self, address: int, length: int) -> None:
        self.shape = (ctypes.c_int64 * 1)(length)
        shape = ctypes.addressof(self.shape)
        self.managed = Managed(address, 2, 0, 1, 2, 32, 1, shape, None, 0, None, None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: object) -> object:
        return new_capsule(ctypes.addressof(self.managed), b"dltensor", None)


def done(status: int) -> None:
    assert status == 0, jitc.jitc_last_error()[0].message.decode()


def register(kernel: ctypes.c_void_p, name: bytes, replace: int) -> int:
    return int(jitc.jitc_register_tvm_ffi(kernel, None, name, replace))


engine, kernel = ctypes.c_void_p(), ctypes.c_void_p()
options = Options(size=ctypes.sizeof(Options), templates=families.encode())
done(jitc.jitc_open(ctypes.byref(options), ctypes.byref(engine)))
constants = (ctypes.c_char_p * 1)(b"block=256")
done(jitc.jitc_family(engine, b"scale", constants, ctypes.c_size_t(1), b"sm_90a", ctypes.byref(kernel)))
assert register(kernel, b"c.scale", 0) == 1, "it is not loaded"
done(jitc.jitc_load(kernel, 0))
done(register(kernel, b"c.scale", 0))
assert register(kernel, b"c.scale", 0) == 1
assert b"c.scale" in jitc.jitc_last_error()[0].message
done(register(kernel, b"c.scale", 1))
scale = tvm_ffi.get_global_func("c.scale")
x, y = Tensor(0x700000, 1000), Tensor(0x800000, 1000)
try:
    scale(x, y, 1001)
    raise SystemExit("expected a ValueError")
except ValueError as error:
    assert "parameter `x`" in str(error), error
jitc.jitc_free(kernel)
jitc.jitc_close(engine)
with tvm_ffi.use_raw_stream(tvm_ffi.device("cuda", 0), 0xABC0):
    scale(x, y, 1000)
print("launched through tvm-ffi")
