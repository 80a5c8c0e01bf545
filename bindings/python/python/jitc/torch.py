"""Kernels as operators of torch, for ``torch.compile`` and ``torch.export``.

    @jitc.torch.op("mylib::scale", mutates_args=("y",))
    def scale(x: torch.Tensor, y: torch.Tensor, n: int) -> None:
        kernel(x, y, n)

    torch.ops.mylib.scale(x, y, 4096)       # or scale(x, y, 4096)

    add = jitc.torch.op_of("mylib::add", kernel)     # schema of the declared parameters

Importing this module imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch  # type: ignore[import-not-found, unused-ignore]

import jitc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = TypeVar("Function", bound=Callable[..., Any])

__all__ = ["op", "op_of"]

# An operator goes with its library: they stay as long as the process.
_libraries: list[Any] = []

_WHOLE = {"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"}
_REAL = {"f16", "bf16", "f32", "f64"}


def _register(
    name: str, schema: str, function: Callable[..., Any], fake: Callable[..., Any] | None, device: str
) -> Any:
    namespace, parted, op_name = name.partition("::")
    if not (parted and namespace.isidentifier() and op_name.isidentifier()):
        raise ValueError(f"{name!r} is no name of an operator: expected such as 'mylib::scale'")
    # Faster than torch.library.custom_op, which checks again what is checked here.
    library = torch.library.Library(namespace, "FRAGMENT")
    library.define(op_name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(op_name, function, {"cuda": "CUDA", "cpu": "CPU"}[device])
    library._register_fake(op_name, fake or (lambda *args, **kwargs: None))
    _libraries.append(library)
    return getattr(getattr(torch.ops, namespace), op_name)


def op(
    name: str,
    *,
    mutates_args: Sequence[str],
    fake: Callable[..., Any] | None = None,
    device: str = "cuda",
) -> Callable[[Function], Any]:
    """Registers a function, which launches kernels, as an operator of torch.

    Args:
        name: ``namespace::name``.
        mutates_args: the names of the tensors that it writes.
        fake: what it returns of tensors without memory; needed where it returns any.
        device: ``cuda``, or ``cpu`` for trying it without a GPU.

    The function has annotations, of which the schema is made. What it writes is given to
    it; it returns nothing unless there is a ``fake``.
    """

    def register(function: Function) -> Any:
        schema = torch.library.infer_schema(function, mutates_args=tuple(mutates_args))
        if not schema.endswith("-> ()") and fake is None:
            raise ValueError(f"{name} returns something: give fake=, which says of what shape and type")
        return _register(name, schema, function, fake, device)

    return register


def schema_of(params: Sequence[tuple[str, str, str]], optional: Sequence[str] = ()) -> str:
    """The schema of declared parameters, as :attr:`jitc.Kernel.params` has them."""
    required, defaulted = [], []
    for at, (name, written, access) in enumerate(params):
        dtype = written.split("[")[0].split("=")[0].strip()
        if access == "value":
            if dtype == "bool":
                required.append(f"bool {name}")
            elif dtype in _WHOLE:
                required.append(f"SymInt {name}")
            elif dtype in _REAL:
                required.append(f"float {name}")
            else:
                raise jitc.ArgumentError(
                    f"parameter `{name}`: operators of torch take no {written}", parameter=name
                )
            continue
        written_to = "" if access == "in" else f"(a{at}!)"
        if name in optional:
            defaulted.append(f"Tensor{written_to}? {name}=None")
        else:
            required.append(f"Tensor{written_to} {name}")
    keywords = ["*", *defaulted] if defaulted else []
    return f"({', '.join([*required, *keywords])}) -> ()"


def op_of(name: str, kernel: jitc.Kernel) -> Any:
    """Registers a kernel as an operator of torch, called as the kernel is: with its declared
    parameters in order, and those that are optional by name. What it declares as ``out``,
    ``inout`` or ``workspace`` is written.

    Raises:
        ArgumentError: a parameter of a kind that operators do not have: a struct or a
            tensor map.
    """
    return _register(name, schema_of(kernel.params, kernel.optional), kernel, None, "cuda")
