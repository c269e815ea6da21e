#!/bin/bash
# hardened.sh PROGRAM...: what compiler and linker were told to do against intruders is in the programs.  TAP.
set -u
export LC_ALL=C
number=0 failed=0
echo "1..$#"
for program in "$@"; do
    number=$((number + 1))
    missing=
    head=$(readelf -hW "$program") segments=$(readelf -lW "$program") dynamic=$(readelf -dW "$program") symbols=$(nm -D --undefined-only "$program")
    lacks() { missing="$missing; $1"; }
    grep -q 'Type: *DYN' <<<"$head" || lacks "not position-independent"
    grep -q GNU_RELRO <<<"$segments" || lacks "no RELRO"
    grep -qE '\(FLAGS\).*BIND_NOW|\(FLAGS_1\).*NOW' <<<"$dynamic" || lacks "not bound at start"
    grep -q TEXTREL <<<"$dynamic" && lacks "its code is written at start"
    grep -qE 'RPATH|RUNPATH' <<<"$dynamic" && lacks "takes libraries from a path of its own"
    grep -qE '^ *GNU_STACK .* RW +0x' <<<"$segments" || lacks "the stack may be run"
    grep -qE '^ *LOAD .* RWE ' <<<"$segments" && lacks "a segment is written and run"
    grep -q __stack_chk_fail <<<"$symbols" || lacks "no stack protector"
    grep -qE '__[a-z]+_chk' <<<"${symbols//__stack_chk_fail/}" || lacks "no fortified calls"
    if grep -q 'Machine:.*X86-64' <<<"$head" && ! objdump -d --disassemble=main "$program" | grep -q endbr64; then
        lacks "indirect jumps may land anywhere"
    fi
    if [ -z "$missing" ]; then
        echo "ok $number - $program"
    else
        echo "not ok $number - $program: ${missing#; }"
        failed=1
    fi
done
exit $failed
