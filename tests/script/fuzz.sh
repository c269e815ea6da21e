#!/bin/bash
# fuzz.sh SECONDS TARGET...: runs each libFuzzer target for a while, from the kept corpus in tests/fuzz/corpus/<target>.  TAP.
set -u
seconds=$1
shift
failed=0 number=0
echo "1..$#"
for target in "$@"; do
    name=$(basename "$target")
    number=$((number + 1))
    scratch=$(mktemp -d)
    mkdir -p "$scratch/corpus"
    seeds=tests/fuzz/corpus/$name
    if output=$("$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -artifact_prefix="$scratch/" -verbosity=0 \
        -print_final_stats=1 "$scratch/corpus" $([ -d "$seeds" ] && echo "$seeds") 2>&1); then
        echo "ok $number - $name: $(sed -n 's/^stat::number_of_executed_units: *//p' <<<"$output") inputs in $seconds s"
    else
        echo "not ok $number - $name"
        tail -n 30 <<<"$output" | sed 's/^/# /'
        failed=1
    fi
    rm -rf "$scratch"
done
exit $failed
