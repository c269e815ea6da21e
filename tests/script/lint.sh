#!/bin/bash
# lint.sh SOURCE...: clang-tidy and cppcheck over our sources.  TAP.
set -u
export LC_ALL=C
tidy() {
    printf '%s\n' "$@" | xargs -P 2 -n 8 clang-tidy --quiet --warnings-as-errors='*' \
        --checks='-*,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-assignment-in-if-condition,-bugprone-narrowing-conversions,clang-analyzer-core.*,clang-analyzer-unix.*,clang-analyzer-deadcode.*,misc-redundant-expression' \
        2>/dev/null -- -std=c11 -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 '-DGREY_VERSION="lint"'
}
number=0 failed=0
result() {
    number=$((number + 1))
    if [ "$1" -eq 0 ]; then echo "ok $number - $2"; else
        echo "not ok $number - $2"
        sed 's/^/# /' "$3" | head -n 60
        failed=1
    fi
}
out=$(mktemp)
tidy "$@" >"$out"
result $? "clang-tidy finds nothing" "$out"
cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -I. -D_GNU_SOURCE '-DGREY_VERSION="lint"' \
    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches "$@" >"$out" 2>&1
result $? "cppcheck finds nothing" "$out"
rm -f "$out"
if [ -n "${TALLY:-}" ]; then echo "$((number - failed)) $failed" >>"$TALLY"; fi
exit $failed
