#!/usr/bin/env python3
"""How far hidden states drift from float64 over many decode steps and layers, for each way to work out W_O.

Needs no checkpoint: 64 layers of random NVFP4 weights (normal, rows of varying size, quantised as checkpoints are, with a
global scale a matrix), run for 256 steps. Each step's stream starts from an embedding, and every layer's query, key and
value are taken from its normed stream, so an error comes back through the FP8 cache. The reference does the same in float64 with the same weights; the formats that are part of the
model, E4M3 keys and values and the FP4 middle of the MLP, are rounded in both, everything else in the kernels alone.

    quality.py --jitc ./jitc --cache-dir DIR --out OUT

Variants are compiled through `jitc warm` where the cache lacks them, and their cubins loaded from it.
"""

import argparse
import ctypes
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy
import torch

H, I, HEADS, KV, D, PAGE = 5120, 17408, 24, 4, 256, 64
K = HEADS * D
GROUP = HEADS // KV
EPS = 1e-6
DEV = "cuda"
FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
MIDDLES = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]


def codes_of(values):
    """Nearest E2M1 codes; a tie goes to the even code."""
    magnitude = values.abs()
    middles = torch.tensor(MIDDLES, device=DEV, dtype=values.dtype)
    up = torch.bucketize(magnitude, middles, right=True)
    low = torch.bucketize(magnitude, middles, right=False)
    code = torch.where((up != low) & (low % 2 == 0), low, up)
    return (code + 8 * torch.signbit(values)).to(torch.uint8)


def values_of(codes, dtype):
    table = torch.tensor(FP4 + [-v for v in FP4], device=DEV, dtype=dtype)
    return table[codes.long()]


