"""cuda.core's programs in jitc's cache.

    cache = jitc.adapters.cuda_core.ProgramCache()
    code = cuda.core.Program(source, "c++").compile("cubin", cache=cache)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cuda.core.utils import ProgramCacheResource  # type: ignore[import-not-found, unused-ignore]

import jitc

__all__ = ["ProgramCache"]


def _name(key: object) -> bytes:
    """As cuda.core has it: a text and its UTF-8 are one key."""
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, (bytes, bytearray)):
        return bytes(key)
    raise TypeError(f"cache keys must be bytes or str, got {type(key).__name__}")


def _data(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    code = getattr(value, "code", None)
    if isinstance(code, str):
        return Path(code).read_bytes()
    if isinstance(code, (bytes, bytearray)):
        return bytes(code)
    raise TypeError(f"cache values must be bytes-like or ObjectCode, got {type(value).__name__}")


class ProgramCache(ProgramCacheResource):  # type: ignore[misc, unused-ignore]
    """A cache for ``Program.compile(cache=)``. What it gives is verified; what is bad in it
    is missing.

    Args:
        engine: whose cache; by default that of the settings of the environment.
        key: a file with the secret key that signs what is kept, for caches that require it.
    """

    def __init__(self, engine: jitc.Jit | None = None, *, key: str | None = None) -> None:
        self._cache = jitc.ForeignCache(engine or jitc.Jit(), "cuda.core", key=key)

    def __getitem__(self, key: bytes | str) -> bytes:
        found = self._cache.get(_name(key))
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: bytes | str, value: Any) -> None:
        self._cache.put(_name(key), _data(value))

    def __delitem__(self, key: bytes | str) -> None:
        if not self._cache.remove(_name(key)):
            raise KeyError(key)

    def __len__(self) -> int:
        return len(self._cache.names())

    def clear(self) -> None:
        for name in self._cache.names():
            self._cache.remove(name)
