"""CUDA kernels specialized and compiled at run time, cached, and called with tensors.

    import jitc, torch

    scale = jitc.Jit(templates="families").load("scale", factor=2.0)
    x = torch.randn(4096, device="cuda")
    y = torch.empty_like(x)
    scale(x, y, 4096)        # on torch's current stream

Importing this module touches no file, no driver and starts no thread. The functions of
the module are those of one :class:`Jit` with the settings of the environment, which is
opened by the first of them; a program with settings of its own makes a :class:`Jit`.
"""

from __future__ import annotations

from ._errors import (
    ArgumentError,
    CacheError,
    CaptureError,
    CompileError,
    ConfigError,
    DeviceError,
    Error,
    Forbidden,
    ForkedError,
    LaunchError,
    LoadError,
    PolicyError,
    SpecError,
    TemplateError,
    ToolchainError,
)
from ._jitc import BoundKernel, Event, ForeignCache, Jit, Kernel, Pulled, Pushed, Report, Source, Variant, Why

# The module typing takes longer to import than all of this; checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Constant = bool | int | float | str
    Constants = Constant | Sequence[Constant] | range

__all__ = [
    "ArgumentError",
    "BoundKernel",
    "CacheError",
    "CaptureError",
    "CompileError",
    "ConfigError",
    "DeviceError",
    "Error",
    "Event",
    "Forbidden",
    "ForeignCache",
    "ForkedError",
    "Jit",
    "Kernel",
    "LaunchError",
    "LoadError",
    "PolicyError",
    "Pulled",
    "Pushed",
    "Report",
    "Source",
    "SpecError",
    "TemplateError",
    "ToolchainError",
    "Variant",
    "Why",
    "counters",
    "families",
    "forbid",
    "key",
    "load",
    "on_event",
    "prometheus",
    "pull",
    "push",
    "source",
    "warm",
    "why",
]


_default: Jit | None = None


def _jit() -> Jit:
    """The one behind the module's functions. Two threads may each open one; one is kept."""
    global _default
    if _default is None:
        opened = Jit()
        if _default is None:
            _default = opened
    return _default


def warm(
    *families: str,
    arch: str | Sequence[str] | None = None,
    jobs: int | None = None,
    **constants: Constants,
) -> Report:
    """See :meth:`Jit.warm`."""
    return _jit().warm(*families, arch=arch, jobs=jobs, **constants)


def load(
    family: str,
    *,
    device: int | None = None,
    entry: str | None = None,
    arch: str | None = None,
    **constants: Constant,
) -> Kernel:
    """See :meth:`Jit.load`."""
    return _jit().load(family, device=device, entry=entry, arch=arch, **constants)


def source(text: str, **declarations: Any) -> Source:
    """See :meth:`Jit.source`."""
    return _jit().source(text, **declarations)


def why(family: str, *, arch: str | None = None, **constants: Constant) -> Why:
    """See :meth:`Jit.why`."""
    return _jit().why(family, arch=arch, **constants)


def key(family: str, *, arch: str | None = None, **constants: Constant) -> str:
    """See :meth:`Jit.key`."""
    return _jit().key(family, arch=arch, **constants)


def families() -> list[str]:
    """The names of the families at hand."""
    return _jit().families()


def push(what: Report | Sequence[str], *, name: str | None = None) -> Pushed:
    """See :meth:`Jit.push`."""
    return _jit().push(what, name=name)


def pull(release: str) -> Pulled:
    """See :meth:`Jit.pull`."""
    return _jit().pull(release)


def forbid() -> None:
    """See :meth:`Jit.forbid`."""
    _jit().forbid()


def on_event(callback: Callable[[Event], Any] | None) -> None:
    """See :meth:`Jit.on_event`."""
    _jit().on_event(callback)


def counters() -> dict[str, int]:
    """See :meth:`Jit.counters`."""
    return _jit().counters()


def prometheus() -> str:
    """See :meth:`Jit.prometheus`."""
    return _jit().prometheus()
