#!/usr/bin/env python3
"""Host time of a call from Python, and what must hold on a GPU: run on a GPU machine.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install torch jitc-*.whl cupy-cuda13x apache-tvm-ffi cuda-bindings
    /tmp/v/bin/python benches/peers/python_call.py time --out times.json
    /tmp/v/bin/python benches/peers/python_call.py replays --count 1000
    /tmp/v/bin/python benches/peers/python_call.py drops --count 10000
    /tmp/v/bin/python benches/peers/python_call.py gpus
    /tmp/v/bin/python benches/peers/python_call.py fork
    /tmp/v/bin/python benches/peers/python_call.py source
    /tmp/v/bin/python benches/peers/python_call.py ops

`time` takes turns: in each round every path makes a batch of calls with the queue of the
GPU empty at its start, and the least and the median of all rounds are told. Peers that
are not installed are told as such. Each other verb ends with exit code 1 where what it
says does not hold.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import jitc

Call = Callable[[], Any]
HEADER = 'summary = "writes nothing"\n[constants.salt]\ntype = "u32"\nrange = [0, 1000000]\ndefault = 0\nhelp = "h"\n'


def family(tensors: int, body: str = "") -> dict[str, str]:
    """A family whose kernel takes so many f32 tensors of `n` elements, and `n`."""
    toml = HEADER + '[[entries]]\nname = "nop"\nsizes = ["n"]\ngrid = [{ size = "n", per = 256 }, 1, 1]\nblock = 256\n'
    names = [f"t{at}" for at in range(tensors)]
    for name in names:
        toml += f'[[entries.parameters]]\nname = "{name}"\ntype = "f32"\nshape = ["n"]\naccess = "inout"\n'
    toml += '[[entries.parameters]]\nname = "n"\ntype = "u32"\nvalue = "n"\n'
    takes = ", ".join(f"float* {name}" for name in names)
    return {"nop.toml": toml, "nop.cu.tera": f'// {{{{ salt }}}}\nextern "C" __global__ void nop({takes}, unsigned n) {{ {body} }}'}


ADD = "unsigned i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) t1[i] = t1[i] * 0.5f + t0[i] * 3.0f;"


def driver_call(kernel_image: bytes, tensors: list[torch.Tensor], n: int) -> Call:
    """The driver's own launch, by a compiled loop-free call: arguments are packed once."""
    cuda = ctypes.CDLL("libcuda.so.1")
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    assert cuda.cuModuleLoadData(ctypes.byref(module), kernel_image) == 0
    assert cuda.cuModuleGetFunction(ctypes.byref(function), module, b"nop") == 0
    words = [ctypes.c_uint64(t.data_ptr()) for t in tensors] + [ctypes.c_uint32(n)]
    pointers = (ctypes.c_void_p * len(words))(*[ctypes.addressof(w) for w in words])
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    launch, grid = cuda.cuLaunchKernel, (n + 255) // 256
    launch.argtypes = [ctypes.c_void_p] + [ctypes.c_uint] * 7 + [ctypes.c_void_p] * 3
    args = (function, grid, 1, 1, 256, 1, 1, 0, stream, ctypes.cast(pointers, ctypes.c_void_p), None)

    def call(_keep: Any = (words, pointers, module)) -> None:
        launch(*args)

    return call


