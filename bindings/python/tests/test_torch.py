"""Operators of torch: tried where torch is installed, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch  # type: ignore[import-not-found, unused-ignore]
else:
    torch = pytest.importorskip("torch", reason="torch is not here: pip install torch")

import jitc  # noqa: E402
import jitc.torch as jitc_torch  # noqa: E402


def test_an_operator_that_writes_passes_opcheck() -> None:
    @jitc_torch.op("jitc_tests::scale", mutates_args=("y",), device="cpu")
    def scale(x: torch.Tensor, y: torch.Tensor, by: float, n: int) -> None:
        y[:n] = x[:n] * by

    x, y = torch.randn(16), torch.zeros(16)
    torch.ops.jitc_tests.scale(x, y, 2.0, 16)
    assert torch.equal(y, x * 2)
    torch.library.opcheck(scale.default, (x, y, 3.0, 16))

    def twice(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty_like(x)
        torch.ops.jitc_tests.scale(x, y, 2.0, x.shape[0])
        return y + 1

    compiled = torch.compile(twice, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), x * 2 + 1)


def test_an_operator_that_returns_needs_a_fake_and_passes_opcheck() -> None:
    def plain(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    with pytest.raises(ValueError, match="give fake="):
        jitc_torch.op("jitc_tests::plain", mutates_args=(), device="cpu")(plain)
    one = jitc_torch.op("jitc_tests::one", mutates_args=(), device="cpu", fake=torch.empty_like)(plain)
    torch.library.opcheck(one.default, (torch.randn(3),))


def test_a_name_that_is_none_is_refused() -> None:
    def nothing() -> None: ...

    for name in ("scale", "a::b::c", "a b::c", "::c"):
        with pytest.raises(ValueError, match="no name of an operator"):
            jitc_torch.op(name, mutates_args=())(nothing)


def test_declared_parameters_are_a_schema_that_torch_takes() -> None:
    params = [
        ("x", "bf16[n, 4]", "in"),
        ("y", "f32[n]", "out"),
        ("scratch", "u8[n]", "workspace"),
        ("ticks", "u64[*]", "out"),
        ("by", "f32", "value"),
        ("fast", "bool", "value"),
        ("n", "u32 = n", "value"),
    ]
    schema = jitc_torch.schema_of(params, ["ticks"])
    parsed = torch._C.parse_schema("jitc_tests::all" + schema)
    written = [a.name for a in parsed.arguments if a.alias_info is not None and a.alias_info.is_write]
    assert written == ["y", "scratch", "ticks"]
    assert [a.name for a in parsed.arguments if a.kwarg_only] == ["ticks"]
    with pytest.raises(jitc.ArgumentError, match="take no struct of 8 bytes"):
        jitc_torch.schema_of([("c", "struct of 8 bytes, aligned to 4", "value")])
