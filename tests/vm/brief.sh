#!/bin/bash
# brief.sh BUILD: what of run.sh belongs to every change: boots an emulated machine with control groups of version 2 and a disk, and nothing else in
# it but our programs and what they load.  Bounds on processors, memory, processes and disks, namespaces, and a site of one gateway that says of
# a task that it was killed for its memory.  TAP.  Some 30 s, most of them the machine's.  Where there is no emulator, or no kernel is to be had, it is
# skipped and says why; VM_REQUIRED=1: then that is a failure.
set -eu
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
vm=$build/vm-brief

skip() {
    [ -z "${VM_REQUIRED:-}" ] || { echo "not ok 1 - control groups of version 2, in an emulated machine: $1" && exit 1; }
    echo "ok 1 - control groups of version 2, in an emulated machine # SKIP $1"
    exit 0
}
[ "$(uname -m)" = x86_64 ] || skip "the emulated machine is an amd64, this is none"
for tool in qemu-system-x86_64 busybox cpio; do
    command -v $tool >/dev/null || skip "$tool is not here (deploy/deps.sh vm installs it)"
done
. "$root/tests/vm/machine.sh"
fetch_kernel linux-image-cloud-amd64 kernel/drivers/virtio kernel/drivers/block/virtio_blk.ko modules.order modules.builtin modules.builtin.modinfo ||
    skip "the package linux-image-cloud-amd64 cannot be fetched: is there a network?"

rm -rf "$vm/root"
mkdir -p "$vm"/root/{bin,dev,etc,proc,sys,modules,tmp,usr/bin,var}
cp /bin/busybox "$vm/root/bin/busybox"
for module in virtio_pci virtio_blk; do want "$module"; done
# Our programs, and of the system's what tests look into closely; with what they load.
tools="/bin/dd /usr/bin/setpriv /usr/bin/unshare" # whose options busybox has not
programs="greyd greyctl grey-launch tests/test_cage tests/test_apart"
for name in $programs; do
    strip -o "$vm/root/bin/$(basename "$name")" "$build/$name"
done
cp -L /bin/dash "$vm/root/bin/sh"
cp -L $tools "$vm/root/bin/"
(cd "$build" && ldd $programs /bin/dash $tools) | grep -oE '/[^ ]+\.so[^ ]*' | sort -u | while read -r library; do
    install -D "$library" "$vm/root$library"
done
busybox --list | while read -r name; do
    [ -e "$vm/root/bin/$name" ] || ln -s busybox "$vm/root/bin/$name"
done
# pgrep -f PATTERN, which busybox has not, and procps would bring much.
cat >"$vm/root/bin/pgrep" <<'END'
#!/bin/sh
for f in /proc/[0-9]*/cmdline; do tr '\0' ' ' <"$f" 2>/dev/null | sed 's/ $//' | grep -q "$2" && exit 0; done
exit 1
END
chmod +x "$vm/root/bin/pgrep"
printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$vm/root/etc/passwd"
cp "$root/tests/vm/inside-brief.sh" "$vm/root/bin/inside"
cat >"$vm/root/init" <<END
#!/bin/busybox sh
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
for m in ${order[*]}; do insmod /modules/\$m; done
mount -t devtmpfs dev /dev
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
mkdir /newroot && mount -t tmpfs new /newroot && cp -a /bin /lib* /usr /etc /var /newroot/ && mkdir /newroot/proc /newroot/sys /newroot/dev /newroot/tmp
for f in proc sys dev; do mount -o move /\$f /newroot/\$f; done
# Its root, not the kernel's first one: that cannot be left for another, which namespaces of mounts want.
exec switch_root /newroot /bin/sh -c '/bin/sh /bin/inside; echo "vm: end \$?"; reboot -f'
END
chmod +x "$vm/root/init"
truncate -s 64M "$vm/disk"
boot -drive "file=$vm/disk,if=virtio,format=raw,cache=unsafe"
