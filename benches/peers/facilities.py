"""From a request to a function that can be launched, for a family of each facility: jitc, CuPy's
RawModule, PyTorch's compile_kernel.

    python3 benches/peers/facilities.py JITC LAUNCHABLE TEMPLATES OUT.jsonl [SECONDS [FAMILY..]]

JITC is the program, LAUNCHABLE the built example of that name, TEMPLATES `examples/facilities`. The
peers are given the very source that `jitc render` prints, with CUDA's headers by -I. Each family
is measured in a process of its own: with empty folders (cold), then in a new one with what the
first left (disk), and again in it (repeated). The CUDA context exists before the clock starts, and
libraries are imported before it. PyTorch keeps nothing on disk, so it has one process a family.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

# Who compiles every time is asked again for a second at most.
REPEATS = 20
REPEAT_SECONDS = 1.0


def includes():
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return [f"{home}/include", f"{home}/include/cccl"]


def cupy_ask(code, entry):
    import cupy

    options = ("--std=c++17", *[f"-I{folder}" for folder in includes()])
    cupy.zeros(1)
    cupy.cuda.Device().synchronize()
    return lambda: cupy.RawModule(code=code, options=options, backend="nvrtc").get_function(entry).kernel.ptr


def torch_ask(code, entry):
    import torch

    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    return lambda: torch.cuda._compile_kernel(code, entry, cuda_include_dirs=includes())


def timed(make, code, entry):
    ask = make(code, entry)
    start = time.perf_counter()
    kernel = ask()
    first = time.perf_counter() - start
    assert kernel
    start = time.perf_counter()
    asked = 0
    while asked < REPEATS and (asked == 0 or time.perf_counter() - start < REPEAT_SECONDS):
        ask()
        asked += 1
    return {"first_us": first * 1e6, "repeat_ns": (time.perf_counter() - start) / asked * 1e9}


def forked(make, code, entry):
    """In a child that has what is imported here, and a CUDA context of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            line = json.dumps(timed(make, code, entry))
        except Exception as error:  # told in the table
            line = json.dumps({"failed": str(error)[:2000]})
        os.write(write, line.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def serve(peer):
    """Answers lines of JSON: a peer is imported once, and no CUDA is touched before a fork."""
    if peer == "cupy":
        import cupy  # noqa: F401

        make = cupy_ask
    else:
        import torch  # noqa: F401

        make = torch_ask
    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        os.environ["CUPY_CACHE_DIR"] = task["folder"]
        print(json.dumps(forked(make, task["code"], task["entry"])), flush=True)


def main():
    jitc, launchable, templates, out = sys.argv[1:5]
    seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 60.0
    env = dict(os.environ, CUDA_CACHE_DISABLE="1", CUPY_CACHE_IN_MEMORY="0", JITC_TEMPLATES=templates)
    families = sys.argv[6:] or sorted(os.listdir(templates))
    sources = {}
    for family in families:
        words = [jitc, "render", family, "--arch", "sm_90a"]
        sources[family] = subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout
    peers = {}
    for peer in ["cupy", "torch"]:
        words = [sys.executable, os.path.abspath(__file__), "--serve", peer]
        peers[peer] = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert peers[peer].stdout.readline() == "ready\n", peer

    def ask(peer, family, folder):
        task = {"code": sources[family], "entry": family, "folder": f"{folder}/{peer}-{family}"}
        peers[peer].stdin.write(json.dumps(task) + "\n")
        peers[peer].stdin.flush()
        return json.loads(peers[peer].stdout.readline())

    def ours(family, folder, *more):
        words = [launchable, family, f"{folder}/jitc-{family}", *more]
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            return {"failed": done.stderr[-2000:]}
        return json.loads(done.stdout.strip().splitlines()[-1])

    rows = []
    begun = time.perf_counter()
    rounds = 0
    with open(out, "w") as log:

        def keep(peer, what, family, line):
            line.update(peer=peer, what=what, family=family, round=rounds)
            rows.append(line)
            log.write(json.dumps(line) + "\n")
            log.flush()

        longest = 0.0
        while rounds == 0 or time.perf_counter() - begun + longest < seconds:
            at = time.perf_counter()
            with tempfile.TemporaryDirectory(dir="/tmp") as folder:
                for family in families:
                    for what in ["cold", "disk"]:
                        keep("jitc", what, family, ours(family, folder))
                    keep("driver", "disk", family, ours(family, folder, "--driver"))
                    for what in ["cold", "disk"]:
                        keep("cupy", what, family, ask("cupy", family, folder))
                    keep("torch", "cold", family, ask("torch", family, folder))
            rounds += 1
            longest = max(longest, time.perf_counter() - at)
    for peer in peers.values():
        peer.stdin.close()
        peer.wait()

    for row in rows:
        if "failed" in row:
            print(row["peer"], row["family"], row["what"], "failed:", row["failed"])

    def cell(peer, what, family, key="first_us", scale=1e3):
        here = [
            row[key] / scale for row in rows if (row["peer"], row["what"], row["family"]) == (peer, what, family) and key in row
        ]
        return f"{statistics.median(here):.4g}" if here else "-"

    print(f"ms, medians of {rounds} rounds: cold | from disk | repeated")
    print(f"{'family':<12} {'jitc':>26} {'cupy':>28} {'torch':>24} {'driver':>8}")
    for family in families:
        last = {"jitc": "disk", "cupy": "disk", "torch": "cold"}
        texts = []
        for peer, what in last.items():
            cells = [cell(peer, "cold", family), cell(peer, "disk", family)]
            texts.append(" | ".join([*cells, cell(peer, what, family, "repeat_ns", 1e6)]))
        print(f"{family:<12} {texts[0]:>26} {texts[1]:>28} {texts[2]:>24} {cell('driver', 'disk', family, 'driver_us'):>8}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
