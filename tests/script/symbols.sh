#!/bin/bash
# symbols.sh PROGRAM...: no function of ours may bear the name of one that a shared library exports.  The linker says nothing then, and
# the library calls ours: a yaml_free of our own once freed libyaml's memory.  TAP.
set -u
export LC_ALL=C
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

number=0 failed=0
echo "1..$#"
for program in "$@"; do
    number=$((number + 1))
    # The linker exports from a program just those functions that a library it was linked with names as well.
    nm -D --defined-only "$program" | awk '$2 == "T" || $2 == "W" { print $3 }' | sort >"$scratch/ours"
    ldd "$program" | awk '$3 ~ /^\// { print $3 }' | xargs -r -n 1 nm -D --defined-only 2>"$scratch/error" |
        awk 'NF == 3 && $2 ~ /[TWi]/ { sub(/@.*/, "", $3); print $3 }' | sort -u >"$scratch/theirs"
    clashes=$(comm -12 "$scratch/ours" "$scratch/theirs" | grep -vE '^(_init|_fini|main)$')
    if [ -s "$scratch/theirs" ] && [ -z "$clashes" ]; then
        echo "ok $number - $program"
    else
        echo "not ok $number - $program"
        while read -r name; do echo "# $name is a function of a library too"; done <<<"$clashes"
        failed=1
    fi
done
exit $failed
