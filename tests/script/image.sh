#!/bin/bash
# image.sh BOARD ARCH IMAGE: if this fails, a card that was written with the image of a board does not start there, or carries what only one gateway
# may have.  Looks at IMAGE (a folder of build/image/) without starting it, as the board's loader and a PC of an engineer would.  TAP.
set -u
board=$1 arch=$2 image=$3
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C
disk=$image/disk.img
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0 failed=0
[ -s "$disk" ] || {
    echo "not ok 1 - there is no $disk"
    exit 1
}
recipe() { sed -nE "s/^$1 :=( (.*))?$/\\2/p" "boards/$board/image.mk"; }
judge() { # sentence, what is wrong
    number=$((number + 1))
    if [ -z "$2" ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        echo "# ${2//$'\n'/$'\n'# }"
        failed=1
    fi
}
part() { # name: begin and size in sectors
    sfdisk --dump "$disk" 2>/dev/null | grep -F "name=\"$1\"" | sed -E 's/.*start= *([0-9]+), size= *([0-9]+).*/\1 \2/'
}
take() { # name: its bytes, in a file
    local from count
    read -r from count <<<"$(part "$1")"
    dd if="$disk" of="$work/$1" bs=1M skip=$((from / 2048)) count=$((count / 2048)) conv=sparse status=none
}
boot() { mtype -i "$disk@@1M" "::$1" 2>/dev/null; }

names=$(sfdisk --dump "$disk" 2>/dev/null | sed -n 's/.*name="\([^"]*\)".*/\1/p' | paste -sd ' ')
judge "five partitions: boot, state, two slots, data" "$([ "$names" = "boot state slot-a slot-b data" ] || echo "they are: $names")"
sizes=$(for name in boot slot-a slot-b data; do echo $(($(part $name | cut -d ' ' -f 2) / 2048)); done | paste -sd ' ')
judge "as large as image.mk says" "$([ "$sizes" = "$(recipe BOOT_MB) $(recipe ROOT_MB) $(recipe ROOT_MB) $(recipe DATA_MB_MIN)" ] || echo "MiB: $sizes")"

# --- What the loader finds. ---------------------------------------------------------------------------------------------------------------
if [ "$(recipe BOOT)" = efi ]; then
    boot EFI/BOOT/BOOTX64.EFI >"$work/program"
    x86_64-linux-gnu-objcopy --dump-section .linux="$work/kernel" --dump-section .initrd="$work/packed" --dump-section .cmdline="$work/cmdline" "$work/program" "$work/rest"
else
    boot kernel >"$work/kernel"
    boot initramfs >"$work/packed"
fi
case $arch in amd64) magic=$(od -An -tx1 -j 514 -N 4 "$work/kernel" | tr -d ' ') want=48647253 ;; arm64) magic=$(od -An -tx1 -j 56 -N 4 "$work/kernel" | tr -d ' ') want=41524d64 ;;
*) magic=$(od -An -tx1 -j 36 -N 4 "$work/kernel" | tr -d ' ') want=18286f01 ;; esac
judge "the kernel is one for $arch" "$([ "$magic" = "$want" ] || echo "its mark is '$magic', not $want")"
gzip -dc "$work/packed" 2>/dev/null | cpio -t --quiet >"$work/initramfs" 2>/dev/null
judge "the initramfs has init, slot and the modules of the board" "$(
    for name in init bin/slot bin/busybox lib/modules/order; do grep -qx "$name" "$work/initramfs" || echo "there is no $name"; done
    [ "$(grep -c '\.ko$' "$work/initramfs")" -ge 3 ] || echo "it has no modules"
)"
tree=$(recipe DEVICE_TREE)
tree=${tree##*/}
console=console=$(recipe CONSOLE)
if [ "$(recipe BOOT)" = raspi ]; then
    boot config.txt | tr -d '\r' >"$work/config.txt"
    judge "the firmware finds its own files and ours" "$(
        for name in LICENCE.broadcom bootcode.bin start.elf fixup.dat start4.elf fixup4.dat cmdline.txt "$tree" $(recipe OVERLAYS | sed 's/[^ ]\{1,\}/overlays\/&.dtbo/g'); do
            [ "$(boot "$name" | head -c 1 | wc -c)" = 1 ] || echo "there is no $name"
        done
        for line in kernel=kernel "initramfs initramfs followkernel" "device_tree=$tree" upstream_kernel=1 enable_uart=1 $([ "$arch" = arm64 ] && echo arm_64bit=1); do
            grep -qxF "$line" "$work/config.txt" || echo "config.txt does not say $line"
        done
        [ "$(boot cmdline.txt | wc -l)" = 1 ] || echo "cmdline.txt is not one line"
        boot cmdline.txt | grep -qE "^$console( |\$)" || echo "cmdline.txt does not say $console"
    )"
    boot "$tree" >"$work/tree"
    judge "each overlay fits the device tree" "$(
        for name in $(recipe OVERLAYS); do
            boot "overlays/$name.dtbo" >"$work/overlay"
            fdtoverlay -i "$work/tree" -o "$work/merged" "$work/overlay" 2>&1
            dtc -q -I dtb -O dts "$work/merged" | grep -q 'infineon,slb9670' || echo "$name adds nothing"
        done
    )"
    entries=$(for at in 446 462; do od -An -tx1 -j $((at + 4)) -N 1 "$disk" | tr -d ' \n'; done)
    start=$(od -An -tu4 -j $((446 + 8)) -N 4 "$disk" | tr -d ' ')
    judge "who knows no GPT finds the boot partition in the old table" "$([ "$entries $start" = "0cee 2048" ] || echo "types $entries, begin $start")"
