#!/bin/bash
# fuzz.sh SECONDS TARGET...: runs each libFuzzer target for a while, one on each processor, from the kept corpus in
# tests/fuzz/corpus/<target>.  TAP.
set -u
seconds=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fuzz() { # NUMBER TARGET: its line is left in $scratch/NUMBER.tap
    local number=$1 target=$2 name own output
    name=$(basename "$target") own=$scratch/$number
    mkdir -p "$own/corpus"
    if output=$("$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -artifact_prefix="$own/" -verbosity=0 \
        -print_final_stats=1 "$own/corpus" $([ -d "tests/fuzz/corpus/$name" ] && echo "tests/fuzz/corpus/$name") 2>&1); then
        echo "ok $number - $name: $(sed -n 's/^stat::number_of_executed_units: *//p' <<<"$output") inputs in $seconds s"
    else
        echo "not ok $number - $name"
        tail -n 30 <<<"$output" | sed 's/^/# /'
    fi >"$own.tap"
}
echo "1..$#"
number=0
for target in "$@"; do
    [ "$number" -lt "$(nproc)" ] || wait -n
    number=$((number + 1))
    fuzz "$number" "$target" &
done
wait
for number in $(seq $#); do
    cat "$scratch/$number.tap"
done
! grep -q '^not ok' "$scratch"/*.tap
