#!/bin/bash
# cold.sh OLD NEW ARGS..: milliseconds of `jitc warm ARGS` into an empty cache, the two programs in turn, five times
old=$1 new=$2; shift 2; c=$(mktemp -d)
for i in 1 2 3 4 5; do for w in old new; do J=${!w}; rm -rf "$c"; s=$(date +%s%N); $J warm "$@" --cache-dir "$c" -q >/dev/null 2>&1; e=$(date +%s%N); echo "$w $(( (e-s)/1000000 ))"; done; done | sort | awk '{a[$1]=a[$1]" "$2} END{for(k in a) print k":"a[k]}'
