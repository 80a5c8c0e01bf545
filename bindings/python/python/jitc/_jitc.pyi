"""The native half of jitc."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, final

from ._errors import Error

_Constant = bool | int | float | str
_Constants = _Constant | Sequence[_Constant] | range
_Path = str | PathLike[str]

OPTIMIZED: bool
"""Whether the compiler optimized it: a wheel of the dev profile is ten times slower."""

REMOTE: bool
"""Whether it knows stores that a fleet shares."""

@final
class Jit:
    """The engine, opened with settings. Those that are not given are those of the
    environment (``JITC_*``), of ``env_file`` and of ``config``.

    Args:
        cache_dir: the folder that is written to.
        cache_ro: folders that are only read, in order.
        templates: a folder of families, over those that come with jitc.
        files: families as texts by relative path, instead of any others.
        nvrtc: the compiler: a file or a folder.
        offline: fetch nothing.
        preset: a preset of the families.
        env_file: ``KEY=VALUE`` lines, for processes that lose their environment.
        config: a ``jitc.toml``; none is looked for.
        arch: what to compile for, such as ``sm_90a``; by default for the GPUs here.
        jobs: how many compiles at once.
        miss: what a miss may do.
        bundle: a file of ``jitc cache export``, asked after the folders.
        remote: URLs of stores that a fleet shares, asked after all that is on this machine:
            ``s3://BUCKET/PREFIX``, ``gs://``, ``azblob://``, ``redis://HOST/DB``,
            ``https://HOST/PATH``, ``oci://REGISTRY/REPOSITORY:TAG``, ``file:///MOUNTED``.
            ``?role=read`` (the default), ``write`` or ``read-write`` at the end of each says
            what it is used for, ``&timeout=2s`` how long one request may take. A store that
            fails is a miss. Credentials are those of each service's own environment and
            files; a URL has none.
        trusted_keys: public keys, ``name-N:base64``: whose signatures count. Once there is
            one, what a store has must be signed by one.
        require: what must be signed: ``none`` or ``signed``, or by place, as
            ``user=none,other=signed``.
        worker: compile in processes of the program that came with this package, which
            ``JITC_PROGRAM`` replaces; else in this process.

    Raises:
        ConfigError: a setting that cannot be what it is; ``remote`` where the package was
            built without stores.
        TemplateError: a family that cannot be read.
        OSError: a bundle that cannot be read.
    """

    def __new__(
        cls,
        *,
        cache_dir: _Path | None = None,
        cache_ro: Sequence[_Path] = ...,
        templates: _Path | None = None,
        files: dict[str, str] | None = None,
        nvrtc: _Path | None = None,
        offline: bool = False,
        preset: str | None = None,
        env_file: _Path | None = None,
        config: _Path | None = None,
        arch: str | Sequence[str] | None = None,
        jobs: int | None = None,
        miss: Literal["compile", "warn", "forbid"] | None = None,
        bundle: _Path | None = None,
        remote: str | Sequence[str] | None = None,
        trusted_keys: str | Sequence[str] | None = None,
        require: str | None = None,
        worker: bool = True,
    ) -> Jit: ...
    def warm(
        self,
        *families: str,
        arch: str | Sequence[str] | None = None,
        jobs: int | None = None,
        **constants: _Constants,
    ) -> Report:
        """Finds or compiles variants, many at once, whatever becomes of each. A list of
        values is as many variants. Releases the GIL.

        Raises:
            SpecError: a value that no family takes, or a constant that none declares.
        """
    def load(
        self,
        family: str,
        *,
        device: int | None = None,
        entry: str | None = None,
        arch: str | None = None,
        **constants: _Constant,
    ) -> Kernel:
        """Finds or compiles one variant, and loads it on a GPU: by default on the one
        that is current, as torch has it. Releases the GIL. Loaded once, it is returned
        again.

        Raises:
            SpecError: a constant's value that is not legal.
            CompileError: the compiler refused the source.
            Forbidden: it is in no tier, and compiling is forbidden.
            CaptureError: a stream is capturing a graph.
            DeviceError: there is no GPU, or not that one.
        """
    def source(
        self,
        text: str,
        *,
        name: str = "source",
        entry: str | None = None,
        expression: str | None = None,
        parameters: Sequence[tuple[str, str] | tuple[str, str, str]] = ...,
        sizes: Sequence[str] = ...,
        grid: int | str | Sequence[int | str] | None = None,
        block: int | Sequence[int] | None = None,
        shared_mem_bytes: int = 0,
        cooperative: bool = False,
        define: dict[str, _Constant] = ...,
        headers: dict[str, str] = ...,
        use: Sequence[str] = ...,
        options: Sequence[str] = ...,
    ) -> Source:
        """A kernel of a string, compiled as it is, keyed by all that is given.

        Args:
            text: CUDA C++.
            name: what messages and ``jitc cache ls`` call it.
            entry: the name of an ``extern "C"`` kernel; with ``expression`` any name.
            expression: C++ that names a kernel, ``ns::scale<float, 8>``.
            parameters: ``(name, type)`` or ``(name, type, access)`` in order, as
                :attr:`Kernel.params` gives them: ``("y", "f32[n, 4]", "out")``,
                ``("n", "u32 = n")`` for a launch size, ``"f32"``, ``"tensor_map"``,
                ``"struct of 24 bytes, aligned to 8"``. Tensors start at multiples of 16
                bytes: ``"f32[n], aligned to 4"``. ``"f32[n] or null"`` may be left out.
                A kernel without them can be compiled and not called.
            sizes: launch sizes, numbers that shapes and the grid may name.
            grid: blocks: numbers or expressions over launch sizes,
                ``"ceil_div(a=n, b=256)"``; one block unless it is given.
            block: threads a block, in up to three dimensions; 256 unless it is given.
            shared_mem_bytes: dynamic shared memory, bytes a block.
            cooperative: launches are cooperative.
            define: macros, as C++ has their values: ``{"FACTOR": "2.0f"}``.
            headers: texts, by the names under which they are included.
            use: header sets of jitc's own: ``cuda``, ``curand``, ``std``.
            options: compiler options.

        Raises:
            SpecError: something that is given cannot be.
            TemplateError: a declaration is wrong.
        """
    def why(self, family: str, *, arch: str | None = None, **constants: _Constant) -> Why:
        """Whether one variant is a hit; if not, what stands in its way. Compiles nothing."""
    def key(self, family: str, *, arch: str | None = None, **constants: _Constant) -> str:
        """SHA-256 of all that the compiler would see of one variant, in hex."""
    def render(self, family: str, *, arch: str | None = None, **constants: _Constant) -> str:
        """The rendered CUDA source of one variant."""
    def cubin(self, family: str, *, arch: str | None = None, **constants: _Constant) -> bytes:
        """The machine code of one variant, compiled if need be. Releases the GIL."""
    def push(self, what: Report | Sequence[str], *, name: str | None = None) -> Pushed:
        """Sends entries of this machine to every store that is written to: one by one, for
        whoever misses them, or as one release under a name, for :meth:`pull`, with what was
        tuned for them. Releases the GIL.

        Args:
            what: what was warmed, or keys.
            name: at most 100 letters, digits and ``._-``.

        Raises:
            CacheError: no store is written to, an entry is not signed as demanded, or a
                store did not take the release.
        """
    def pull(self, release: str) -> Pulled:
        """Takes the entries of a release into the folder that is written to, verified, and
        its winners, from the first store that has it. Releases the GIL.

        Args:
            release: its name, or ``sha256:`` and the digest that a push gave.

        Raises:
            CacheError: no store has it, or what it has was refused.
        """
    def forbid(self) -> None:
        """From now on nothing compiles: a miss raises :class:`jitc.Forbidden`."""
    @property
    def miss(self) -> Literal["compile", "warn", "behind", "forbid"]:
        """What a miss may do at present."""
    def set_miss(self, policy_: Literal["compile", "warn", "forbid"]) -> None:
        """Changes what a miss may do, on every thread."""
    def on_event(self, callback: Callable[[Event], Any] | None) -> None:
        """Who is told of every event, on the thread on which it happens; ``None`` for
        nobody. An exception of the callback is written out and changes nothing."""
    def counters(self) -> dict[str, int]:
        """How often each thing happened, by name: ``hits``, ``misses``, ``built`` .."""
    def prometheus(self) -> str:
        """The counters in Prometheus' text format."""
    def families(self) -> list[str]:
        """The names of the families at hand."""
    @property
    def cache_dir(self) -> str | None:
        """The folder that is written to, if there is one."""
    def toolchain(self) -> str:
        """The compiler that would be used."""

