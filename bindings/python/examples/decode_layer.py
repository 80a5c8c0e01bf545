#!/usr/bin/env python3
"""The decode layer from Python on a GPU with torch: as a server runs it, and bit for bit beside Rust.

    python bindings/python/examples/decode_layer.py bits     # the same bits as jitc's own Rust
    python bindings/python/examples/decode_layer.py serve    # warm, forbid, a graph a batch size, steps
    python bindings/python/examples/decode_layer.py pack     # packing on the CPU and on the GPU

Each verb ends with exit code 1 where what it says does not hold. Inputs are random, made by
jitc, of `--layers` layers with weights of their own. Where an engine's own process would
call it: vLLM in the `forward` of a decoder layer of its model class (`LlamaDecoderLayer`),
while `forward_context.attn_metadata` says that all sequences decode; SGLang in the `forward`
of the same class of its own, while `forward_batch.forward_mode.is_decode()`. It was not run
inside either.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import jitc
import torch
from jitc import _jitc
from jitc.decode import BoundLayer, DecodeLayer

ROWS = ("query", "page_table", "seq_lens", "gate", "hidden_in", "residual_in")
OUTPUTS = ("attn_output", "residual_output", "mlp_output")


def shapes(layer: DecodeLayer, max_pages: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every pointer, for `max_tokens` tokens; 0 for any length."""
    kernel, found = layer.kernels[0], {}
    for name, written, access in kernel.params:
        if access != "value":
            dtype, dims = kernel.shape(name, num_tokens=layer.max_tokens, max_pages=max_pages)
            found[name] = dtype, tuple(dim or 0 for dim in dims)
    return found


DTYPES = {
    "bf16": torch.bfloat16, "f32": torch.float32, "u8": torch.uint8, "i32": torch.int32, "e4m3": torch.float8_e4m3fn
}


def upload(data: bytes, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8).cuda().view(DTYPES[dtype])
    return flat.reshape([dim or -1 for dim in shape])


class Problem:
    """Tensors of one layer with room for `max_tokens`, and what is bound to them."""

    def __init__(self, layer: DecodeLayer, lengths: list[int], seed: int, before: BoundLayer | None = None) -> None:
        self.layer, self.lengths, self.seed = layer, lengths, seed
        given: dict[str, Any] = _jitc.sample(layer.kernels[0], lengths, seed)
        self.max_pages = given.pop("max_pages")
        self.tensors: dict[str, Any] = {}
        declared = shapes(layer, self.max_pages)
        for name, value in given.items():
            self.tensors[name] = upload(value, *declared[name]) if isinstance(value, bytes) else value
        for name in OUTPUTS + (("attn_input",) if "hidden_in" in given else ()):
            dtype, shape = declared[name]
            self.tensors[name] = torch.full(shape, torch.nan, dtype=DTYPES[dtype], device="cuda")
        self.bound: BoundLayer = layer.bind(share=before, **self.tensors)


def make(options: argparse.Namespace, max_tokens: int, **more: Any) -> DecodeLayer:
    constants = {"accumulate": "mma", "weight_layout": "packed64", **more}
    constants |= dict(word.split("=", 1) for word in options.set)
    return DecodeLayer(jitc.Jit(), max_tokens=max_tokens, **constants)


def verdict(what: str, holds: bool) -> int:
    print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
    return 0 if holds else 1


def bits(options: argparse.Namespace) -> int:
    failed = 0
    for constants in ({}, {"accumulate": "fma"}, {"accumulate": "fma", "weight_layout": "nvfp4"}):
        for lengths in ([options.context], [options.context, 1, 77, 1000]):
            layer = make(options, len(lengths), **constants)
            problem = Problem(layer, lengths, seed=7)
            kernel, why = layer.choose(len(lengths))
            problem.bound(len(lengths))
            torch.cuda.synchronize()
            wanted = _jitc.run_sample(kernel, lengths, 7)
            for name, data in wanted.items():
                own = bytes(problem.tensors[name].cpu().view(torch.uint8).reshape(-1).numpy())
                failed |= verdict(f"{constants} {len(lengths)} tokens: {name}: the bits of Rust ({why})", own == data)
    return failed


