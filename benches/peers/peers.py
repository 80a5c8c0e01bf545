#!/usr/bin/env python3
"""Times what else there is on the shapes of `jitc bench`, by the same method, and merges both into one table.

Cold: weights take turns, at least 200 MB of them, so that none lies in L2. A graph holds one launch for every set (at
least 24); a sample is a replay's time over its launches; the table gives the median of the samples.

A peer that is not installed, or refuses a shape, is a row that says so. Nothing is fetched.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

SHAPES = {"wo": (5120, 6144), "gate_up": (34816, 5120), "down": (5120, 17408)}
COLD_BYTES = 200 << 20
PER_GRAPH = 24


def measure(launch, sets, samples, per_graph=PER_GRAPH):
    """Samples in microseconds a launch; launch(i) uses set i % sets."""
    launches = max(per_graph, sets)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(3):
            launch(i)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(launches):
                launch(i)
        for _ in range(3):
            graph.replay()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(samples)]
        for start, end in events:
            start.record(stream)
            graph.replay()
            end.record(stream)
        stream.synchronize()
    return [start.elapsed_time(end) * 1e3 / launches for start, end in events]


def count(bytes_of_a_set):
    return max(2, -(-COLD_BYTES // bytes_of_a_set))


def bf16(n, k, m):
    sets = count(2 * n * k)
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(sets)]
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    return (lambda i: torch.nn.functional.linear(x, weights[i % sets])), sets, 2 * n * k


def fp8(n, k, m):
    sets = count(n * k)
    weights = [torch.randn(n, k, device="cuda").to(torch.float8_e4m3fn).t() for _ in range(sets)]
    x = torch.randn(m, k, device="cuda").to(torch.float8_e4m3fn)
    one = torch.ones((), device="cuda")

    def launch(i):
        return torch._scaled_mm(x, weights[i % sets], one, one, out_dtype=torch.bfloat16, use_fast_accum=True)

    return launch, sets, n * k


def humming(n, k, m):
    from humming.layer import HummingLayer

    size = n * k * 9 // 16
    sets = count(size)
    config = {"dtype": "float4e2m1", "scale_dtype": "float8e4m3", "group_size": 16, "scale_2_type": "tensor"}
    layers = []
    for _ in range(sets):
        layer = HummingLayer(shape_n=n, shape_k=k, weight_config=dict(config), torch_dtype=torch.bfloat16).cuda()
        layer.load_from_unquantized(torch.randn(n, k, device="cuda", dtype=torch.bfloat16))
        layer.transform()
        layers.append(layer)
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    return (lambda i: layers[i % sets](x)), sets, size


def triton_gemv(n, k, m):
    import triton
    import triton.language as tl

    global tl_kernel
    if "tl_kernel" not in globals():
        globals()["tl"] = tl

        @triton.jit
        def tl_kernel(x, w, s, gs, out, n, k: tl.constexpr, rows: tl.constexpr, step: tl.constexpr):
            row = tl.program_id(0) * rows + tl.arange(0, rows)
            token = tl.program_id(1)
            acc = tl.zeros((rows,), tl.float32)
            for at in range(0, k // 2, step):
                b = at + tl.arange(0, step)
                inside = b[None, :] < k // 2
                byte = tl.load(w + row[:, None].to(tl.int64) * (k // 2) + b[None, :], mask=inside, other=0).to(tl.int32)
                scale = tl.load(s + row[:, None] * (k // 16) + b[None, :] // 8, mask=inside, other=0.0).to(tl.float32)
                lo = (((byte & 8) << 28) | ((byte & 7) << 22)).to(tl.float32, bitcast=True) * 8.507059173023462e37
                hi = (((byte & 128) << 24) | (((byte >> 4) & 7) << 22)).to(tl.float32, bitcast=True) * 8.507059173023462e37
                even = tl.load(x + token * k + 2 * b, mask=b < k // 2, other=0.0).to(tl.float32)
                odd = tl.load(x + token * k + 2 * b + 1, mask=b < k // 2, other=0.0).to(tl.float32)
                acc += tl.sum((lo * even[None, :] + hi * odd[None, :]) * scale, axis=1)
            tl.store(out + token * n + row, acc * tl.load(gs))

        globals()["tl_kernel"] = tl_kernel
    size = n * k * 9 // 16
    sets = count(size)
    weights = [torch.randint(0, 256, (n, k // 2), device="cuda", dtype=torch.uint8) for _ in range(sets)]
    scales = [torch.rand(n, k // 16, device="cuda").to(torch.float8_e4m3fn) for _ in range(sets)]
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    gs = torch.full((1,), 0.0123, device="cuda")
    out = torch.empty(m, n, device="cuda")
    best = None
    # A few layouts, the fastest counts.
    for rows, step, warps in ((4, 512, 4), (8, 256, 4), (8, 512, 4), (16, 256, 4), (16, 256, 8), (4, 1024, 8)):

        def launch(i, rows=rows, step=step, warps=warps):
            j = i % sets
            tl_kernel[(n // rows, m)](x, weights[j], scales[j], gs, out, n, k, rows, step, num_warps=warps)

        launch(0)
        if best is None:
            table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], device="cuda")
            codes = torch.stack((weights[0] & 15, weights[0] >> 4), -1).reshape(n, k).long()
            dense = table[codes].double() * scales[0].double().repeat_interleave(16, 1) * 0.0123
            error = (out.double() - x.double() @ dense.t()).norm() / (x.double() @ dense.t()).norm()
            assert error < 1e-5, f"the Triton kernel is off by {error}"
        time = statistics.median(measure(launch, sets, 5))
        if best is None or time < best[0]:
            best = (time, launch)
    return best[1], sets, size


PEERS = {
    "torch bf16 linear": bf16,
    "torch FP8 scaled_mm": fp8,
    "Humming NVFP4": humming,
    "Triton dequantising GEMV": triton_gemv,
}


def rows_of_peers(shapes, tokens, samples):
    for shape in shapes:
        n, k = SHAPES[shape]
        for m in tokens:
            for name, make in PEERS.items():
                row = {"shape": shape, "tokens": m, "what": name}
                try:
                    launch, sets, size = make(n, k, m)
                    times = sorted(measure(launch, sets, samples))
                    row.update(median_us=statistics.median(times), p5_us=times[len(times) // 20],
                               p95_us=times[-1 - len(times) // 20], weight_bytes=size)
                except Exception as error:
                    row["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
                torch.cuda.empty_cache()
                yield row


def rows_of_jitc(path):
    for variant in json.loads(path.read_text())["variants"]:
        if variant.get("summary") is None:
            continue
        name = f"jitc {variant['accumulate']}, split {variant['wo_split']}, scale {variant['global_scale']:g}"
        if variant["geometry"] != "tiled":
            continue
        yield {"shape": "wo", "tokens": variant["tokens"], "what": name, "median_us": variant["summary"]["median"],
               "p5_us": variant["summary"]["p5"], "p95_us": variant["summary"]["p95"],
               "over_stream": variant["over_stream"]}


def table(rows):
    lines = ["| shape | tokens | what | median us | p5 | p95 |", "|---|---|---|---|---|---|"]
    key = lambda r: (list(SHAPES).index(r["shape"]), r["tokens"], r.get("median_us", float("inf")))
    for r in sorted(rows, key=key):
        if "error" in r:
            lines.append(f"| {r['shape']} | {r['tokens']} | {r['what']} | not run: {r['error']} | | |")
        else:
            lines.append(f"| {r['shape']} | {r['tokens']} | {r['what']} | {r['median_us']:.2f} | {r['p5_us']:.2f} "
                         f"| {r['p95_us']:.2f} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jitc", type=Path, action="append", default=[], help="summary.json of `jitc bench --out`")
    parser.add_argument("--shapes", default="wo", help="of wo, gate_up, down")
    parser.add_argument("--tokens", default="1,4")
    parser.add_argument("--samples", type=int, default=25)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [row for path in args.jitc for row in rows_of_jitc(path)]
    rows += rows_of_peers(args.shapes.split(","), [int(t) for t in args.tokens.split(",")], args.samples)
    args.out.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "device": torch.cuda.get_device_name(0)}
    for name in ("humming-kernels", "triton"):
        try:
            from importlib.metadata import version

            versions[name] = version(name)
        except Exception:
            versions[name] = None
    (args.out / "peers.json").write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")
    text = table(rows)
    (args.out / "peers.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
