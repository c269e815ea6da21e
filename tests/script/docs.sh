#!/bin/bash
# docs.sh BUILD: what docs/ says in tables is what the code says.  TAP.
set -u
build=$1 number=0 failed=0
check() { # name, expected text on stdin, file that must hold it whole
    number=$((number + 1))
    if python3 -c 'import sys; sys.exit(sys.stdin.read() not in open(sys.argv[1]).read())' "$2"; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1: $2 is out of step; $3"
        failed=1
    fi
}
"$build/greyd" --config-keys | check "configuration keys" docs/CONFIGURATION.md "paste the table of 'greyd --config-keys'"
tests/script/errors.sh | check "errors" docs/ERRORS.md "write it with tests/script/errors.sh"
exit $failed
