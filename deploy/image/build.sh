#!/bin/bash
# build.sh BOARD ARCH DEBS OUT [SEED]: a bootable disk image OUT/disk.img of the packages in DEBS, as its image.mk says; with
# OUT/kernel, OUT/initramfs and OUT/slot.img, the root alone as an update brings it.  SEED: a folder that the data partition begins with
# (etc/greyd.yaml, etc/default).  As root, for the owners of files; nothing foreign runs but busybox, which is asked for its commands.
# Nothing in an image is secret or one gateway's own: that comes with enroll.conf (docs/INSTALL.md).
#
#     boot    FAT: kernel, initramfs, device tree, and what the loader reads: extlinux.conf (U-Boot), the firmware of a Raspberry Pi
#             with its config.txt and cmdline.txt, or one program for the firmware of a PC (EFI); enroll.conf is laid here
#     state   which slot to start: two sectors, written in turn (deploy/image/slot)
#     slot-a  slot-b   the root, never written while it runs
#     data    ext4: configuration, identity and data; the only one that is written
set -euo pipefail
export LC_ALL=C
umask 022
[ $# -ge 4 ] || {
    echo "usage: build.sh BOARD ARCH DEBS OUT [SEED]" >&2
    exit 2
}
board=$1 arch=$2 debs=$3 out=$4 seed=${5:-}
here=$(dirname "$0")
recipe() { sed -nE "s/^$1 :=( (.*))?$/\\2/p" "boards/$board/image.mk"; }
kernel=$(recipe KERNEL_PACKAGE) modules="$(recipe MODULES) $(recipe WATCHDOG_DRIVER) ext4 vfat nls_cp437 nls_ascii" slot_mib=$(recipe ROOT_MB) data_mib=$(recipe DATA_MB_MIN)
console=$(recipe CONSOLE) boot_mib=$(recipe BOOT_MB) boot=$(recipe BOOT) loader=$(recipe BOOT_PACKAGES) tree=$(recipe DEVICE_TREE)
overlays=$(recipe OVERLAYS)
arguments="console=$console panic=5 quiet"
PATH=$PATH:/usr/sbin:/sbin
case $boot in u-boot | vendor | raspi | efi) ;; *)
    echo "build.sh: no image for $board: what is written here is started by U-Boot, a Raspberry Pi or EFI, not by '$boot'" >&2
    exit 1
    ;;
esac
mkdir -p "$out"

