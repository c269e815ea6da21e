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
check "configuration keys" docs/CONFIGURATION.md "paste the table of 'greyd --config-keys'" < <("$build/greyd" --config-keys)
check "errors" docs/ERRORS.md "write it with tests/script/errors.sh" < <(tests/script/errors.sh)
check "keys in the manual" docs/man/greyd.yaml.5 "replace its KEYS by the output of 'tests/script/man5.sh BUILD'" < <(tests/script/man5.sh "$build")
number=$((number + 1))
if difference=$(diff <(tests/script/routes.sh) <(tests/script/routes.sh --documented)); then
    echo "ok $number - calls in docs/openapi.yaml"
else
    echo "not ok $number - calls in docs/openapi.yaml: < served, > documented"
    echo "# ${difference//$'\n'/$'\n'# }"
    failed=1
fi
number=$((number + 1))
if difference=$(diff <(tests/mutants/run.sh --classes) <(sed -n '/^### Bugs put back/,/^### Cases/p' docs/CONSENSUS.md | sed -nE 's/^(\| [0-9-]+ \| [^|]* \| [^|]* \|).*/\1/p')); then
    echo "ok $number - known bugs in docs/CONSENSUS.md"
else
    echo "not ok $number - known bugs in docs/CONSENSUS.md: < tests/mutants, > documented; paste the table of 'make sim-mutants'"
    echo "# ${difference//$'\n'/$'\n'# }"
    failed=1
fi
# The tests that it names exist.
missing=$(grep -ohE '`test_[a-z_]+(\.py)?`' docs/CONSENSUS.md docs/STORAGE.md | tr -d '`' | sort -u | while read -r name; do
    [ -e "tests/unit/$name.c" ] || [ -e "tests/system/$name" ] || echo "$name"
done)
number=$((number + 1))
if [ -z "$missing" ]; then
    echo "ok $number - tests named in docs/CONSENSUS.md and docs/STORAGE.md"
else
    echo "not ok $number - tests named in docs/CONSENSUS.md and docs/STORAGE.md: there is no" $missing
    failed=1
fi
# Every flag and verb stands in its manual page.
known() { # name, page; words on stdin
    local word missing=
    while read -r word; do
        sed 's/\\-/-/g; s/\\f[BIR]//g; s/^\.[A-Z]* *//; s/[",]//g' "$2" | tr -s ' ' | grep -qF -- "$word" || missing="$missing $word"
    done
    number=$((number + 1))
    if [ -z "$missing" ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1: $2 lacks$missing"
        failed=1
    fi
}
known "flags of greyd in its manual" docs/man/greyd.8 < <("$build/greyd" --help | grep -oE '^  --[a-z-]+' | tr -d ' ')
known "flags of grey-launch in its manual" docs/man/grey-launch.8 < <("$build/grey-launch" --help | grep -oE '^  --[a-z-]+' | tr -d ' ' | grep -v -- --version)
known "flags of grey-core in its manual" docs/man/grey-core.8 < <("$build/grey-core" --help | grep -oE '^  --[a-z-]+' | tr -d ' ')
known "flags of grey-tpm in its manual" docs/man/grey-tpm.8 < <("$build/grey-tpm" --help | grep -oE '^  --[a-z-]+' | tr -d ' ')
known "flags of grey-update in its manual" docs/man/grey-update.8 < <("$build/grey-update" --help | grep -oE '^  --[a-z-]+' | tr -d ' ')
known "verbs of greyctl in its manual" docs/man/greyctl.1 < <("$build/greyctl" --help | sed -n '/^verbs/,/^options/p' |
    sed -nE 's/^  ([a-z]+( [a-z]+)?)( [A-Z[].*| bash.*|  .*)?$/\1/p' | sed 's/ *$//')
known "options of greyctl in its manual" docs/man/greyctl.1 < <(
    for verb in 'kv put' 'kv get' 'kv list' 'kv watch' 'event send' 'event tail' 'site events' doctor 'config show'; do
        # shellcheck disable=SC2086  # a verb is one word or two
        "$build/greyctl" help $verb
    done | grep -oE '^  --[a-z-]+' | tr -d ' ' | sort -u)
exit $failed
