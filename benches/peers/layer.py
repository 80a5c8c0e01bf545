#!/usr/bin/env python3
"""Times the decode layer as separate kernels of others, by the method of `jitc bench layer`, and merges both tables.

The layer: attention of every query head over a cache of its own length, W_O, residual, RMSNorm, gate and up, SiLU, down.
Cold: two copies of weights and cache take turns, each larger than the L2. Ten layers are one CUDA graph; a sample is a
replay's time over ten. Nothing is fetched; a peer that is not installed, or refuses a shape, is a row that says so.

torch has no attention over a paged FP8 cache, so its cache is bf16, contiguous, and holds twice the bytes. FlashInfer's
is paged FP8, as jitc's is; it is held to torch's over the same values before it is timed.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from peers import measure

H, I, HEADS, KV, D = 5120, 17408, 24, 4, 256
COPIES, PER_GRAPH = 2, 10
PAGE = 64


def attention(context, num_tokens):
    """SDPA over bf16, grouped; the fastest of torch's own backends is its choice."""
    q = torch.randn(num_tokens, HEADS, 1, D, device="cuda", dtype=torch.bfloat16)
    caches = [torch.randn(2, num_tokens, KV, context, D, device="cuda", dtype=torch.bfloat16) for _ in range(COPIES)]

    def run(i):
        k, v = caches[i % COPIES]
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True).reshape(num_tokens, HEADS * D)

    return run


def flashinfer_attention(context, num_tokens):
    """Decode over a paged FP8 cache, pages shuffled. Its kernels for decode have no group of six heads to a KV head, so
    tensor cores it is. Compiled by nvcc when first used."""
    import flashinfer

    pages = -(-context // PAGE)
    int32 = dict(device="cuda", dtype=torch.int32)
    indptr = torch.arange(num_tokens + 1, **int32) * pages
    indices = torch.randperm(num_tokens * pages, device="cuda").to(torch.int32)
    last = torch.full((num_tokens,), context - (pages - 1) * PAGE, **int32)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(128 << 20, device="cuda", dtype=torch.uint8), "NHD", use_cuda_graph=True, use_tensor_cores=True,
        paged_kv_indptr_buffer=indptr.clone(), paged_kv_indices_buffer=indices.clone(),
        paged_kv_last_page_len_buffer=last.clone())
    wrapper.plan(indptr, indices, last, HEADS, KV, D, PAGE, q_data_type=torch.bfloat16,
                 kv_data_type=torch.float8_e4m3fn)
    q = torch.randn(num_tokens, HEADS, D, device="cuda", dtype=torch.bfloat16)
    shape = (num_tokens * pages, PAGE, KV, D)
    caches = [tuple(torch.randn(shape, device="cuda").to(torch.float8_e4m3fn) for _ in range(2)) for _ in range(COPIES)]

    def run(i):
        return wrapper.run(q, caches[i % COPIES]).reshape(num_tokens, HEADS * D)

    for i, cache in enumerate(caches):
        flat = (num_tokens, pages * PAGE, KV, D)
        k, v = (c[indices.long()].to(torch.bfloat16).reshape(flat)[:, :context].transpose(1, 2)
                for c in cache)
        expected = F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True)
        expected = expected.reshape(num_tokens, HEADS * D).float()
        error = ((run(i).float() - expected).norm() / expected.norm()).item()
        if not error < 1e-2:
            raise RuntimeError(f"not timed: {error:.2e} from torch's attention over the same cache")
    return run


def bf16_linear(n, k):
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(COPIES)]
    return lambda i, x: F.linear(x, weights[i % COPIES])


def fp8_linear(n, k):
    weights = [torch.randn(n, k, device="cuda").to(torch.float8_e4m3fn).t() for _ in range(COPIES)]
    one = torch.ones((), device="cuda")

    def run(i, x):
        return torch._scaled_mm(x.to(torch.float8_e4m3fn), weights[i % COPIES], one, one, out_dtype=torch.bfloat16,
                                use_fast_accum=True)

    return run


def humming_linear(n, k):
    from humming.layer import HummingLayer

    config = {"dtype": "float4e2m1", "scale_dtype": "float8e4m3", "group_size": 16, "scale_2_type": "tensor"}
    layers = []
    for _ in range(COPIES):
        layer = HummingLayer(shape_n=n, shape_k=k, weight_config=dict(config), torch_dtype=torch.bfloat16).cuda()
        layer.load_from_unquantized(torch.randn(n, k, device="cuda", dtype=torch.bfloat16))
        layer.transform()
        layers.append(layer)
    return lambda i, x: layers[i % COPIES](x)


