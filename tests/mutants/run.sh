#!/bin/sh
# Puts known bugs back, one at a time, and shows that a simulator finds each: tests/mutants/run.sh BUILD [NN ...]
#
# A mutant is a patch; its first line says which bug of other people's Raft it is and what that breaks.  Only the patched sources are
# compiled, in build/mutants/NN; the other objects are those of BUILD, which has to be up to date.  Results that stand in
# build/mutants/NN/result and are newer than patch and simulator are not made again (FRESH=1: all anew).
#
# Those below 100 are for build/sim, the others for build/week.
# SEEDS, MINUTES: how far sim looks (default 2000 seeds of 2 virtual minutes), WEEKS: week (default 60); SECONDS_MAX: how long (default 300).
set -u
build=$1
shift
here=$(dirname "$0")
: "${CC:=gcc}" "${SEEDS:=2000}" "${MINUTES:=2}" "${WEEKS:=60}" "${SECONDS_MAX:=300}" "${FRESH:=0}"
passed=0 failed=0

wanted() {
    [ $# -eq 1 ] && return 0
    number=$1
    shift
    for n in "$@"; do [ "$n" = "$number" ] && return 0; done
    return 1
}

# Compiles the patched sources before all others and links them in place of their objects.
make_mutant() { # patch, directory, program
    rm -rf "$2" && mkdir -p "$2/source" || return 1
    objects=$(find "$build/obj/tests/$3" -name '*.o') agent=
    [ "$3" = week ] && agent=$build/libagent.a
    own=
    files=$(sed -n 's|^+++ b/||p' "$1")
    for file in $files; do
        mkdir -p "$2/source/$(dirname "$file")" && cp "$file" "$2/source/$file" || return 1
    done
    patch -s -p1 -F0 -d "$2/source" <"$1" >"$2/log" 2>&1 || return 1
    for file in $files; do
        object=$2/$(basename "$file" .c).o
        $CC -I"$2/source" -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 -std=c11 -O2 -w -fPIE -c "$2/source/$file" \
            -o "$object" >>"$2/log" 2>&1 || return 1
        own="$own $object"
        objects=$(printf '%s\n' "$objects" | grep -v "/$(basename "$file" .c)\.o$")
    done
    # shellcheck disable=SC2086
    $CC -pie -o "$2/$3" $own $objects $agent "$build/libfederation.a" "$build/libplatform.a" -Wl,--as-needed -lcbor -llz4 -lz -lsodium \
        -lyaml -ljansson -lsqlite3 -lmbedtls -lmbedx509 -lmbedcrypto -lhttp_parser -pthread >>"$2/log" 2>&1
}

for patch in "$here"/*.patch; do
    name=$(basename "$patch" .patch)
    wanted "${name%%-*}" "$@" || continue
    dir=build/mutants/${name%%-*}
    if [ "${name%%-*}" -ge 100 ]; then program=week far="--count $WEEKS"; else program=sim far="--count $SEEDS --minutes $MINUTES"; fi
    if [ "$FRESH" = 1 ] || [ ! -s "$dir/result" ] || [ -n "$(find "$patch" "$build/$program" -newer "$dir/result")" ]; then
        if make_mutant "$patch" "$dir" "$program"; then
            began=$(date +%s.%N)
            # shellcheck disable=SC2086
            timeout "$SECONDS_MAX" "$dir/$program" --first --seed 1 $far >"$dir/out" 2>"$dir/err"
            status=$?
            seconds=$(date +%s.%N | awk -v began="$began" '{printf "%.1f", $1 - began}')
            law=$(sed -n 's/^seed //p' "$dir/out" | head -1)
            if [ $status -eq 124 ]; then
                echo "NOT FOUND in $seconds s" >"$dir/result"
            elif [ -n "$law" ]; then
                must=$(head -c 120 "$dir/err" | tr '\n' ' ')
                echo "found with ${law%%:*} seeds in $seconds s:${law#*:} $must" >"$dir/result"
            else
                echo "NOT FOUND with $far in $seconds s" >"$dir/result"
            fi
        else
            echo "NOT BUILT: $(tail -1 "$dir/log")" >"$dir/result"
        fi
    fi
    result=$(cat "$dir/result")
    case $result in
    found*) passed=$((passed + 1)) word=ok ;;
    *) failed=$((failed + 1)) word='not ok' ;;
    esac
    echo "$word - $name: $result"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