elif [ "$(recipe BOOT)" = efi ]; then
    judge "the program for EFI tells the kernel its console" "$(grep -qE "^$console( |\$)" "$work/cmdline" || echo "it says: $(cat "$work/cmdline")")"
else
    boot extlinux/extlinux.conf >"$work/extlinux.conf"
    judge "U-Boot is told kernel, initramfs and console" "$(
        for line in "linux /kernel" "initrd /initramfs" ${tree:+"fdt /$tree"}; do grep -qxF "  $line" "$work/extlinux.conf" || echo "extlinux.conf does not say $line"; done
        grep -qE "^  append $console( |\$)" "$work/extlinux.conf" || echo "extlinux.conf does not say $console"
    )"
fi

# --- The roots and the data. --------------------------------------------------------------------------------------------------------------
for name in slot-a slot-b data; do
    take $name
done
judge "both slots hold the same root, without a journal" "$(
    cmp "$work/slot-a" "$work/slot-b" 2>&1
    dumpe2fs -h "$work/slot-a" 2>/dev/null | grep -q has_journal && echo "it has one: mounting it would write"
)"
judge "the file systems are sound" "$(for name in slot-a data; do e2fsck -fn "$work/$name" >"$work/said" 2>&1 || tail -n 3 "$work/said"; done)"
list() { debugfs -R "ls -p $2" "$work/$1" 2>/dev/null | cut -d / -f 6 | grep -vx -e '.' -e '..' -e lost+found -e ''; }
declare -A machine=([amd64]=".*X86-64" [arm64]=AArch64 [armhf]=ARM)
judge "the agent and its libraries are there, for $arch" "$(
    for program in greyd greyctl grey-launch grey-update grey-tpm; do
        debugfs -R "dump /usr/bin/$program $work/program" "$work/slot-a" 2>/dev/null
        readelf -h "$work/program" 2>/dev/null | grep -qE "Machine: +${machine[$arch]}\$" || echo "/usr/bin/$program is not for $arch"
        loader=$(readelf -p .interp "$work/program" 2>/dev/null | sed -n 's/.* \(\/[^ ]*\)$/\1/p')
        debugfs -R "stat $loader" "$work/slot-a" 2>/dev/null | grep -q '^Inode' || echo "$program is started by $loader, which is not there"
        for library in $(objdump -p "$work/program" 2>/dev/null | awk '$1 == "NEEDED" {print $2}') libmosquitto.so.1 libtss2-tcti-device.so.0; do
            list slot-a /lib | grep -qx "$library" || echo "$program needs $library"
        done
    done
)"
secrets=$({ list data /etc; list data /grey/identity; mdir -b -i "$disk@@1M" :: 2>/dev/null; } | grep -E 'enroll|\.key$|\.crt$|greyd\.yaml')
judge "nothing in it is secret or one gateway's own" "$secrets"
judge "the next gateway's key is not in the image: identity is its user's alone" "$(debugfs -R 'stat /grey/identity' "$work/data" 2>/dev/null | grep -qE 'Mode: +0700' || echo "its mode is another")"
echo "1..$number"
exit $failed
