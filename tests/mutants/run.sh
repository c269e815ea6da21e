#!/bin/sh
# Puts known bugs back, one at a time, and shows that each is found: tests/mutants/run.sh BUILD [NN ...]
#
# A mutant is a patch.  Its first line says which bug of other people's Raft it is ("bug N", N as in the file classes, 0 when it is of
# none) and what that breaks.  The simulator has to find it, or, for what lies above the consensus core, the test that a second line
# names ("found by tests/...").  Only the patched sources are compiled, in build/mutants/NN; the other objects are those of BUILD, which has
# to be up to date.  Results that stand in build/mutants/NN/result and are newer than patch, test and BUILD are not made again (FRESH=1:
# all anew).  At the end comes the table of docs/CONSENSUS.md; run.sh --classes prints its first three columns, without a run.
#
# SEEDS, MINUTES: how far sim looks (default 2000 seeds of 2 virtual minutes), WEEKS: week (default 60 seeds); SECONDS_MAX: how long (default 300).
set -u
here=$(dirname "$0")
: "${CC:=gcc}" "${SEEDS:=2000}" "${MINUTES:=2}" "${WEEKS:=60}" "${SECONDS_MAX:=300}" "${FRESH:=0}"
passed=0 failed=0
libraries="-Wl,--as-needed -lcbor -llz4 -lz -lsodium -lyaml -ljansson -lsqlite3 -lmbedtls -lmbedx509 -lmbedcrypto
           -lhttp_parser -pthread"

# By class: number, bug, its mutants; and what it took to find the last of them, where a result is there.
table() {
    for patch in "$here"/*.patch; do
        name=$(basename "$patch")
        printf '%s|%s|%s\n' "${name%%-*}" "$(sed -n '1s/^bug \([0-9]*\):.*/\1/p' "$patch")" \
            "$(cat "build/mutants/${name%%-*}/result" 2>/dev/null)"
    done | awk -F'|' -v figures="$1" '
        NR == FNR { bug[++count] = $2; next }
        { mutants[$2] = mutants[$2] " " $1
          if ($3 !~ /^found/) { missed[$2] = "not found" }
          else if (match($3, /by [a-z_\/.]*/)) { by[$2] = substr($3, RSTART + 3, RLENGTH - 3) }
          else { split($3, word, " "); if (word[3] + 0 > seeds[$2]) seeds[$2] = word[3] + 0; if (word[6] + 0 > time[$2]) time[$2] = word[6] + 0 }
        }
        END { for (n = 1; n <= count + 1; n++) {
                  class = n > count ? 0 : n
                  if (class == 0 && !(class in mutants)) continue
                  line = "| " (class == 0 ? "-" : class) " | " (class == 0 ? "others" : bug[class]) " |" mutants[class] " |"
                  if (figures) {
                      found = class in missed ? missed[class] : class in by ? by[class] : ""
                      if (seeds[class] > 0) found = found (found == "" ? "" : "; ") seeds[class] " seed" (seeds[class] > 1 ? "s" : "") sprintf(", %.1f s", time[class])
                      line = line " " found " |"
                  }
                  print line } }' "$here/classes" -
}

if [ "$1" = --classes ]; then
    table 0
    exit
fi
build=$1
shift
all=$#

