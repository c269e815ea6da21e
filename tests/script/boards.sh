#!/bin/bash
# boards.sh BUILD: each folder of boards/ is whole, so that who builds for it, configures it or images it finds what boards/README.md
# promises.  TAP.
set -u
build=$1 number=0 failed=0
judge() { # BOARD, what is wrong
    local wrong=$2
    number=$((number + 1))
    if [ -z "$wrong" ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        echo "# ${wrong//$'\n'/$'\n'# }"
        failed=1
    fi
}
value() { sed -nE "s/^$2 :=( (.*))?$/\2/p" "$1"; }
look() {
    local board=$1 file word wrong keys
    for file in README.md build.mk profile.yaml image.mk; do
        [ -s "$board/$file" ] || echo "there is no $file"
    done
    [ "$(find "$board" -type f | wc -l)" -eq 4 ] || echo "it holds other files than README.md, build.mk, profile.yaml, image.mk"
    case "$(value "$board/build.mk" ARCH) $(value "$board/build.mk" TRIPLE)" in
    "amd64 x86_64-linux-gnu" | "arm64 aarch64-linux-gnu" | "armhf arm-linux-gnueabihf") ;;
    *) echo "build.mk: ARCH and TRIPLE do not belong together" ;;
    esac
    for word in CPU_FLAGS HARDEN_FLAGS; do
        grep -q "^$word :=" "$board/build.mk" || echo "build.mk does not say $word"
    done
    if [ -z "$(value "$board/build.mk" CPU_FLAGS)" ]; then # it is built where all boards of its architecture without such flags are
        case $(value "$board/build.mk" ARCH) in amd64) wrong=generic-amd64 ;; *) wrong=qemu-$(value "$board/build.mk" ARCH) ;; esac
        [ "$(value "$board/build.mk" HARDEN_FLAGS)" = "$(value "boards/$wrong/build.mk" HARDEN_FLAGS)" ] || echo "build.mk: without CPU_FLAGS, HARDEN_FLAGS are those of $wrong"
    fi
    for word in KERNEL_PACKAGE BOOT CONSOLE WATCHDOG_DRIVER BOOT_MB ROOT_MB DATA_MB_MIN; do
        [ -n "$(value "$board/image.mk" "$word")" ] || echo "image.mk does not say $word"
    done
    for word in DEVICE_TREE BOOT_PACKAGES MODULES TPM_DEVICE TPM_PCRS; do
        grep -q "^$word :=" "$board/image.mk" || echo "image.mk does not say $word"
    done
    wrong=$("$build/greyd" --check-config --print --profile "$board/profile.yaml" --config /dev/null 2>&1) || echo "$wrong"
    grep 'without effect' <<<"$wrong"
    keys=$(grep -oE "^[a-z_.]+: .*# $board/profile.yaml:" <<<"$wrong" | cut -d: -f1)
    for word in storage.cache_kb hardware.memory_budget_mb hardware.temperature_max_celsius hardware.watchdog.storage_stall_secs; do
        grep -qxF "$word" <<<"$keys" || echo "profile.yaml does not say $word"
    done
}
for board in boards/*/; do
    judge "$(basename "$board")" "$(look "${board%/}")"
done
# Who mistypes a board would else get a build for this machine, and "Nothing to be done".
judge "a board that is not there is refused, with those that are" "$(make --no-print-directory -n BOARD=no-such-board all 2>&1 | grep -q 'no-such-board: there are .*raspberrypi4' || echo 'make BOARD=no-such-board went on')"
judge "an architecture that is not the board's is refused" "$(make --no-print-directory -n BOARD=raspberrypi4 ARCH=armhf all 2>&1 | grep -q 'ARCH=armhf is not what BOARD=raspberrypi4 is' || echo 'make BOARD=raspberrypi4 ARCH=armhf went on')"
echo "1..$number"
exit "$failed"
