#!/bin/bash
# run.sh BUILD: boots an emulated machine with control groups of version 2 and runs there what needs them, on this machine's programs and
# build, which it sees read-only.  TAP.  The kernel is Debian's, unpacked below BUILD/vm and never installed; needs deps.sh vm.
set -eu
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
vm=$build/vm
. "$(dirname "$0")/machine.sh"

fetch_kernel linux-image-amd64

# An initramfs of busybox and the modules that it takes to see this machine's files.
rm -rf "$vm/root"
mkdir -p "$vm"/root/{bin,dev,proc,sys,modules,host,upper,new}
cp /bin/busybox "$vm/root/bin/busybox"
for module in virtio_pci 9pnet_virtio 9p overlay; do want "$module"; done
cat >"$vm/root/init" <<END
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
for m in ${order[*]}; do /bin/busybox insmod /modules/\$m; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 host /host
/bin/busybox mount -t tmpfs tmpfs /upper
/bin/busybox mkdir /upper/up /upper/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/upper/up,workdir=/upper/work overlay /new
for f in proc sysfs; do /bin/busybox mount -t \$f \$f /new/\$( [ \$f = proc ] && echo proc || echo sys ); done
/bin/busybox mount -t devtmpfs dev /new/dev
/bin/busybox mount -t tmpfs tmpfs /new/tmp
/bin/busybox mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
/bin/busybox ip link set lo up
# Its root, not a changed one: the kernel lets nobody in a chroot make user namespaces.
exec /bin/busybox switch_root /new /bin/bash -c 'cd "$root" && tests/vm/inside.sh "$build"; echo "vm: end \$?"; "$vm/root/bin/busybox" reboot -f'
END
chmod +x "$vm/root/init"
boot -fsdev "local,id=h,path=/,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=h,mount_tag=host
