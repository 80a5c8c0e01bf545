#!/usr/bin/env bash
# Everything of the decode layer's host side that wants a GPU: see README.md beside the results.
set -u
OUT=$(realpath -m "${OUT:-out}"); mkdir -p "$OUT"
cd "$(dirname "$0")"
export JITC_NVRTC=$(python3 -c 'import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], "lib"))')
chmod +x jitc gpu-tests embed host_launch
L=/tmp/host; mkdir -p $L
T0=$SECONDS; at() { echo "[$((SECONDS-T0)) s] $*"; }
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee $L/gpu.txt
# Nothing here is timed, so it runs side by side.
( timeout 110 ./jitc verify beta_coop --cache-dir /tmp/coop > $L/verify_coop.txt 2>&1; echo "rc $?" >> $L/verify_coop.txt ) & P1=$!
( timeout 110 ./jitc verify beta_lite --quick --cache-dir /tmp/lite > $L/verify_lite.txt 2>&1; echo "rc $?" >> $L/verify_lite.txt ) & P2=$!
( JITC_REQUIRE_GPU=1 timeout 60 ./gpu-tests --nocapture > $L/gpu-tests.txt 2>&1; echo "rc $?" >> $L/gpu-tests.txt ) & P3=$!
CASE="layer::lite_and_coop_write_the_same_bits_in_every_mode_and_geometries_the_same_results"
for tool in memcheck racecheck synccheck; do
( timeout 90 compute-sanitizer --tool $tool ./gpu-tests --exact $CASE > $L/$tool.txt 2>&1; echo "rc $?" >> $L/$tool.txt; at $tool >> $L/times.txt ) & eval "S_$tool=$!"
done
wait $P3; at gpu-tests; tail -6 $L/gpu-tests.txt
wait $P1; at verify_coop; tail -2 $L/verify_coop.txt
wait $P2; at verify_lite; tail -2 $L/verify_lite.txt
wait; at sanitizers; for t in memcheck racecheck synccheck; do grep -h "SUMMARY" $L/$t.txt; tail -1 $L/$t.txt; done; cat $L/times.txt
# What is timed runs alone.
( cd /tmp && timeout 40 $OLDPWD/host_launch --bench ) > $L/launch.txt 2>&1; at launch; cat $L/launch.txt
timeout 60 ./embed > $L/embed.txt 2>&1; echo "rc $?" >> $L/embed.txt; at embed; tail -3 $L/embed.txt
timeout ${SOAK_S:-60} ./jitc verify beta_coop --soak ${SOAK:-20000} --streams 4 --cache-dir /tmp/coop > $L/soak.txt 2>&1; echo "rc $?" >> $L/soak.txt; at soak; cat $L/soak.txt
tar czf $OUT/host.tgz -C $L .
