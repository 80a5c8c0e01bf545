#!/bin/sh
# Everything of docs/MEASURING.md on a GPU, from this project's folder. JITC names the
# program; numpy is used where there is one. Ends with the first thing that is wrong.
set -eu
jitc=${JITC:-jitc}
here=$(dirname "$0")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
run() {
    echo "\$ jitc $*"
    "$jitc" "$@" --templates "$here" --cache-dir "$out/cache"
}

echo "# variants against each other: 8 comparisons, none differs"
run verify rms_norm --block 64,256 --width 1,4 --against block=1024,width=1 --size rows=3,512 --size cols=1000
echo "# rows that no load divides"
run verify rms_norm --width 4 --against width=1 --size rows=7 --size cols=1,63,1023

if python3 -c 'import numpy' 2>/dev/null; then
    echo "# against float64 in numpy"
    run verify rms_norm --size rows=64 --size cols=1000 --save "$out/io"
    (cd "$out/io" && python3 - <<'PY'
import numpy as np
x, w = np.load("x.npy").astype(np.float64), np.load("weight.npy").astype(np.float64)
np.save("reference.npy", x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6) * w)
PY
    )
    run verify rms_norm --size rows=64 --size cols=1000 --against "$out/io/reference.npy"
    echo "# what is wrong is found: another epsilon differs, and the answer is 1"
    if run verify rms_norm --size rows=64 --size cols=1000 --value epsilon=0.1 --against "$out/io/reference.npy"; then
        echo "error: another epsilon was not told from the reference" >&2
        exit 1
    fi
fi

echo "# by rule: block 256, width 4 for 4096 columns"
run bench rms_norm --size rows=512,4096
echo "# what is set"
run bench rms_norm --block 64,256,1024 --width 1,4
run bench rms_norm --warm --method events
echo "# 14 candidates; a winner is faster than the rules' choice by 2 %, or that stays"
run tune rms_norm --size rows=512,4096
if [ -f "$out/cache/tuned.json" ]; then cat "$out/cache/tuned.json"; fi
echo "# tuned where something won, else by rule"
run bench rms_norm --size rows=512,4096 --json
echo "all of it is right"
