"""From a request to a function that can be launched: jitc, CuPy's RawModule, Triton.

    python3 benches/peers/launchable.py LAUNCHABLE SOURCES OUT.jsonl [ROUNDS]

LAUNCHABLE is the built example of that name. SOURCES is a folder made by

    jitc cache show KEY --source > SOURCES/FAMILY.cu
    jitc cache show KEY --headers --json > SOURCES/FAMILY.json

for each family that is measured: CuPy compiles the very source, headers and options
that jitc compiles. Triton has a kernel of its own, a GEMV over FP4 weights. Each
round starts fresh processes: one with empty folders (cold), one after it with what
the first left (disk). The CUDA context exists before the clock starts, libraries are
imported before it, and the driver's and NVRTC's own caches are off.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def cupy_child(sources, family, entry, include):
    import cupy

    cupy.zeros(1)
    cupy.cuda.Device().synchronize()
    code = open(f"{sources}/{family}.cu").read()
    meta = json.load(open(f"{sources}/{family}.json"))
    # The same folder in each process of a round: CuPy's key holds the option -I.
    for name, text in meta["headers"].items():
        path = os.path.join(include, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").write(text)
    options = ("--std=c++17", "--fmad=false", "--no-cache", f"-I{include}")

    def ask():
        module = cupy.RawModule(code=code, options=options, backend="nvrtc")
        return module.get_function(entry).kernel.ptr

    start = time.perf_counter()
    ask()
    first = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(1000):
        ask()
    repeat = (time.perf_counter() - start) / 1000
    print(json.dumps({"first_us": first * 1e6, "repeat_ns": repeat * 1e9}))


def triton_child():
    import torch
    import triton
    import triton.language as tl

    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()

    @triton.jit
    def gemv(weight, scales, x, out, K: tl.constexpr, ROWS: tl.constexpr):
        rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        total = tl.zeros((ROWS,), tl.float32)
        for k in range(0, K // 2, 256):
            at = k + tl.arange(0, 256)
            packed = tl.load(weight + rows[:, None] * (K // 2) + at[None, :]).to(tl.int32)
            scale = tl.load(scales + rows[:, None] * (K // 16) + (at // 8)[None, :]).to(tl.float32)
            for half in tl.static_range(2):
                nibble = (packed >> (4 * half)) & 15
                exponent = (nibble >> 1) & 3
                mantissa = (nibble & 1).to(tl.float32)
                normal = tl.exp2((exponent - 1).to(tl.float32)) * (1.0 + 0.5 * mantissa)
                value = tl.where(exponent > 0, normal, 0.5 * mantissa)
                value = tl.where(nibble > 7, -value, value)
                total += tl.sum(value * scale * tl.load(x + 2 * at + half)[None, :].to(tl.float32), 1)
        tl.store(out + rows, total)

    k, rows = 6144, 16
    arguments = (
        torch.zeros(rows * k // 2, dtype=torch.uint8, device="cuda"),
        torch.zeros(rows * k // 16, dtype=torch.float8_e4m3fn, device="cuda"),
        torch.zeros(k, dtype=torch.bfloat16, device="cuda"),
        torch.zeros(rows, dtype=torch.float32, device="cuda"),
    )

    def ask():
        # Compiles, loads, and launches nothing.
        return gemv.warmup(*arguments, K=k, ROWS=rows, grid=(1,))

    start = time.perf_counter()
    compiled = ask()
    compiled._init_handles()
    first = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(1000):
        ask()
    repeat = (time.perf_counter() - start) / 1000
    # Triton's usual way: a launch looks its kernel up.
    gemv[(1,)](*arguments, K=k, ROWS=rows)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(1000):
        gemv[(1,)](*arguments, K=k, ROWS=rows)
    launch = (time.perf_counter() - start) / 1000
    torch.cuda.synchronize()
    print(json.dumps({"first_us": first * 1e6, "repeat_ns": repeat * 1e9, "launch_ns": launch * 1e9}))


def main():
    launchable, sources, out = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    rows = []
    env = dict(os.environ, CUDA_CACHE_DISABLE="1", CUPY_CACHE_IN_MEMORY="0")
    with open(out, "w") as log:

        def run(peer, what, words, folder):
            own = dict(env, CUPY_CACHE_DIR=f"{folder}/cupy", TRITON_CACHE_DIR=f"{folder}/triton")
            start = time.perf_counter()
            done = subprocess.run(words, capture_output=True, text=True, env=own)
            if done.returncode != 0:
                print(peer, what, "failed:", done.stderr[-2000:], flush=True)
                return
            line = json.loads(done.stdout.strip().splitlines()[-1])
            line.update(peer=peer, what=what, process_s=time.perf_counter() - start)
            rows.append(line)
            log.write(json.dumps(line) + "\n")
            log.flush()

        families = [("wo_gemv", "wo_gemv", ["wo_split=8"]), ("stream", "stream", [])]
        this = [sys.executable, os.path.abspath(__file__)]
        begun = time.perf_counter()
        done_rounds = 0
        for _ in range(rounds):
            # A round takes about 20 s; a call of a minute is enough for medians.
            if time.perf_counter() - begun > 50:
                break
            done_rounds += 1
            folder = tempfile.mkdtemp(dir="/tmp")
            for family, entry, constants in families:
                for what in ["cold", "disk"]:
                    run(f"jitc {family}", what, [launchable, family, f"{folder}/jitc", *constants], folder)
                # The floor: the driver alone takes the same machine code.
                words = [launchable, family, f"{folder}/jitc", *constants, "--driver"]
                run(f"driver {family}", "disk", words, folder)
                for what in ["cold", "disk"]:
                    headers = f"{folder}/headers-{family}"
                    run(f"cupy {family}", what, [*this, "--cupy", sources, family, entry, headers], folder)
            for what in ["cold", "disk"]:
                run("triton gemv", what, [*this, "--triton"], folder)
            shutil.rmtree(folder)

    print(f"{'peer':<14} {'cold ms':>22} {'disk ms':>22} {'repeated us':>12}   median (least, most) of {done_rounds}")
    for peer in dict.fromkeys(row["peer"] for row in rows):
        cells = []
        for what in ["cold", "disk"]:
            ms = sorted(
                row.get("first_us", row.get("driver_us")) / 1e3
                for row in rows
                if (row["peer"], row["what"]) == (peer, what)
            )
            cells.append(f"{statistics.median(ms):.3f} ({ms[0]:.3f}, {ms[-1]:.3f})" if ms else "none")
        again = [row["repeat_ns"] / 1e3 for row in rows if row["peer"] == peer and "repeat_ns" in row]
        repeat = f"{statistics.median(again):.3f}" if again else "-"
        print(f"{peer:<14} {cells[0]:>22} {cells[1]:>22} {repeat:>12}")
    for key, what in [("new_us", "jitc: families read, once a process, us"), ("compile_us", "jitc: of that NVRTC, us")]:
        values = [row[key] for row in rows if key in row and row["what"] == "cold"]
        if values:
            print(f"{what}: {statistics.median(values):.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cupy"]:
        cupy_child(*sys.argv[2:])
    elif sys.argv[1:2] == ["--triton"]:
        triton_child()
    else:
        main()
