"""Triton's compiled kernels in jitc's cache.

    TRITON_CACHE_MANAGER=jitc.adapters.triton:CacheManager python serve.py

The cache is that of the settings (``JITC_CACHE_DIR``, ``JITC_CACHE_RO``, ``JITC_ENV_FILE``
..); a program that has a :class:`jitc.Jit` of its own gives it to :func:`use`. Triton wants
files: what comes out of the cache is also written below ``TRITON_CACHE_DIR``, as Triton's
own manager for remote caches does.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from triton import knobs  # type: ignore[import-not-found, unused-ignore]
from triton.runtime.cache import (  # type: ignore[import-not-found, unused-ignore]
    FileCacheManager,
    RemoteCacheBackend,
    RemoteCacheManager,
)

import jitc

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Backend", "CacheManager", "use"]

_cache: jitc.ForeignCache | None = None


def use(engine: jitc.Jit, *, key: str | None = None) -> None:
    """Kernels are kept in the cache of this engine from now on, and Triton is told so.

    Args:
        engine: whose cache.
        key: a file with the secret key that signs what is kept, for caches that require it.
    """
    global _cache
    _cache = jitc.ForeignCache(engine, "triton", key=key)
    knobs.cache.manager_class = CacheManager


def _opened() -> jitc.ForeignCache:
    global _cache
    if _cache is None:
        _cache = jitc.ForeignCache(jitc.Jit(), "triton")
    return _cache


class Backend(RemoteCacheBackend):  # type: ignore[misc, unused-ignore]
    """What ``TRITON_REMOTE_CACHE_BACKEND`` may name, too."""

    def __init__(self, key: str) -> None:
        self._key = key

    def _name(self, filename: str) -> bytes:
        return f"{self._key}/{filename}".encode()

    def get(self, filenames: Iterable[str]) -> dict[str, bytes]:
        found = ((name, _opened().get(self._name(name))) for name in filenames)
        return {name: data for name, data in found if data is not None}

    def put(self, filename: str, data: bytes) -> None:
        try:
            _opened().put(self._name(filename), data)
        except jitc.CacheError as error:
            # A cache that cannot be written to fails no compile.
            warnings.warn(f"jitc keeps nothing of Triton: {error}", RuntimeWarning, stacklevel=2)


class CacheManager(RemoteCacheManager):  # type: ignore[misc, unused-ignore]
    """What ``TRITON_CACHE_MANAGER`` names."""

    def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
        self._backend = Backend(key)
        self._override = override
        self._dump = dump
        self._file_cache_manager = FileCacheManager(key, override=override, dump=dump)
