"""The decode layer from Python, over a driver that is none: what is bound, chosen, launched."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fakes import Exchange
from test_calls import calls, say

import jitc
from jitc import _jitc
from jitc.decode import DecodeLayer

pytestmark = pytest.mark.skipif(
    "STUB_DRIVER" not in os.environ, reason="needs the stub of the driver: bindings/python/check"
)

SMALL: dict[str, Any] = {
    "hidden": 256,
    "intermediate": 320,
    "num_q_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 64,
    "page_size": 16,
    "num_ctas": 6,
}
# DLPack's code, bits and lanes of a type.
TYPES = {"bf16": (4, 16, 1), "f32": (2, 32, 1), "u8": (1, 8, 1), "u32": (1, 32, 1), "i32": (0, 32, 1), "e4m3": (10, 8, 1)}


class Memory:
    """Addresses, each for a tensor of its own."""

    def __init__(self) -> None:
        self.next = 0x10_0000
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def __call__(self, shape: tuple[int, ...], dtype: str) -> Exchange:
        self.asked.append((dtype, shape))
        self.next += 0x10_0000
        tensor = Exchange(self.next, shape, dtype=TYPES[dtype])
        return tensor


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> DecodeLayer:
    os.environ.pop("JITC_CACHE_DIR", None)
    say()
    engine = jitc.Jit(cache_dir=tmp_path_factory.mktemp("cache"))
    return DecodeLayer(engine, max_tokens=2, device=0, path="cooperative", tokens_per_pass=(1, 2), **SMALL)


def given(layer: DecodeLayer, memory: Memory) -> dict[str, Any]:
    """All that the caller has to have, for a cache of five pages."""
    kernel = layer.kernels[0]
    tensors: dict[str, Any] = {}
    for name, written, access in kernel.params:
        if access in ("in", "out") and name != "wo_output" and name not in kernel.optional:
            dtype, dims = kernel.shape(name, num_tokens=2, max_pages=3)
            tensors[name] = memory(tuple(5 if dim is None else dim for dim in dims), dtype)
        elif access == "value" and written == "f32":
            tensors[name] = 0.5
    return tensors


def test_a_step_is_one_launch_of_the_kernel_for_its_tokens(layer: DecodeLayer) -> None:
    memory = Memory()
    tensors = given(layer, memory)
    memory.asked.clear()
    say(**{"params.decode_layer": 8 * len(layer.kernels[0].params)})
    bound = layer.bind(allocate=memory, **tensors)
    # attn_rows, summed, counters .. are shared by both kernels: none is made twice.
    assert len(memory.asked) == len(set(memory.asked)) and ("u32", (96 + 2 * 64,)) in memory.asked
    asked = len(memory.asked)
    layer.bind(allocate=memory, share=bound, **tensors)
    assert len(memory.asked) == asked, "a layer that shares makes no workspace"
    names = [name for name, _, _ in layer.kernels[0].params]
    calls("")
    functions = []
    for tokens in (1, 2):
        bound(tokens)
        (call,) = calls("cuLaunch")
        packed = bytes.fromhex(call.rsplit("params ", 1)[1])
        words = [int.from_bytes(packed[at : at + 8], "little") for at in range(0, len(packed), 8)]
        passed = dict(zip(names, words, strict=True))
        assert passed["num_tokens"] == tokens and passed["max_pages"] == 3
        assert passed["kv_half_stride"] == 16 * 2 * 64 and passed["kv_page_stride"] == 2 * 16 * 2 * 64
        assert passed["query"] != passed["mlp_output"]
        functions.append(layer.choose(tokens)[0].key)
    assert functions == [kernel.key for kernel in layer.kernels]
    with pytest.raises(jitc.ArgumentError, match="bound for 1 to 2"):
        bound(3)
    with pytest.raises(jitc.LoadError, match="1 to 2 tokens"):
        layer.choose(3)
    with pytest.raises(jitc.ArgumentError, match="`residual_in`.*got nothing"):
        layer.bind(allocate=memory, **{name: t for name, t in tensors.items() if name != "residual_in"})


def test_inputs_of_its_own_are_of_the_declared_shapes(layer: DecodeLayer) -> None:
    kernel = layer.kernels[0]
    inputs = _jitc.sample(kernel, [20, 5], 3)
    sizes = {"bf16": 2, "f32": 4, "u8": 1, "i32": 4, "e4m3": 1}
    for name, value in inputs.items():
        if isinstance(value, bytes):
            dtype, dims = kernel.shape(name, num_tokens=2, max_pages=inputs["max_pages"])
            one = sizes[dtype]
            for dim in dims:
                one *= 1 if dim is None else dim
            assert len(value) % one == 0 and (None in dims or len(value) == one), name
    assert _jitc.sample(kernel, [20, 5], 3) == inputs


def test_weights_are_packed_on_the_cpu_as_rust_packs_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    # Registers: warps that share them out want as many.
    say(**{"function.4": 96})
    engine = jitc.Jit(cache_dir=tmp_path_factory.mktemp("packed"))
    packed = {"accumulate": "mma", "weight_layout": "packed64", **SMALL}
    layer = DecodeLayer(engine, max_tokens=1, device=0, path="separate", **packed)
    assert len(layer.kernels) == 1
    codes, scales = bytes(at % 251 for at in range(320 * 128)), bytes(at % 113 for at in range(320 * 16))
    made = layer.pack("up", codes, scales, linear=True)
    assert len(made[0]) == len(codes) and len(made[1]) == len(scales) and made[0] != codes
    assert sorted(made[1]) == sorted(scales)
    with pytest.raises(jitc.ArgumentError, match="the scales are 3 bytes: expected 5120"):
        layer.pack("up", codes, b"abc", linear=True)
    with pytest.raises(jitc.ArgumentError, match="expected wo, gate, up or down"):
        layer.pack("upp", codes, scales)
    with pytest.raises(jitc.LoadError, match="is not a decode layer"):
        _jitc.layer_facts(engine.load("stream", device=0))


def test_a_path_or_a_number_of_tokens_that_cannot_be_is_refused(layer: DecodeLayer) -> None:
    with pytest.raises(jitc.ArgumentError, match="expected auto, cooperative or separate"):
        DecodeLayer(layer._jit, max_tokens=1, path="fast")
    with pytest.raises(jitc.ArgumentError, match="at least 1"):
        DecodeLayer(layer._jit, max_tokens=0)
