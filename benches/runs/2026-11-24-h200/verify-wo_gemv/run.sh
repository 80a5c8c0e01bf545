#!/usr/bin/env bash
# Everything that wants a GPU for `jitc verify wo_gemv`: see README.md beside the results.
set -u
OUT=$(realpath -m "${OUT:-out}"); mkdir -p "$OUT"
cd "$(dirname "$0")"
export JITC_NVRTC=$(python3 -c 'import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], "lib"))' 2>/dev/null)
[ -d "$JITC_NVRTC" ] || export JITC_NVRTC=$(dirname "$(find / -name 'libnvrtc.so.13' -not -path '/proc/*' 2>/dev/null | head -1)")
chmod +x jitc gpu-tests
W="warm wo_gemv --wo-split 1,2,4,8 --accumulate fma,mul_add --arch sm_90a"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee $OUT/gpu.txt
chmod -R go-w carried
./jitc doctor 2>&1 | tee $OUT/doctor.txt
./jitc $W --cache-dir carried 2>&1 | tee $OUT/warm-carried.txt | tail -3
./jitc $W --cache-dir /tmp/cold -v 2>&1 | tee $OUT/warm-cold.txt | tail -3
{ (cd carried && find . -name kernel.cubin | sort | xargs sha256sum) > /tmp/a; (cd /tmp/cold && find . -name kernel.cubin | sort | xargs sha256sum) > /tmp/b
  diff /tmp/a /tmp/b && echo "$(wc -l < /tmp/a) cubins made elsewhere and $(wc -l < /tmp/b) made here: byte-identical"; } 2>&1 | tee $OUT/cubins.txt
JITC_REQUIRE_GPU=1 ./gpu-tests --test-threads=1 2>&1 | tee $OUT/gpu-tests.txt | tail -12
cp -r carried /tmp/verify
time timeout 200 ./jitc verify --cache-dir /tmp/verify 2>$OUT/verify.err | tee $OUT/verify.txt
timeout 60 ./jitc verify --cache-dir /tmp/verify --quick --seeds 1 --json > $OUT/verify-quick.jsonl; tail -1 $OUT/verify-quick.jsonl
head -5 $OUT/verify.err