LINEARS = {"torch bf16": bf16_linear, "torch FP8": fp8_linear, "Humming NVFP4": humming_linear}
ATTENTIONS = {"torch SDPA over bf16": attention, "FlashInfer over paged FP8": flashinfer_attention}


def reason(error):
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def rows(contexts, token_counts, samples):
    made = {}
    for name, make in LINEARS.items():
        try:
            made[name] = (make(H, HEADS * D), make(2 * I, H), make(H, I))
        except Exception as error:
            made[name] = reason(error)
    gamma = torch.ones(H, device="cuda", dtype=torch.bfloat16)
    for context in contexts:
        for num_tokens in token_counts:
            for kind, make in ATTENTIONS.items():
                yield from with_attention(context, num_tokens, kind, make, made, gamma, samples)


def with_attention(context, num_tokens, kind, make, made, gamma, samples):
    """The layer with every kind of linear, and the attention alone."""
    at = {"context": context, "num_tokens": num_tokens}
    try:
        attend = make(context, num_tokens)
    except Exception as error:
        yield {**at, "what": f"{kind} alone", "error": reason(error)}
        return
    residual = torch.randn(num_tokens, H, device="cuda", dtype=torch.bfloat16)

    def timed(what, launch):
        try:
            times = sorted(measure(launch, PER_GRAPH, samples, PER_GRAPH))
            return {**at, "what": what, "median_us": statistics.median(times), "p5_us": times[len(times) // 20],
                    "p95_us": times[-1 - len(times) // 20]}
        except Exception as error:
            return {**at, "what": what, "error": reason(error)}

    for name, linears in made.items():
        if isinstance(linears, str):
            yield {**at, "what": f"{name}, {kind}", "error": linears}
            continue
        wo, gate_up, down = linears

        def launch(i):
            summed = residual + wo(i, attend(i))
            both = gate_up(i, F.rms_norm(summed, (H,), gamma, 1e-6))
            return down(i, F.silu(both[:, :I]) * both[:, I:])

        yield timed(f"{name}, {kind}", launch)
    yield timed(f"{kind} alone", attend)
    del attend
    torch.cuda.empty_cache()


def tokens_of(point):
    """Tokens of a point; summaries of before call them `nat`."""
    return point["num_tokens"] if "num_tokens" in point else point["nat"]


def rows_of_jitc(path):
    floors = set()
    for p in json.loads(path.read_text())["points"]:
        if p.get("summary") is None:
            continue
        s = p["summary"]
        yield {"context": p["context"], "num_tokens": tokens_of(p), "what": f"jitc {p['path']}, {p['variant']}",
               "median_us": s["median"], "p5_us": s["p5"], "p95_us": s["p95"]}
        if (p["context"], tokens_of(p)) not in floors:
            floors.add((p["context"], tokens_of(p)))
            yield {"context": p["context"], "num_tokens": tokens_of(p), "what": "streaming the bytes",
                   "median_us": p["stream_us"], "p5_us": p["stream_us"], "p95_us": p["stream_us"]}


def table(all_rows):
    lines = ["| context | tokens | what | median us | p5 | p95 |", "|---|---|---|---|---|---|"]
    for r in sorted(all_rows, key=lambda r: (r["context"], r["num_tokens"], r.get("median_us", float("inf")))):
        if "error" in r:
            lines.append(f"| {r['context']} | {r['num_tokens']} | {r['what']} | not run: {r['error']} | | |")
        else:
            lines.append(f"| {r['context']} | {r['num_tokens']} | {r['what']} | {r['median_us']:.1f} | {r['p5_us']:.1f} "
                         f"| {r['p95_us']:.1f} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jitc", type=Path, action="append", default=[], help="summary.json of `jitc bench layer --out`")
    parser.add_argument("--context", default="1024,4096,16384,32768")
    parser.add_argument("--num-tokens", "--nat", default="1,2,4,8")
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    numbers = lambda text: [int(n) for n in text.split(",")]
    found = [row for path in args.jitc for row in rows_of_jitc(path)]
    found += rows(numbers(args.context), numbers(args.num_tokens), args.samples)
    args.out.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "device": torch.cuda.get_device_name(0)}
    (args.out / "layer.json").write_text(json.dumps({"versions": versions, "rows": found}, indent=1) + "\n")
    text = table(found)
    (args.out / "layer.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