def pack(options: argparse.Namespace) -> int:
    layer, failed = make(options, 1), 0
    facts = layer.facts
    for matrix, rows, k in (("gate", facts["intermediate"], facts["hidden"]), ("down", facts["hidden"], facts["intermediate"])):
        codes = torch.randint(0, 256, (rows, k // 2), dtype=torch.uint8)
        scales = torch.randint(0, 120, (rows, k // 16), dtype=torch.uint8)
        on_cpu = layer.pack(matrix, codes, scales, linear=True)
        on_gpu = layer.pack(matrix, codes.cuda(), scales.cuda(), linear=True)
        same = all(torch.equal(a.view(torch.uint8), b.cpu().view(torch.uint8)) for a, b in zip(on_cpu, on_gpu, strict=True))
        failed |= verdict(f"{matrix}: packed alike on the CPU and on the GPU", same)
    return failed


def serve(options: argparse.Namespace) -> int:
    """Start: warm, load, bind, forbid, capture. Then steps, each a replay."""
    begun = time.perf_counter()
    sizes = [int(n) for n in options.batches.split(",")]
    layer = make(options, max(sizes))
    lengths = [options.context + 13 * at for at in range(max(sizes))]
    problems = [Problem(layer, lengths, 0)]
    # Layers run one after another: one workspace serves them all.
    problems += [Problem(layer, lengths, seed, problems[0].bound) for seed in range(1, options.layers)]
    layer._jit.forbid()
    for n in sizes:
        for problem in problems:
            problem.bound(n)
    torch.cuda.synchronize()
    graphs: dict[int, torch.cuda.CUDAGraph] = {}
    for n in sizes:
        graphs[n] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[n]):
            for problem in problems:
                problem.bound(n)
    print(f"ready after {time.perf_counter() - begun:.1f} s: {len(problems)} layers, graphs for {sizes} tokens")
    failed, generator = 0, torch.Generator(device="cuda").manual_seed(1)
    for n in sizes:
        differ = 0
        for _ in range(options.steps):
            for problem in problems:
                query = problem.tensors["query"]
                query.copy_(torch.randn(query.shape, generator=generator, device="cuda"))
            graphs[n].replay()
            replayed = [problem.tensors["mlp_output"][:n].clone() for problem in problems]
            for problem in problems:
                problem.bound(n)
            eager = [problem.tensors["mlp_output"][:n] for problem in problems]
            differ += not all(
                torch.equal(a.view(torch.int16), b.view(torch.int16)) for a, b in zip(replayed, eager, strict=True)
            )
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(50):
            graphs[n].replay()
        torch.cuda.synchronize()
        replay = (time.perf_counter() - start) / 50 / len(problems) * 1e6
        start = time.perf_counter_ns()
        for _ in range(20):
            for problem in problems:
                problem.bound(n)
        host = (time.perf_counter_ns() - start) / 20 / len(problems) / 1e3
        torch.cuda.synchronize()
        print(f"{n} tokens: {replay:.1f} us a layer replayed, {host:.1f} us of host time a call")
        failed |= verdict(f"{n} tokens: {options.steps} steps, {differ} with other bits than eager", differ == 0)
    counters = layer._jit.counters()
    return failed | verdict("nothing was compiled after forbid()", counters["late_compiles"] == 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["bits", "pack", "serve"])
    parser.add_argument("--context", type=int, default=4096, help="positions of a sequence")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batches", default="1,2,4,8")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of decode_layer")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, jitc {sys.modules['jitc'].__file__}")
    return {"bits": bits, "pack": pack, "serve": serve}[options.verb](options)


if __name__ == "__main__":
    sys.exit(main())
