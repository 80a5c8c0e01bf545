#!/usr/bin/env bash
# What the decode layer's host side wants of a GPU: see README.md beside the results.
set -u
OUT=$(realpath -m "${OUT:-out}"); mkdir -p "$OUT"
cd "$(dirname "$0")"
export JITC_NVRTC=$(python3 -c 'import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], "lib"))')
chmod +x jitc gpu-tests embed
L=/tmp/host; mkdir -p $L
T0=$SECONDS; at() { echo "[$((SECONDS-T0)) s] $*" | tee -a $L/times.txt; }
save() { tar czf $OUT/host.tgz -C $L .; }
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee $L/gpu.txt
bg() { name=$1; shift; ( "$@" > $L/$name.txt 2>&1; echo "rc $?" >> $L/$name.txt; at $name ) & }
# Nothing of this is timed, so it runs side by side.
bg verify_coop timeout 100 ./jitc verify beta_coop --cache-dir /tmp/coop
bg verify_lite timeout 100 ./jitc verify beta_lite --cache-dir /tmp/lite
export JITC_REQUIRE_GPU=1
bg gpu-tests timeout 60 ./gpu-tests --nocapture
CASE="layer::lite_and_coop_write_the_same_bits_in_every_mode_and_geometries_the_same_results"
for tool in memcheck racecheck synccheck; do bg $tool timeout 90 compute-sanitizer --tool $tool ./gpu-tests --exact $CASE; done
bg soak timeout 100 ./jitc verify beta_coop --soak 100000 --streams 4 --cache-dir /tmp/soak
bg soak_lite timeout 100 ./jitc verify beta_lite --soak 10000 --streams 4 --cache-dir /tmp/soaklite
wait; save
grep -h SUMMARY $L/*check.txt; tail -qn 2 $L/gpu-tests.txt $L/verify_coop.txt $L/verify_lite.txt; cat $L/soak*.txt; grep -h "^test .*FAILED\|panicked" $L/*.txt
timeout 40 ./jitc tune beta_coop --accumulate mma --space wo_split=1,8 --launches 15 --cache-dir /tmp/coop > $L/tune.txt 2>&1; at tune; cat $L/tune.txt
{ ./jitc dispatch --explain --accumulate mma --cache-dir /tmp/coop; ./jitc dispatch --explain --accumulate mma --wo-split 4 --nat 4 --cache-dir /tmp/coop; ./jitc dispatch --device h200 --accumulate mma --cache-dir /tmp/coop; } > $L/dispatch.txt 2>&1; cat $L/dispatch.txt
timeout 30 ./embed > $L/embed.txt 2>&1; at embed; cat $L/embed.txt
w() { preset=$1; arch=$2; shift 2; timeout 60 ./jitc warm beta_coop --preset $preset --wo-split 1,2,4,8 --accumulate fma,mma --arch $arch --jobs 16 --cache-dir /tmp/warm --json "$@" >> $L/warm.jsonl 2>/dev/null; }
w h200 sm_90a; w h200-batch4 sm_90a; w a100 sm_80,sm_86,sm_89; w b200 sm_100a,sm_103a; w gb10 sm_120a,sm_121a
timeout 60 ./jitc warm beta_coop --preset decode-mini --wo-split 1,2,4,8 --arch sm_90a,sm_121a --jobs 16 --cache-dir /tmp/warm --json >> $L/warm.jsonl 2>/dev/null
timeout 60 ./jitc warm beta_coop --wo-split 8 --num-regions 13,20 --accumulate fma,mma --arch sm_90a --jobs 16 --cache-dir /tmp/warm --json >> $L/warm.jsonl 2>/dev/null
at warm; wc -l $L/warm.jsonl
save
