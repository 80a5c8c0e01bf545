"""Times the family pack: reading and writing a matrix once, events around one launch, medians of 50."""
import cupy as cp, glob, json, statistics, sys

for path in glob.glob(sys.argv[1] + "/v1/*/*/manifest.json"):
    text = open(path).read()
    d = json.loads(text)
    c = d.get("constants") or d.get("spec", {}).get("constants") or {}
    def val(k):
        v = c.get(k)
        return v.get("value") if isinstance(v, dict) else v
    rows, k, lay = int(val("rows")), int(val("k")), val("weight_layout")
    kernel = cp.RawModule(path=path.replace("manifest.json", "kernel.cubin")).get_function("pack")
    row_words = -(-k // 8)
    grid = 4096 if rows * row_words > 1048576 else -(-rows * row_words // 256)
    codes, scales = rows * k // 2, rows * k // 16
    sets = max(2, 300_000_000 // (codes + scales))
    bufs = [[cp.random.randint(0, 256, n, dtype=cp.uint8) for n in (codes, scales)] + [cp.empty(n, cp.uint8) for n in (codes, scales)] for _ in range(sets)]
    times = []
    for i in range(60):
        b = bufs[i % sets]
        a, e = cp.cuda.Event(), cp.cuda.Event()
        a.record(); kernel((grid,), (256,), tuple(b)); e.record(); e.synchronize()
        times.append(cp.cuda.get_elapsed_time(a, e) * 1e3)
    t = statistics.median(times[10:])
    print(f"pack {rows} x {k} {lay}: {t:.1f} us, {2 * (codes + scales) / t / 1e3:.0f} GB/s read and written")