wanted() {
    [ $# -eq 1 ] && return 0
    number=$1
    shift
    for n in "$@"; do [ "$n" = "$number" ] && return 0; done
    return 1
}

# Compiles the patched sources before all others and links them in place of their objects.
make_mutant() { # patch, directory, test ("" for the simulator)
    rm -rf "$2" && mkdir -p "$2/source" || return 1
    own=
    case $3 in
    tests/unit/*) others="$build/obj/${3%.c}.o" target=$2/test more="$build/libctl.a $build/libagent.a $build/liblaunch.a $build/libcore.a" ;;
    tests/week) others=$(find "$build/obj/tests/week" -name '*.o') target=$2/week more="$build/libagent.a" ;;
    tests/system/*) others="$build/obj/agent/greyd.o" target=$2/greyd more="$build/libagent.a $build/liblaunch.a" ;;
    *) others=$(find "$build/obj/tests/sim" -name '*.o') target=$2/sim more="$build/libagent.a" ;;
    esac
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
        others=$(printf '%s\n' "$others" | grep -v "/$(basename "$file" .c)\.o$")
    done
    case $3 in
    tests/unit/*) libraries_more=-lcmocka ;;
    *) libraries_more= ;;
    esac
    # shellcheck disable=SC2086
    $CC -pie -o "$target" $own $others $more "$build/libfederation.a" "$build/libplatform.a" $libraries_more $libraries >>"$2/log" 2>&1 ||
        return 1
    [ "$target" != "$2/greyd" ] || ln -sf "$(realpath "$build/greyctl")" "$(realpath "$build/grey-core")" "$2"
}

# What the children took of a processor so far, in seconds.  Runs in this very shell: a subshell has no children yet.
processor_time() { # directory
    times >"$1/times"
    spent=$(awk 'NR == 2 { split($0, t, /[ms ]+/); printf "%.2f", t[1] * 60 + t[2] + t[3] * 60 + t[4] }' "$1/times")
}

# The sentence for the result.  Seconds of the simulator are those of a processor, those of tests go by the clock.
look() { # directory, test
    began=$(date +%s.%N)
    processor_time "$1" && spent_before=$spent
    case $2 in
    tests/unit/*) CMOCKA_MESSAGE_OUTPUT=TAP timeout "$SECONDS_MAX" "$1/test" >"$1/out" 2>"$1/err" ;;
    tests/week) timeout "$SECONDS_MAX" "$1/week" --first --seed 1 --count "$WEEKS" 2>"$1/err" | sed 's/^seed /not ok 1 - seed /' >"$1/out" ;;
    tests/system/*) BUILD=$(realpath "$1") timeout "$SECONDS_MAX" "$2" >"$1/out" 2>"$1/err" ;;
    *) timeout "$SECONDS_MAX" "$1/sim" --first --seed 1 --count "$SEEDS" --minutes "$MINUTES" >"$1/out" 2>"$1/err" ;;
    esac
    status=$?
    seconds=$(date +%s.%N | awk -v began="$began" '{printf "%.1f", $1 - began}')
    if [ -n "$2" ]; then
        line=$(sed -n 's/^not ok [0-9]* - //p' "$1/out" | head -1)
        if [ -n "$line" ]; then echo "found by $2 in $seconds s: $line"; else echo "NOT FOUND by $2 in $seconds s"; fi
        return
    fi
    processor_time "$1"
    seconds=$(awk -v a="$spent_before" -v b="$spent" 'BEGIN {printf "%.1f", b - a}')
    law=$(sed -n 's/^seed //p' "$1/out" | head -1)
    if [ $status -eq 124 ]; then
        echo "NOT FOUND in $seconds s"
    elif [ -n "$law" ]; then
        must=$(head -c 120 "$1/err" | tr '\n' ' ')
        echo "found with ${law%%:*} seeds in $seconds s:${law#*:} $must"
    else
        echo "NOT FOUND with $SEEDS seeds in $seconds s"
    fi
}

for patch in "$here"/*.patch; do
    name=$(basename "$patch" .patch)
    wanted "${name%%-*}" "$@" || continue
    dir=build/mutants/${name%%-*}
    test=$(sed -n '2s/^found by //p' "$patch")
    if [ "$FRESH" = 1 ] || [ ! -s "$dir/result" ] || [ -n "$(find "$patch" "$build/sim" "$here/run.sh" ${test:+"$test"} -newer "$dir/result")" ]; then
        if make_mutant "$patch" "$dir" "$test"; then
            look "$dir" "$test" >"$dir/result"
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
[ "$all" -gt 0 ] || table 1
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