def swizzled(scales):
    m, g = scales.shape
    return scales.reshape(m // 128, 4, 32, g // 4, 4).permute(0, 3, 2, 1, 4).contiguous().reshape(-1)


class Matrix:
    """NVFP4, swizzled scales; and its value without the global scale, which bf16 holds exactly."""

    def __init__(self, rows, k, size, generator):
        w = torch.randn(rows, k, generator=generator, device=DEV) * (size / math.sqrt(k))
        w *= torch.exp(0.3 * torch.randn(rows, 1, generator=generator, device=DEV))
        self.globe = (w.abs().max() / (6.0 * 448.0)).item()
        self.globe = float(numpy.float32(self.globe))
        blocks = w.reshape(rows, k // 16, 16)
        scale = (blocks.abs().amax(-1) / (6.0 * self.globe)).clamp(max=448.0).to(torch.float8_e4m3fn)
        exact = scale.to(torch.float32)
        codes = codes_of(torch.where(exact[..., None] > 0, blocks / (exact[..., None] * self.globe), torch.zeros_like(blocks)))
        self.exact = (values_of(codes, torch.float32) * exact[..., None]).reshape(rows, k).bfloat16()
        codes = codes.reshape(rows, k)
        self.codes = (codes[:, 0::2] | codes[:, 1::2] << 4).contiguous()
        self.scales = swizzled(scale.view(torch.uint8))

    def times(self, x, globe=None):
        """In float64."""
        return (self.exact.double() @ x) * (self.globe if globe is None else globe)


class Layer:
    def __init__(self, number, layers):
        g = torch.Generator(device=DEV)
        g.manual_seed(1000 + number)
        # What goes into the stream is scaled by its depth, as initialisations do it: otherwise random layers are chaos.
        small = 1.0 / math.sqrt(2 * layers)
        self.wo, self.gate, self.up, self.down = (
            Matrix(*s, g) for s in ((H, K, small), (I, H, 1.0), (I, H, 1.0), (H, I, small)))
        self.gamma = (0.1 * torch.randn(H, generator=g, device=DEV)).bfloat16()
        self.wo_global = torch.tensor([self.wo.globe], device=DEV)
        self.pick = torch.randint(0, H, (K + 2 * KV * D,), generator=g, device=DEV)
        self.sign = torch.randint(0, 2, (K + 2 * KV * D,), generator=g, device=DEV) * 2.0 - 1.0


def to_e4m3(x):
    return x.float().clamp(-448, 448).to(torch.float8_e4m3fn)


class Reference:
    """Float64, apart from the formats that the model has."""

    name = "float64"

    def __init__(self, layers, prompt, most):
        self.kv = [torch.zeros(2, most, KV, D, dtype=torch.float64, device=DEV) for _ in layers]
        for cache, first in zip(self.kv, prompt):
            cache[:, : first.shape[1]] = first.double()

    def layer(self, n, layer, x, length):
        normed = x * torch.rsqrt(x.square().mean() + EPS)
        taken = normed[layer.pick] * layer.sign.double()
        q = taken[:K].reshape(KV, GROUP, D)
        cache = self.kv[n]
        cache[:, length - 1] = to_e4m3(taken[K:]).double().reshape(2, KV, D)
        k, v = cache[0, :length], cache[1, :length]
        weights = torch.softmax(torch.einsum("hgd,lhd->hgl", q, k) / math.sqrt(D), -1)
        rows = torch.einsum("hgl,lhd->hgd", weights, v).reshape(K)
        summed = x + layer.wo.times(rows)
        self.summed = summed
        y = summed * torch.rsqrt(summed.square().mean() + EPS) * (1.0 + layer.gamma.double())
        # The kernel takes one global scale for gate and up.
        gate, up = layer.gate.times(y), layer.up.times(y, layer.gate.globe)
        middle = (gate * torch.sigmoid(gate) * up).reshape(-1, 16)
        scale = to_e4m3(middle.abs().amax(-1) / 6.0).double()[:, None]
        middle = torch.where(scale > 0, values_of(codes_of(middle / scale), torch.float64) * scale, 0.0)
        return summed + layer.down.times(middle.reshape(I))


class Driver:
    def __init__(self):
        self.lib = ctypes.CDLL("libcuda.so.1")

    def check(self, code, what):
        if code != 0:
            raise RuntimeError(f"{what}: the CUDA driver said {code}")


class Kernel:
    """The layer of one variant over buffers of its own."""

    def __init__(self, driver, jitc, cache, accumulate, split, layers, prompt, most):
        self.name = f"{accumulate}, split {split}"
        command = [jitc, "warm", "decode_layer", "--wo-split", str(split), "--accumulate", accumulate, "--arch", "sm_90a",
                   "--cache-dir", cache, "--json"]
        key = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0])["key"]
        shown = json.loads(subprocess.run([jitc, "cache", "show", key, "--json", "--cache-dir", cache], check=True,
                                          capture_output=True, text=True).stdout)
        self.driver = driver
        self.slots = KV * split
        self.function, module = ctypes.c_void_p(), ctypes.c_void_p()
        show = [jitc, "cache", "show", key, "--cache-dir", cache]
        image = subprocess.run([*show, "--cubin", "-"], check=True, capture_output=True).stdout
        driver.check(driver.lib.cuModuleLoadData(ctypes.byref(module), image), "cuModuleLoadData")
        driver.check(driver.lib.cuModuleGetFunction(ctypes.byref(self.function), module, b"decode_layer"), "cuModuleGetFunction")
        self.ctas = shown["manifest"]["constants"]["num_ctas"]
        source = subprocess.run([*show, "--source"], check=True, capture_output=True, text=True).stdout
        self.shared = int(re.search(r"shared_bytes = (\d+)", source).group(1))
        driver.check(driver.lib.cuFuncSetAttribute(self.function, 8, self.shared), "cuFuncSetAttribute")
        pages = most // PAGE
        self.kv = []
        for first in prompt:
            cache = torch.zeros(2, most, KV, D, device=DEV, dtype=torch.float8_e4m3fn)
            cache[:, : first.shape[1]] = first
            # [pages, 2, page, heads, D]
            self.kv.append(cache.reshape(2, pages, PAGE, KV, D).transpose(0, 1).contiguous())
        empty = lambda *s, t=torch.bfloat16: torch.zeros(*s, device=DEV, dtype=t)
        self.table = torch.arange(pages, device=DEV, dtype=torch.int32)
        self.length = empty(1, t=torch.int32)
        self.query, self.residual = empty(K), empty(H)
        self.attn, self.out, self.mlp = empty(H), empty(H), empty(H)
        self.scratch = [empty(self.slots * H, t=torch.float32), empty(K), empty((self.ctas + KV) * (8 * D + 16), t=torch.float32),
                        empty(H, t=torch.float32), empty(I // 2, t=torch.uint8), empty(I // 16, t=torch.uint8),
                        empty(4 * 32 + 64, t=torch.int32)]

    def layer(self, n, layer, x, length):
        f = x.float()
        normed = f * torch.rsqrt(f.square().mean() + EPS)
        taken = normed[layer.pick] * layer.sign
        self.query.copy_(taken[:K])
        at = length - 1
        self.kv[n][at // PAGE, :, at % PAGE] = to_e4m3(taken[K:]).reshape(2, KV, D)
        self.length.fill_(length)
        self.residual.copy_(x)
        p = lambda t: t.data_ptr()
        wo, rows, partials, summed, codes, scales, counters = self.scratch
        bits = lambda v: int(numpy.float32(v).view(numpy.uint32))
        values = [p(self.query), p(self.kv[n]), p(self.table), p(self.length), 0, p(layer.wo.codes), p(layer.wo.scales),
                  p(layer.wo_global), 0, p(self.residual), 0, p(layer.gamma), p(layer.gate.codes), p(layer.gate.scales),
                  p(layer.up.codes), p(layer.up.scales), p(layer.down.codes), p(layer.down.scales), 0, p(self.attn),
                  p(self.out), p(self.mlp), p(wo), p(rows), p(partials), p(summed), 0, p(codes), p(scales), 0, p(counters),
                  0, 2 * PAGE * KV * D, PAGE * KV * D, bits(1 / math.sqrt(D)), bits(1.0), bits(1.0), bits(EPS),
                  bits(layer.gate.globe), bits(layer.down.globe), self.table.numel(), 1]
        block = (ctypes.c_uint64 * 42)(*values)
        pointers = (ctypes.c_void_p * 1)(ctypes.cast(block, ctypes.c_void_p))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.driver.check(self.driver.lib.cuLaunchCooperativeKernel(self.function, self.ctas, 1, 1, 512, 1, 1, self.shared,
                                                                    stream, pointers), "cuLaunchCooperativeKernel")
        return self.out + self.mlp


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jitc", required=True)
    parser.add_argument("--cache-dir", required=True)
    parser.add_argument("--layers", type=int, default=64)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--context", type=int, default=256, help="positions before the first step")
    parser.add_argument("--variants", default="fma:1,fma:2,fma:4,fma:8,mul_add:8,mma:1,mma:8")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.zeros(1, device=DEV)
    started = time.time()
    layers = [Layer(n, args.layers) for n in range(args.layers)]
    g = torch.Generator(device=DEV)
    g.manual_seed(1)
    prompt = [to_e4m3(torch.randn(2, args.context, KV, D, generator=g, device=DEV)) for _ in layers]
    most = -(-(args.context + args.steps) // PAGE) * PAGE
    embedding = torch.randn(args.steps, H, generator=g, device=DEV).bfloat16()
    driver = Driver()
    kernels = []
    for variant in args.variants.split(","):
        accumulate, split = variant.split(":")
        kernels.append(Kernel(driver, args.jitc, args.cache_dir, accumulate, int(split), layers, prompt, most))
    reference = Reference(layers, prompt, most)
    print(f"{args.layers} layers made in {time.time() - started:.0f} s", flush=True)

    started = time.time()
    everybody = [reference, *kernels]
    drift = torch.zeros(args.steps, args.layers, len(kernels), dtype=torch.float64, device=DEV)
    apart = torch.zeros(args.steps, len(kernels), len(kernels), dtype=torch.float64, device=DEV)
    with torch.inference_mode():
        for step in range(args.steps):
            x = {}
            for who in everybody:
                first = embedding[step].double() if who is reference else embedding[step]
                x[who.name] = first
            for n, layer in enumerate(layers):
                for who in everybody:
                    x[who.name] = who.layer(n, layer, x[who.name], args.context + step + 1)
                if step == 0 and n == 0:
                    size = reference.summed.norm()
                    before = [((w.out.double() - reference.summed).norm() / size).item() for w in kernels]
                right = x[reference.name]
                for i, who in enumerate(kernels):
                    drift[step, n, i] = (x[who.name].double() - right).norm() / right.norm()
            for i, a in enumerate(kernels):
                for j, b in enumerate(kernels):
                    if i < j:
                        apart[step, i, j] = (x[a.name].double() - x[b.name].double()).norm() / right.norm()
            last = x
    torch.cuda.synchronize()
    print(f"{args.steps} steps in {time.time() - started:.0f} s", flush=True)
    report(args, kernels, before, drift.cpu(), apart.cpu(), [last[w.name].double().square().mean().sqrt().item() for w in everybody])


def report(args, kernels, before, drift, apart, sizes):
    names = [k.name for k in kernels]
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "drift.csv", "w") as out:
        out.write("step,layer," + ",".join(f'"{n}"' for n in names) + "\n")
        for step in range(args.steps):
            for n in range(args.layers):
                out.write(f"{step},{n}," + ",".join(f"{v:.6e}" for v in drift[step, n].tolist()) + "\n")
    with open(args.out / "apart.csv", "w") as out:
        out.write("step,a,b,relative_l2\n")
        for step in range(args.steps):
            for i in range(len(names)):
                for j in range(i + 1, len(names)):
                    out.write(f'{step},"{names[i]}","{names[j]}",{apart[step, i, j]:.6e}\n')
    last = drift[:, -1]
    lines = ["relative L2 distance of the hidden state from float64",
             f"{args.layers} layers, {args.steps} steps, {args.context} positions before; rms of the last state: "
             + ", ".join(f"{s:.2f}" for s in sizes), "",
             f"{'variant':16} {'before MLP':>12} {'first layer':>12} {'first step':>12} {'median':>12} {'p99':>12} {'max':>12} {'last step':>12}"]
    for i, name in enumerate(names):
        v = last[:, i]
        lines.append(f"{name:16} {before[i]:12.3e} {drift[:, 0, i].median():12.3e} {v[0]:12.3e} {v.median():12.3e} {v.quantile(0.99):12.3e} "
                     f"{v.max():12.3e} {v[-1]:12.3e}")
    lines += ["", "median distance from each other, over steps"]
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            lines.append(f"{names[i]:16} {names[j]:16} {apart[:, i, j].median():12.3e}")
    text = "\n".join(lines) + "\n"
    (args.out / "report.txt").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