# --- What comes from Debian: unpacked, not installed, and kept ---------------------------------------------------------------------------
include=$(for package in grey-agent grey-tpm; do dpkg-deb -f "$debs"/${package}_*.deb Depends | tr ',' '\n'; done | grep -v '|' | sed 's/(.*//; s/ //g' | grep -v '^grey-' | sort -u | paste -sd ,),busybox-static,e2fsprogs,$kernel${loader:+,${loader// /,}}
components=main$([ "$boot" != raspi ] || echo ,non-free-firmware) # the Raspberry Pi does not start without its makers' firmware
pool=build/image/pool-$arch-$(sha256sum <<<"$include" | cut -c 1-12)
if [ ! -d "$pool" ]; then
    echo "unpacking kernel and libraries for $board"
    mkdir -p build/image
    debian=$(. /etc/os-release && echo "${VERSION_CODENAME:?this machine does not run a Debian release}")
    unpack() { # more of mmdebstrap's arguments
        rm -rf "$pool.new"
        mmdebstrap --variant=extract --architectures="$arch" --include="$include" --components="$components" "$debian" "$pool.new" "$@" >"$out/mmdebstrap.log" 2>&1
    }
    if ! unpack; then # the index of the security suite for armhf does not always fit its packages
        echo "the security suite cannot be read for $arch just now; going on with main and updates"
        unpack "deb http://deb.debian.org/debian $debian ${components//,/ }" "deb http://deb.debian.org/debian $debian-updates ${components//,/ }" || {
            tail -n 20 "$out/mmdebstrap.log" >&2
            exit 1
        }
    fi
    mv "$pool.new" "$pool"
fi
release=$(basename "$pool"/lib/modules/*)
printf '%s\n' "$PWD/$pool" "$release" >"$out/pool" # for tests
cp "$pool/boot/vmlinuz-$release" "$out/kernel"
[ -f "$pool/lib/modules/$release/modules.dep" ] || depmod -b "$pool" "$release"

# --- The root of a slot --------------------------------------------------------------------------------------------------------------------
root=$out/root
rm -rf "$root" && mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,data,etc,var/lib/grey,usr/bin,usr/sbin,usr/lib}
commands() { # folder: busybox and its names
    install -m 0755 "$pool/bin/busybox" "$1/bin/busybox"
    local name
    for name in $("qemu-${TRIPLE%%-*}-static" "$pool/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$1/bin/$name"
    done
}
modules() { # folder: those of the board and what they need, in the order to load them
    mkdir -p "$1/lib/modules"
    local name
    # shellcheck disable=SC2086  # words
    modprobe -d "$pool" -S "$release" --show-depends -a $modules | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r name; do
        cp "$name" "$1/lib/modules/"
        basename "$name"
    done >"$1/lib/modules/order"
}
libraries() { # program or library: copied with what it needs
    local name at
    for name in $(objdump -p "$1" | awk '$1 == "NEEDED" {print $2}') $(readelf -p .interp "$1" 2>/dev/null | sed -n 's/.*\/\(ld-linux[^ ]*\).*/\1/p'); do
        [ ! -e "$root/lib/$name" ] || continue
        at=$(find "$pool/lib" "$pool/usr/lib" -name "$name" | head -n 1)
        [ -n "$at" ] || {
            echo "build.sh: nothing unpacked has $name" >&2
            exit 1
        }
        install -m 0755 "$(readlink -f "$at")" "$root/lib/$name"
        libraries "$root/lib/$name"
    done
}
[ "$arch" != amd64 ] || ln -s lib "$root/lib64" # where its programs look for their loader
commands "$root"
for package in grey-agent grey-ctl grey-tpm; do
    dpkg-deb -x "$debs/${package}"_*_"$arch".deb "$root"
done
rm -rf "$root"/usr/share "$root"/etc/grey "$root"/etc/default "$root"/lib/systemd "$root"/usr/lib/{sysusers.d,tmpfiles.d}
install -m 0755 "$(find "$pool/sbin" "$pool/usr/sbin" -name e2fsck | head -n 1)" "$root/sbin/e2fsck"
for program in "$root"/usr/bin/grey* "$root/sbin/e2fsck"; do
    libraries "$program"
done
for name in libmosquitto.so.1 libtss2-tcti-device.so.0; do # opened by name: when a gateway leads, and where there is a TPM
    at=$(find "$pool/usr/lib" -name "$name")
    install -m 0755 "$(readlink -f "$at")" "$root/lib/$name" && libraries "$root/lib/$name"
done
cp -a "$here"/root/. "$root/"
install -m 0755 "$here/slot" "$root/sbin/slot"
mkdir -p "$root/usr/lib/grey-image" && echo "$board" >"$root/usr/lib/grey-image/board" # of which bundles are taken
install -m 0644 "boards/$board/profile.yaml" "$root/usr/lib/grey-image/profile.yaml"
ln -s /data/etc "$root/etc/grey"
chown -R 0:0 "$root"
make_slot() { # file
    rm -f "$1" && truncate -s "${slot_mib}M" "$1"
    mke2fs -q -t ext4 -O '^has_journal' -m 0 -L grey-root -d "$root" "$1"
}
make_slot "$out/slot.img"

# --- initramfs: finds the disk, chooses the slot -------------------------------------------------------------------------------------------
first=$out/initramfs.d
rm -rf "$first" && mkdir -p "$first"/{bin,dev,proc,sys,root}
commands "$first"
modules "$first"
install -m 0755 "$here/init" "$first/init"
install -m 0755 "$here/slot" "$first/bin/slot"
chown -R 0:0 "$first"
(cd "$first" && find . | sort | cpio -o -H newc --quiet) | gzip -9n >"$out/initramfs"

# --- The disk --------------------------------------------------------------------------------------------------------------------------------
# What the loader reads, as a folder.
fat=$out/boot
rm -rf "$fat" && mkdir -p "$fat"
cp "$out/kernel" "$out/initramfs" "$fat/"
if [ -n "$tree" ]; then
    cp "$(find "$pool/usr/lib/linux-image-$release" -path "*/$tree")" "$fat/"
fi
if [ "$boot" = raspi ]; then
    cp "$pool"/usr/lib/raspi-firmware/{bootcode.bin,start*.elf,fixup*.dat} "$fat/"
    cp "$pool/usr/share/doc/raspi-firmware/copyright" "$fat/LICENCE.broadcom"
    echo "$arguments" >"$fat/cmdline.txt"
    {
        echo "# docs/INSTALL.md, section 4; the keys are those of the firmware: https://www.raspberrypi.com/documentation/computers/config_txt.html"
        [ "$arch" != arm64 ] || echo "arm_64bit=1"
        printf '%s\n' kernel=kernel "initramfs initramfs followkernel" "device_tree=${tree##*/}" upstream_kernel=1 enable_uart=1
    } >"$fat/config.txt"
    for name in $overlays; do # built, for who has the part; switched on by a line dtoverlay=NAME
        mkdir -p "$fat/overlays"
        dtc -q -@ -I dts -O dtb -o "$fat/overlays/$name.dtbo" "$here/overlays/$name.dts"
    done
elif [ "$boot" = efi ]; then # what a removable disk is started by: UEFI specification 2.10, 3.5.1.1
    mkdir -p "$fat/EFI/BOOT"
    printf '%s' "$arguments" >"$out/cmdline"
    printf 'ID=grey-edge\nPRETTY_NAME="Grey Edge"\n' >"$out/os-release"
    "$TRIPLE-objcopy" --add-section .osrel="$out/os-release" --change-section-vma .osrel=0x20000 --add-section .cmdline="$out/cmdline" --change-section-vma .cmdline=0x30000 \
        --add-section .linux="$out/kernel" --change-section-vma .linux=0x2000000 \
        --add-section .initrd="$out/initramfs" --change-section-vma .initrd=$((0x2000000 + $(stat -c %s "$out/kernel") + 0xfff & ~0xfff)) \
        "$pool/usr/lib/systemd/boot/efi/linuxx64.efi.stub" "$fat/EFI/BOOT/BOOTX64.EFI"
    rm "$out/cmdline" "$out/os-release" "$fat/kernel" "$fat/initramfs"
else
    [ "$boot" != u-boot ] || cp "$pool/usr/lib/u-boot/qemu_${arch/hf/}/u-boot.bin" "$out/"
    mkdir -p "$fat/extlinux"
    {
        printf '%s\n' "default grey" "timeout 1" "label grey" "  linux /kernel" "  initrd /initramfs"
        [ -z "$tree" ] || echo "  fdt /${tree##*/}"
        echo "  append $arguments"
    } >"$fat/extlinux/extlinux.conf"
fi
mib() { echo $(($1 * 1024 * 1024)); }
disk=$out/disk.img
rm -f "$disk" && truncate -s "$((1 + boot_mib + 1 + 2 * slot_mib + data_mib + 1))M" "$disk"
sfdisk -q "$disk" <<EOF
label: gpt
start=1MiB, size=${boot_mib}MiB, type=U, name=boot, bootable
size=1MiB, type=L, name=state
size=${slot_mib}MiB, type=L, name=slot-a
size=${slot_mib}MiB, type=L, name=slot-b
size=${data_mib}MiB, type=L, name=data
EOF
if [ "$boot" = raspi ]; then # a Raspberry Pi 3 knows no GPT: the boot partition stands in the old table as well, before what guards the new one
    little() { printf '%b' "$(printf '\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24)))"; }
    dd if="$disk" of="$out/guard" bs=1 skip=446 count=16 status=none
    {
        printf '\x80\xfe\xff\xff\x0c\xfe\xff\xff'
        little 2048
        little $((boot_mib * 2048))
        cat "$out/guard"
    } | dd of="$disk" bs=1 seek=446 conv=notrunc status=none
    rm "$out/guard"
fi
mformat -i "$disk@@1M" -T $((boot_mib * 2048)) -h 64 -s 32 -v GREY-BOOT ::
mcopy -s -i "$disk@@1M" "$fat"/* ::
at=$((1 + boot_mib + 1))
for _ in a b; do
    dd if="$out/slot.img" of="$disk" bs=1M seek=$at conv=notrunc,sparse status=none
    at=$((at + slot_mib))
done
data=$out/data
rm -rf "$data" && mkdir -p "$data/etc" "$data/grey/identity"
[ -z "$seed" ] || cp -a "$seed"/. "$data/"
chown -R 0:0 "$data" && chown -R 900:900 "$data/grey" && chmod 0700 "$data/grey" "$data/grey/identity"
mke2fs -q -t ext4 -m 0 -L grey-data -d "$data" -E "offset=$(mib $at)" "$disk" "${data_mib}M" 2>/dev/null
rm -rf "$root" "$first" "$data" "$fat"
echo "$disk"
