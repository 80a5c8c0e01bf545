"""Tensors of no framework, in memory that is not there: they have only what is read."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Facts:
    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        *,
        strides: tuple[int, ...] | None = None,
        dtype: tuple[int, int, int] = (2, 32, 1),
        device: tuple[int, int] = (2, 0),
        offset: int = 0,
    ) -> None:
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.strides = None if strides is None else (ctypes.c_int64 * len(shape))(*strides)
        self.facts = (address, device, dtype, offset)

    def fill(self, tensor: DLTensor) -> None:
        address, (kind, ordinal), (code, bits, lanes), offset = self.facts
        tensor.data = address
        tensor.device_type, tensor.device_id = kind, ordinal
        tensor.code, tensor.bits, tensor.lanes = code, bits, lanes
        tensor.ndim = len(self.shape)
        tensor.shape = ctypes.cast(self.shape, ctypes.POINTER(ctypes.c_int64))
        if self.strides is not None:
            tensor.strides = ctypes.cast(self.strides, ctypes.POINTER(ctypes.c_int64))
        else:
            tensor.strides = None
        tensor.byte_offset = offset


class Capsule(_Facts):
    """With `__dlpack__` in its old form."""

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.asked = stream
        self.tensor = DLTensor()
        self.fill(self.tensor)
        return _new(ctypes.addressof(self.tensor), b"dltensor", None)


_READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(DLTensor))
_STREAM = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))


class _Api(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("prev", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("managed_from", ctypes.c_void_p),
        ("managed_to", ctypes.c_void_p),
        ("read", _READ),
        ("stream", _STREAM),
    )


def _read(tensor: Any, out: Any) -> int:
    tensor.fill(out[0])
    return 0


def _stream(kind: int, device: int, out: Any) -> int:
    out[0] = 0xABC0 + device
    return 0


_api = _Api(1, 3, None, None, None, None, _READ(_read), _STREAM(_stream))


# A capsule does not copy its name.
_NAME = b"dlpack_exchange_api"


class Exchange(_Facts):
    """With DLPack's C exchange API, whose current stream is 0xabc0 and the GPU's place."""

    __dlpack_c_exchange_api__: ClassVar[Any] = _new(ctypes.addressof(_api), _NAME, None)


class Interface:
    """With `__cuda_array_interface__`."""

    def __init__(self, address: int, shape: tuple[int, ...], typestr: str = "<f4", **more: Any) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": typestr,
            "version": 3,
            **more,
        }
