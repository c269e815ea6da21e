#!/bin/bash
# lint.sh SOURCE...: clang-tidy and cppcheck over our sources.  TAP.
set -u
export LC_ALL=C
checks='-*,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-assignment-in-if-condition'
checks=$checks,'-bugprone-narrowing-conversions,-bugprone-implicit-widening-of-multiplication-result,-bugprone-misplaced-widening-cast,-bugprone-macro-parentheses,-bugprone-sizeof-expression,-bugprone-suspicious-missing-comma,clang-analyzer-core.*,clang-analyzer-unix.*,clang-analyzer-deadcode.*,misc-redundant-expression'
export checks
tidy() {
    printf '%s\n' "$@" | xargs -P 2 -n 6 sh -c 'clang-tidy --quiet --warnings-as-errors="*" --checks="$checks" "$@" -- -std=c11 -I. -D_GNU_SOURCE \
        -D_FILE_OFFSET_BITS=64 "-DGREY_VERSION=\"lint\"" -DGREY_BUILD_S=1700000000 -DGREY_UPDATE_COUNTER=1ull 2>/dev/null' _
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
# Not asked of cppcheck, because it errs there on this code: variables filled through a pointer (clang's analyzer looks at those), our
# must() as the end of a function, and bit fields in conditional expressions.
cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -I. -D_GNU_SOURCE '-DGREY_VERSION="lint"' -DGREY_BUILD_S=1700000000 -DGREY_UPDATE_COUNTER=1ull \
    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches --suppress=uninitvar --suppress=missingReturn \
    --suppress=internalAstError --suppress=negativeIndex "$@" >"$out" 2>&1
result $? "cppcheck finds nothing" "$out"
rm -f "$out"
if [ -n "${TALLY:-}" ]; then echo "$((number - failed)) $failed" >>"$TALLY"; fi
exit $failed
