#!/bin/bash
# pure.sh "PURE OBJECTS" "COMPUTING OBJECTS": what the pure objects call must be defined in a pure or computing object, or be named in
# $MAY_CALL.  So the compiled code, not a promise, says that they make no system call, read no clock and do not log.  TAP.
set -u
export LC_ALL=C
read -r -a pure <<<"${1//$'\n'/ }"
read -r -a computing <<<"${2//$'\n'/ }"
if [ "${#pure[@]}" -eq 0 ]; then
    echo "1..0 # SKIP there is no pure object yet"
    exit 0
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

{
    nm -g --defined-only "${pure[@]}" "${computing[@]}" | awk 'NF == 3 { print $3 }'
    tr -s ' \n' '\n' <<<"${MAY_CALL:-}"
} | sort -u >"$scratch/allowed" || exit 1

number=0 failed=0
echo "1..${#pure[@]}"
for object in "${pure[@]}"; do
    number=$((number + 1))
    if ! nm -u "$object" >"$scratch/nm" 2>"$scratch/error"; then
        echo "not ok $number - $object cannot be read"
        sed 's/^/# /' "$scratch/error"
        failed=1
        continue
    fi
    # What sanitizers and coverage put in is not the program's.
    calls=$(awk '$1 == "U" || $1 == "w" { print $2 }' "$scratch/nm" |
        grep -vE '^_*(asan|ubsan|tsan|msan|lsan|sanitizer|sancov|gcov|llvm)_' | sort -u | comm -23 - "$scratch/allowed")
    if [ -z "$calls" ]; then
        echo "ok $number - $object"
    else
        echo "not ok $number - $object"
        sed 's|^|# calls |' <<<"$calls"
        failed=1
    fi
done
exit $failed
