"""Draws the README's picture, front.svg, from figures of benches/runs.

    python3 docs/figures/front.py            # writes docs/figures/front.svg
    python3 docs/figures/front.py --print    # to standard output; a test compares

Nothing but the standard library is needed; every number is read from a committed run.
"""

import json
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS = HERE.parents[1] / "benches" / "runs"

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .small { font-size: 11px; fill: #57606a; }
  .value { font-weight: 600; text-anchor: start; }
  .name { text-anchor: end; }
  .own { fill: #2f6feb; } .peer { fill: #afb8c1; }
  .floor { stroke: #57606a; stroke-dasharray: 4 3; }
  .paper { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; }
    .own { fill: #4c8dff; } .peer { fill: #59636e; } .floor { stroke: #9198a1; }
    .paper { fill: #0d1117; }
  }
"""

WIDTH, LEFT, RIGHT, ROW = 780, 226, 90, 26


def startup():
    """Milliseconds from a request to a kernel that can be launched, from a warm folder."""
    file = RUNS / "2026-11-24-h200" / "launchable" / "launchable.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]

    def median(peer):
        return statistics.median(r["first_us"] for r in rows if r["peer"] == peer and r["what"] == "disk") / 1e3

    names = [("jitc, every byte verified", "jitc wo_gemv"), ("CuPy, same source", "cupy wo_gemv"), ("Triton GEMV", "triton gemv")]
    return [(name, median(peer), n == 0) for n, (name, peer) in enumerate(names)]


def layer():
    """Microseconds of one token through a decode layer, and of streaming the same bytes."""
    own = json.loads((RUNS / "2026-11-27-h200" / "layer" / "bench-1.json").read_text())
    point = next(p for p in own["points"] if p["nat"] == 1 and p["path"] == "coop")
    peers = json.loads((RUNS / "2026-11-24-h200" / "layer-bench" / "layer.json").read_text())["rows"]

    def median(what):
        return next(r["median_us"] for r in peers if (r["what"], r["nat"], r["context"]) == (what, 1, 4096))

    rows = [("jitc decode_layer, one launch", point["summary"]["median"], True)]
    for name in ("Humming NVFP4", "torch FP8", "torch bf16"):
        rows.append((f"{name} linears", median(f"{name}, torch SDPA over bf16"), False))
    return rows, point["stream_us"]


def panel(out, y, title, unit, rows, note, floor=None):
    """A bar for each row, its value at its end."""
    out.append(f'<text class="title" x="16" y="{y}">{title}</text>')
    most = max(value for _, value, _ in rows)
    scale = (WIDTH - LEFT - RIGHT) / most
    top = y + 14
    for n, (name, value, own) in enumerate(rows):
        at = top + n * ROW
        kind = "own" if own else "peer"
        digits = f"{value:.1f}" if value < 10 else f"{value:.0f}"
        out.append(f'<text class="name" x="{LEFT - 10}" y="{at + 14}">{name}</text>')
        out.append(f'<rect class="{kind}" x="{LEFT}" y="{at}" width="{max(value * scale, 2):.1f}" height="{ROW - 8}" rx="2"/>')
        out.append(f'<text class="value" x="{LEFT + value * scale + 8:.1f}" y="{at + 14}">{digits} {unit}</text>')
    bottom = top + len(rows) * ROW
    if floor:
        x = LEFT + floor * scale
        out.append(f'<line class="floor" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{bottom - 4}"/>')
        out.append(f'<text class="small" x="{x + 6:.1f}" y="{bottom + 8}">dashed: streaming the same bytes, {floor:.0f} {unit}</text>')
    out.append(f'<text class="small" x="16" y="{bottom + 26}">{note}</text>')
    return bottom + 26


def draw():
    body = []
    y = panel(
        body, 28, "From a request to a kernel that can be launched, from a warm cache", "ms", startup(),
        "One H200, fresh processes, medians of three; benches/runs/2026-11-24-h200/launchable",
    )
    rows, floor = layer()
    y = panel(
        body, y + 38, "One decode layer, one token, 4096 positions; peers with torch's attention", "&#181;s", rows,
        "One H200, medians; benches/runs/2026-11-27-h200/layer, peers 2026-11-24-h200/layer-bench", floor,
    )
    height = y + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">'
    title = "<title>jitc beside CuPy and Triton at start, and beside torch and Humming in a decode layer</title>"
    paper = f'<rect class="paper" width="{WIDTH}" height="{height}"/>'
    return "\n".join([head, title, f"<style>{STYLE}</style>", paper, *body, "</svg>", ""])


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(draw())
    else:
        (HERE / "front.svg").write_text(draw())
