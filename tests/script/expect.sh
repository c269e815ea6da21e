# expect.sh: for scripts of tests that compare what is said with what should be.  Sourced; TAP.
# shellcheck shell=bash
number=0 failed=0
expect() { # sentence, what is, what should be
    number=$((number + 1))
    if [ "$2" = "$3" ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1: '$2', not '$3'"
        failed=1
    fi
}
