"""What can go wrong, by stage. Every class is a subclass of :class:`Error`."""

from __future__ import annotations


class Error(Exception):
    """Anything that jitc refuses or fails at. Its text is one line.

    Attributes:
        hint: what to do about it, a line each, where there is something.
        key: the key that it is about, in hex, where there is one.
        log: all that the compiler said, where it refused the source.
    """

    hint: str | None
    key: str | None
    log: str | None

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        key: str | None = None,
        log: str | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.key = key
        self.log = log


class ConfigError(Error):
    """A setting that cannot be what it is, and where it was written."""


class TemplateError(Error):
    """A family that cannot be read or rendered."""


class SpecError(Error):
    """A request that no family takes: an unknown constant, a value that is not legal."""


class ToolchainError(Error):
    """No compiler, or not one that can be used."""


class CacheError(Error):
    """The cache cannot be looked into."""


class CompileError(Error):
    """The compiler refused the source; ``log`` has all of its words."""


class PolicyError(Error):
    """A policy does not allow it, such as a receipt that does not list it."""


class Forbidden(PolicyError):
    """No tier of the cache has it, and compiling is forbidden.

    Attributes:
        command: the command that would warm it.
    """

    command: str | None

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        key: str | None = None,
        log: str | None = None,
        command: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, key=key, log=log)
        self.command = command


class DeviceError(Error):
    """There is no driver, no GPU, or not that one."""


class ForkedError(DeviceError):
    """CUDA was started by the process that this one was forked from."""


class LoadError(Error):
    """The driver did not take the machine code."""


class CaptureError(LoadError):
    """A kernel cannot be loaded while a stream captures a graph: load it before."""


class LaunchError(Error):
    """A launch did not happen."""


class ArgumentError(Error, ValueError):
    """What a kernel was called with is not what it declares.

    Attributes:
        parameter: the parameter, or the launch size, that is wrong.
    """

    parameter: str | None

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        key: str | None = None,
        log: str | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, key=key, log=log)
        self.parameter = parameter