def peers(count: int, tensors: list[torch.Tensor], n: int) -> dict[str, Call | str]:
    found: dict[str, Call | str] = {}
    names = [f"t{at}" for at in range(count)]
    source = family(count)["nop.cu.tera"].replace("{{ salt }}", "0")
    try:
        import cupy

        raw = cupy.RawKernel(source, "nop")
        grid = ((n + 255) // 256,)

        def by_cupy() -> None:
            stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
            with stream:
                raw(grid, (256,), (*(t.data_ptr() for t in tensors), n))

        found["cupy RawKernel, data_ptr()"] = by_cupy
    except Exception as error:  # noqa: BLE001 - told in the results
        found["cupy RawKernel, data_ptr()"] = f"not measured: {error}"
    try:
        import importlib.util
        import tempfile

        import triton  # noqa: F401

        text = "import triton, triton.language as tl\n@triton.jit\ndef nop(" + ", ".join(names) + ", n):\n    pass\n"
        with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
            file.write(text)
        spec = importlib.util.spec_from_file_location("triton_nop", file.name)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        kernel = module.nop
        found["triton"] = lambda: kernel[((n + 255) // 256,)](*tensors, n)
    except Exception as error:  # noqa: BLE001
        found["triton"] = f"not measured: {error}"
    try:
        import tvm_ffi

        nop = tvm_ffi.get_global_func("testing.nop")
        found["tvm-ffi no-op (no launch)"] = lambda: nop(*tensors, n)
    except Exception as error:  # noqa: BLE001
        found["tvm-ffi no-op (no launch)"] = f"not measured: {error}"
    return found


def one_time(call: Call, batch: int) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter_ns()
    for _ in range(batch):
        call()
    return (time.perf_counter_ns() - start) / batch / 1e3


def times(options: argparse.Namespace) -> int:
    from jitc import _jitc

    if not _jitc.OPTIMIZED:
        print("not measured: this wheel is of the dev profile, and ten times slower: maturin build --release")
        return 1
    results: list[dict[str, Any]] = []
    n = 256
    for count in (1, 8, 22):
        engine = jitc.Jit(files=family(count))
        kernel = engine.load("nop")
        tensors = [torch.zeros(n, device="cuda") for _ in range(count)]
        bound = kernel.bind(*tensors, n)
        stream = torch.cuda.current_stream().cuda_stream
        paths: dict[str, Call | str] = {
            "empty loop": lambda: None,
            "driver, ctypes": driver_call(engine.cubin("nop", arch=kernel.arch), tensors, n),
            "jitc call": lambda: kernel(*tensors, n),
            "jitc call, stream given": lambda: kernel(*tensors, n, stream=stream),
            "jitc bound": bound,
            "jitc bound, stream given": lambda: bound(stream=stream),
            "torch current stream, raw": lambda: torch._C._cuda_getCurrentRawStream(0),
            "data_ptr() of each": lambda: [t.data_ptr() for t in tensors],
            **peers(count, tensors, n),
        }
        taken: dict[str, list[float]] = {}
        for path, call in list(paths.items()):
            if isinstance(call, str):
                continue
            try:
                one_time(call, 50)
                taken[path] = []
            except Exception as error:  # noqa: BLE001
                paths[path] = f"not measured: {error}"
        for _ in range(options.rounds):
            for path in taken:
                call = paths[path]
                assert callable(call)
                taken[path].append(one_time(call, options.batch))
        for path, call in paths.items():
            row: dict[str, Any] = {"tensors": count, "path": path}
            if path in taken:
                row |= {"min_us": round(min(taken[path]), 3), "median_us": round(statistics.median(taken[path]), 3)}
                print(f"{count:3} tensors  {path:32} min {row['min_us']:8.3f} us  median {row['median_us']:8.3f} us")
            else:
                row["note"] = str(call)
                print(f"{count:3} tensors  {path:32} {call}")
            results.append(row)
    machine = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "exchange_api": hasattr(torch.Tensor, "__dlpack_c_exchange_api__"),
        "rounds": options.rounds,
        "batch": options.batch,
    }
    print(json.dumps(machine))
    if options.out:
        with open(options.out, "w") as file:
            json.dump({"machine": machine, "rows": results}, file, indent=1)
    return 0


def verdict(what: str, holds: bool) -> int:
    print(f"{'ok' if holds else 'FAILED'}: {what}")
    return 0 if holds else 1


def replays(options: argparse.Namespace) -> int:
    """Graph replays with changing inputs give the bits of eager calls."""
    n = 100_003
    kernel = jitc.Jit(files=family(2, ADD)).load("nop")
    x, y = torch.zeros(n, device="cuda"), torch.zeros(n, device="cuda")
    kernel(x, y, n)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    captured = 0
    with torch.cuda.graph(graph):
        kernel(x, y, n)
        try:
            jitc.Jit(files=family(2, ADD), cache_dir="/tmp/jitc-capture").load("nop", salt=1)
        except jitc.CaptureError as error:
            captured = 1
            print(f"loading while capturing: {error}")
    eager, y0 = torch.zeros(n, device="cuda"), torch.randn(n, device="cuda")
    y.copy_(y0)
    eager.copy_(y0)
    differ = 0
    for _ in range(options.count):
        given = torch.randn(n, device="cuda")
        x.copy_(given)
        graph.replay()
        kernel(given, eager, n)
        differ += not torch.equal(y.view(torch.int32), eager.view(torch.int32))
    return verdict(f"{options.count} replays, {differ} with other bits", differ == 0) | verdict(
        "loading while capturing raises CaptureError", captured == 1
    )


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def drops(options: argparse.Namespace) -> int:
    """Loading and dropping leaks neither memory of host or GPU nor handles."""
    import gc

    first = jitc.Jit(files=family(2, ADD))
    arch = first.load("nop").arch
    bundle_dir = first.cache_dir

    def once() -> None:
        jitc.Jit(files=family(2, ADD), cache_dir=bundle_dir, miss="forbid", arch=arch).load("nop")

    for _ in range(options.count // 10):
        once()
    gc.collect()
    torch.cuda.synchronize()
    before = (resident(), torch.cuda.mem_get_info()[0], handles(), len(os.listdir("/proc/self/task")))
    for _ in range(options.count):
        once()
    gc.collect()
    torch.cuda.synchronize()
    after = (resident(), torch.cuda.mem_get_info()[0], handles(), len(os.listdir("/proc/self/task")))
    grown, taken = after[0] - before[0], before[1] - after[1]
    print(f"host {grown} bytes, GPU {taken} bytes, handles {before[2]} to {after[2]}, threads {before[3]} to {after[3]}")
    return (
        verdict("host memory within 16 MiB", grown < 16 << 20)
        | verdict("GPU memory within 4 MiB", taken < 4 << 20)
        | verdict("handles and threads as before", after[2:] == before[2:])
    )


def gpus(_options: argparse.Namespace) -> int:
    """Two GPUs in one process: each kernel on its own, torch's current one untouched."""
    if torch.cuda.device_count() < 2:
        print("skipped: there is one GPU")
        return 0
    failed, n, engine = 0, 1000, jitc.Jit(files=family(2, ADD))
    kernels = [engine.load("nop", device=at) for at in (0, 1)]
    for current in (0, 1):
        torch.cuda.set_device(current)
        for at, kernel in enumerate(kernels):
            x = torch.randn(n, device=f"cuda:{at}")
            y = torch.randn(n, device=f"cuda:{at}")
            wanted = y * 0.5 + x * 3.0
            kernel(x, y, n)
            torch.cuda.synchronize(at)
            failed |= verdict(f"GPU {at} with GPU {current} current", torch.allclose(y, wanted))
            failed |= verdict("the current GPU is as it was", torch.cuda.current_device() == current)
            try:
                kernels[1 - at](x, y, n)
                failed |= verdict("tensors of another GPU are refused", False)
            except jitc.ArgumentError as error:
                failed |= verdict(f"tensors of another GPU are refused: {error}", True)
    return failed


def fork(_options: argparse.Namespace) -> int:
    """A fork while a thread compiles: the child still asks the cache, and ends."""
    import threading

    engine = jitc.Jit(files=family(2, ADD))
    kernel = engine.load("nop")
    worker = threading.Thread(target=lambda: engine.cubin("nop", salt=int(time.time()) % 1_000_000, arch=kernel.arch))
    worker.start()
    child = os.fork()
    if child == 0:
        try:
            engine.load("nop")
        except jitc.ForkedError:
            os._exit(0 if engine.why("nop", arch=kernel.arch) else 2)
        os._exit(1)
    start = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    took = time.monotonic() - start
    worker.join()
    return verdict(f"the child ended with {code} after {took:.1f} s", code == 0 and took < 30)


STRUCT = """struct Config { float by; int from; };
extern "C" __global__ void add(const float* x, float* y, Config c, float scale, unsigned n) {
    unsigned i = blockIdx.x * BLOCK + threadIdx.x;
    if (i < n && (int)i >= c.from) y[i] = x[i] * scale + c.by;
}"""


def added() -> jitc.Kernel:
    source = jitc.source(
        STRUCT,
        entry="add",
        define={"BLOCK": 128},
        block=128,
        sizes=["n"],
        grid="ceil_div(a=n, b=128)",
        parameters=[
            ("x", "f32[n], aligned to 4"),
            ("y", "f32[n], aligned to 4", "inout"),
            ("c", "struct of 8 bytes, aligned to 4"),
            ("scale", "f32"),
            ("n", "u32 = n"),
        ],
    )
    return source.load()


def source(_options: argparse.Namespace) -> int:
    """A kernel of a string with a struct by value gives the numbers of torch."""
    import struct

    kernel, failed = added(), 0
    for n, by, first, scale in ((1000, 1.5, 0, 2.0), (1000, -3.0, 7, 0.25), (33, 0.0, 1, 1.0)):
        x, y = torch.randn(n + 1, device="cuda")[1:], torch.zeros(n, device="cuda")
        kernel(x, y, struct.pack("fi", by, first), scale, n)
        wanted = torch.where(torch.arange(n, device="cuda") >= first, torch.addcmul(torch.full_like(x, by), x, torch.full_like(x, scale)), 0.0)
        failed |= verdict(f"n = {n}, by {by}, from {first}: the numbers of torch", torch.allclose(y, wanted))
    return failed


def ops(_options: argparse.Namespace) -> int:
    """Operators of torch made of kernels pass opcheck, and torch.compile calls them."""
    import jitc.torch

    kernel = jitc.Jit(files=family(2, ADD)).load("nop")
    made = jitc.torch.op_of("jitc_gpu::nop", kernel)
    x, y = torch.randn(256, device="cuda"), torch.randn(256, device="cuda")
    torch.library.opcheck(made.default, (x, y, 256))
    failed = verdict("opcheck passes", True)

    def twice(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y = y.clone()
        torch.ops.jitc_gpu.nop(x, y, 256)
        torch.ops.jitc_gpu.nop(x, y, 256)
        return y + 1

    eager = twice(x, y)
    compiled = torch.compile(twice, backend="aot_eager", fullgraph=True)(x, y)
    failed |= verdict("torch.compile gives the bits of eager", torch.equal(eager, compiled))
    for name, call in (("kernel", lambda: kernel(x, y, 256)), ("operator", lambda: made(x, y, 256))):
        print(f"{name}: {min(one_time(call, 100) for _ in range(50)):.2f} us a call")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    timing = verbs.add_parser("time")
    timing.add_argument("--rounds", type=int, default=200)
    timing.add_argument("--batch", type=int, default=100)
    timing.add_argument("--out")
    timing.set_defaults(run=times)
    for run, count in ((replays, 1000), (drops, 10_000), (gpus, 0), (fork, 0), (source, 0), (ops, 0)):
        verb = verbs.add_parser(run.__name__)
        verb.add_argument("--count", type=int, default=count)
        verb.set_defaults(run=run)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
