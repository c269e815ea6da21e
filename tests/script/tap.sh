#!/bin/bash
# tap.sh PROGRAM...: runs test programs that print TAP, TEST_JOBS (1) at a time, shows what failed, and ends with "N passed, N failed".
# RUNNER: what runs them, such as an emulator with its arguments.  NOTES=1: what they note (lines with #) is shown.
# A program that dies, or prints no test at all, counts as one failure.  Counts are added to $TALLY when that file is named, and what
# failed is named once more at the end: of a long log the end is what people get to see.
set -u
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
trap 'trap - TERM; kill -TERM 0; wait; exit 130' INT TERM # what runs in the background does not hear of an interrupt
run() {
    local program=$1 name output status ok bad why skipped start
    name=$(basename "$program")
    start=$(date +%s%N)
    output=$(CMOCKA_MESSAGE_OUTPUT=TAP timeout --foreground "${TEST_TIMEOUT:-600}" ${RUNNER:-} "$program" 2>&1)
    status=$?
    ok=$(grep -c '^ok ' <<<"$output")
    bad=$(grep '^not ok ' <<<"$output" | grep -vc '# SKIP') # cmocka says so of a test that skips itself, with its reason before
    skipped=$(grep -c "# SKIP" <<<"$output")
    if [ "$bad" -eq 0 ] && { [ "$status" -ne 0 ] || [ $((ok + skipped)) -eq 0 ]; }; then
        bad=1
    fi
    why=$(grep '^not ok ' <<<"$output" | grep -v '# SKIP' | sed 's/^not ok //' | paste -sd '|')
    { # in one piece, and locked: others may be at the end too
        flock 9
        printf '  %-28s %3d passed, %d failed  (%d ms)\n' "$name" "$ok" "$bad" $((($(date +%s%N) - start) / 1000000))
        grep '# SKIP' <<<"$output" | grep -v '^not ok '
        [ -z "${NOTES:-}" ] || grep '^# ' <<<"$output"
        if [ "$bad" -gt 0 ]; then
            printf '%s\n' "$output" | head -n "-${TEST_TAIL:-60}" | grep '^not ok ' | sed 's/^/    | /' # else they would be cut off
            printf '%s\n' "$output" | tail -n "${TEST_TAIL:-60}" | sed 's/^/    | /'
            printf '    | exit status %d\n' "$status"
        fi
        printf '%d %d %s\n' "$ok" "$bad" "$name: ${why:-exit status $status}" >&9
    } 9>>"$counts"
}
running=0
for program in "$@"; do
    if [ "$running" -ge "${TEST_JOBS:-1}" ]; then
        wait -n
        running=$((running - 1))
    fi
    run "$program" &
    running=$((running + 1))
done
wait
read -r passed failed <<<"$(awk '{p += $1; f += $2} END {print p + 0, f + 0}' "$counts")"
awk '$2 > 0 {sub(/^[0-9]+ [0-9]+ /, ""); print "  failed: " $0}' "$counts"
if [ -n "${TALLY:-}" ]; then
    cat "$counts" >>"$TALLY"
else
    printf '%d passed, %d failed\n' "$passed" "$failed"
fi
[ "$failed" -eq 0 ]