@final
class Source:
    """A kernel of a string: :meth:`Jit.source` makes it. Nothing is compiled before it is
    asked for."""

    def load(self, *, device: int | None = None, arch: str | None = None) -> Kernel:
        """As :meth:`Jit.load`."""
    def warm(self, *, arch: str | Sequence[str] | None = None) -> Report:
        """As :meth:`Jit.warm`, for each arch."""
    def key(self, *, arch: str | None = None) -> str:
        """As :meth:`Jit.key`."""
    def why(self, *, arch: str | None = None) -> Why:
        """As :meth:`Jit.why`."""
    def cubin(self, *, arch: str | None = None) -> bytes:
        """As :meth:`Jit.cubin`."""
    @property
    def name(self) -> str:
        """What messages and ``jitc cache ls`` call it."""

@final
class Kernel:
    """A kernel in a GPU's memory, called with its parameters in declared order.

    Tensors are torch's, CuPy's, JAX's or anybody's with DLPack or
    ``__cuda_array_interface__``: of the declared type and shape, contiguous, row by row,
    in the GPU's memory; nothing is copied. ``None`` is a null pointer where the parameter
    is optional; optional parameters are given by name. Launch sizes and numbers are
    Python's; what is passed by value is anything with a buffer of the declared size: ``bytes``,
    a structure of ctypes, a structured value of numpy, a tensor map. ``stream`` is torch's, CuPy's, cuda.core's or a number; by default the first
    tensor's framework's current one.

    A launch is asynchronous: the memory has to live until the stream is done with it,
    which torch's and CuPy's allocators see to on their current stream.
    """

    def __call__(self, *args: Any, stream: Any = None, **kwargs: Any) -> None:
        """Checks and launches.

        Raises:
            ArgumentError: a value is not what its parameter declares; it is named.
            LaunchError: the driver said no.
        """
    def bind(self, *args: Any, stream: Any = None, **kwargs: Any) -> BoundKernel:
        """Checks all values now, for the largest launch sizes; holds the tensors."""
    def tvm_ffi(self, name: str, *, replace: bool = False) -> Any:
        """Makes this kernel a global function of tvm-ffi, which is imported for it, and
        returns that: native code, for C++ and whoever else speaks tvm-ffi.

        It takes the parameters by place, in declared order, then launch sizes that no
        parameter gives, then optional ones, which may be left out; launches on tvm-ffi's
        current stream; and holds the kernel.

        Args:
            name: of the function, ``mylib.scale``.
            replace: also where tvm-ffi has a function of this name.

        Raises:
            ArgumentError: the name is taken.
            LoadError: tvm-ffi is too old.
            ImportError: there is no tvm-ffi.
        """
    @property
    def family(self) -> str: ...
    @property
    def entry(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def device(self) -> int:
        """The GPU, by its place in the driver's order."""
    @property
    def key(self) -> str:
        """SHA-256 of all that the compiler saw, in hex."""
    @property
    def provenance(self) -> Literal["hit", "built", "built_uncached"]: ...
    @property
    def params(self) -> list[tuple[str, str, str]]:
        """Name, type with shape (``f32[n]``), and ``in``, ``out``, ``inout``,
        ``workspace`` or ``value``, in declared order."""
    def shape(self, parameter: str, **numbers: int) -> tuple[str, list[int | None]]:
        """Type and shape of a pointer's memory for these launch sizes and whole numbers, for
        whoever allocates; ``None`` for a dimension of any length.

        Raises:
            ArgumentError: there is no such parameter, or a number that its shape names is
                not given.
        """
    @property
    def optional(self) -> list[str]:
        """The parameters that may be left out, and are given by name, in declared order."""
    @property
    def registers(self) -> int:
        """Registers a thread."""
    @property
    def capacity(self) -> int:
        """Blocks that the whole GPU holds at once."""
    @property
    def block_threads(self) -> int:
        """Threads a block."""
    @property
    def shared_mem_bytes(self) -> int:
        """Dynamic shared memory, bytes a block."""

@final
class BoundKernel:
    """A kernel with its values, which it holds."""

    def __call__(self, *sizes: int, stream: Any = None) -> None:
        """Launches it for these launch sizes, each from 1 to what was bound; without
        any, for those."""
    @property
    def most(self) -> list[int]:
        """The largest launch sizes, in declared order."""

@final
class Event:
    """One thing that happened."""

    @property
    def kind(self) -> str:
        """``lookup``, ``hit``, ``miss``, ``built`` ..; of stores ``asked``, ``promoted``,
        ``sent``, ``not_sent``, ``store_left_alone``, ``store_asked_again``."""
    @property
    def key(self) -> str | None: ...
    @property
    def tier(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def compile_seconds(self) -> float | None: ...

@final
class Variant:
    """One variant of a :meth:`Jit.warm`."""

    @property
    def family(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def outcome(self) -> Literal["hit", "built", "built_uncached", "failed"]: ...
    @property
    def compile_seconds(self) -> float | None: ...
    @property
    def error(self) -> Error | None: ...

@final
class Report:
    """What became of a :meth:`Jit.warm`."""

    @property
    def variants(self) -> list[Variant]: ...
    @property
    def hit(self) -> int: ...
    @property
    def built(self) -> int: ...
    @property
    def failed(self) -> list[Variant]: ...

@final
class Pushed:
    """What became of a push."""

    @property
    def sent(self) -> int:
        """Entries that a store took, each store counted."""
    @property
    def present(self) -> int:
        """The same that were there already."""
    @property
    def failed(self) -> list[str]:
        """A line for each that was not sent."""
    @property
    def digest(self) -> str | None:
        """``sha256:`` and the digest of a release."""

@final
class Pulled:
    """What a pull brought."""

    @property
    def added(self) -> int:
        """Entries that are new here."""
    @property
    def present(self) -> int:
        """Entries that were there already."""
    @property
    def tuned(self) -> int:
        """Measured winners that are new here."""

@final
class Why:
    """Whether a request is a hit, and why not. It is true where it is a hit."""

    @property
    def answer(self) -> Literal["hit", "miss", "bad", "refused"]: ...
    @property
    def key(self) -> str: ...
    @property
    def tier(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def nearest(self) -> str | None: ...
    @property
    def differences(self) -> list[str]: ...
    def __bool__(self) -> bool: ...

@final
class ForeignCache:
    """The folders of an engine's cache for the bytes of another cache's client, by name, with
    the verification, trust and signatures of jitc's own entries, for which they are never
    taken. See :mod:`jitc.adapters`.

    Args:
        jit: whose cache.
        client: whose bytes, of small letters, digits, ``.``, ``_`` and ``-``: ``triton``.
        key: a file with the secret key that signs what is kept.

    Raises:
        CacheError: a key that cannot be read.
    """

    def __new__(cls, jit: Jit, client: str, *, key: _Path | None = None) -> ForeignCache: ...
    def get(self, name: bytes) -> bytes | None:
        """The bytes under a name; ``None`` where there are none, or bad ones."""
    def put(self, name: bytes, data: bytes) -> None:
        """Keeps bytes under a name, in the place of others.

        Raises:
            CacheError: there is no folder that can be written to, or it cannot be kept.
        """
    def remove(self, name: bytes) -> bool:
        """Removes what is under a name; says whether there was anything."""
    def names(self) -> list[bytes]:
        """The names under which there is something good, sorted. Reads it all."""

def layer_facts(kernel: Kernel) -> dict[str, int]:
    """Sizes of a decode layer, and which of its matrices are packed."""

def choose(kernels: list[Kernel], num_tokens: int, max_tokens: int, path: str) -> tuple[int | None, str]:
    """The kernel that runs a step of so many tokens, by its place, or none; and why."""

def pack_weight(codes: bytes, scales: bytes, rows: int, k: int, linear: bool) -> tuple[bytes, bytes]:
    """NVFP4 weights as checkpoints have them, packed for the decode layer."""

def sample(kernel: Kernel, lengths: list[int], seed: int) -> dict[str, Any]:
    """Random inputs of jitc's own for a layer, as bytes by parameter."""

def run_sample(kernel: Kernel, lengths: list[int], seed: int) -> dict[str, bytes]:
    """What jitc's own Rust makes of those inputs on the GPU."""
