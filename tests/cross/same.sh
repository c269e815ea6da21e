#!/bin/bash
# The same log must give the same state on every architecture: a site of unlike gateways whose hashes differ fences a healthy one, and a
# snapshot from one would be refused by another.  Seeded histories (tests/unit/test_state.c, test_work.c) and simulated clusters (tests/sim)
# run here, on arm64 and on armhf under qemu-user, and everything that they say about the states is compared.  TAP.
set -u
cd "$(dirname "$0")/../.." || exit 1
said=$(mktemp -d)
here=$said/here
trap 'rm -rf "$said"' EXIT
read -ra tests <<<"${SAME:-test_state test_work}" # test_work takes a minute and more
say() { # BUILD RUNNER...: hashes of all that happened
    local build=$1
    shift
    for test in "${tests[@]}"; do
        "$@" "$build/tests/$test" 2>&1 | grep -oE 'state hash [0-9a-f]+' | sed "s/^/$test /"
    done
    "$@" "$build/sim" --seed 1 --count 4 --minutes 1 --hash | grep -v 'virtual seconds'
}
say "${BUILD:-build/amd64}" env >"$here"
number=1
rounds=${ROUNDS:-6} # of test_state
all=$((rounds + 4 + ${#tests[@]} - 1))
if [ "$(grep -c '^test_state state hash' "$here")" -ge "$rounds" ] && grep -q "^${tests[-1]} state hash" "$here" && [ "$(grep -c '[0-9a-f]\{16\}' "$here")" -ge $all ]; then
    echo "ok 1 - this machine tells $(grep -c '[0-9a-f]\{16\}' "$here") hashes"
else
    echo "not ok 1 - this machine tells too few hashes"
    sed 's/^/# /' "$here"
fi
say build/arm64 qemu-aarch64-static -L build/sysroot/arm64 >"$said/arm64" &
say build/armhf qemu-arm-static -L build/sysroot/armhf >"$said/armhf" &
wait
for arch in arm64 armhf; do
    number=$((number + 1))
    if difference=$(diff "$here" "$said/$arch"); then
        echo "ok $number - $arch comes to the same states"
    else
        echo "not ok $number - $arch comes to other states: < here, > there"
        echo "# ${difference//$'\n'/$'\n'# }"
    fi
done
echo "1..$number"
