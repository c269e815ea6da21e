#!/bin/bash
# run.sh BUILD: boots an emulated machine with control groups of version 2 and runs there what needs them, on this machine's programs and
# build, which it sees read-only.  TAP.  The kernel is Debian's, unpacked below BUILD/vm and never installed; needs deps.sh vm.
set -eu
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
vm=$build/vm
mkdir -p "$vm"

if ! ls "$vm"/kernel/boot/vmlinuz-* >/dev/null 2>&1; then
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ {print $2; exit}')
    (cd "$vm" && apt-get download -qq "$package" 2>/dev/null && rm -rf kernel && dpkg-deb -x "$package"_*.deb kernel && rm -f "$package"_*.deb)
fi
kernel=$(ls "$vm"/kernel/boot/vmlinuz-*)
modules=$(echo "$vm"/kernel/lib/modules/*)

# An initramfs of busybox and the modules that it takes to see this machine's files.
rm -rf "$vm/root"
mkdir -p "$vm"/root/{bin,dev,proc,sys,modules,host,upper,new}
cp /bin/busybox "$vm/root/bin/busybox"
needs=$modules/modules.dep
[ -e "$needs" ] || busybox depmod -b "$vm/kernel" "$(basename "$modules")"
order=()
want() { # with what it needs, before it
    local line file
    line=$(grep -E "/$1\.ko[^:]*:" "$needs" | head -n 1)
    [ -n "$line" ] || return 0 # built in
    for file in $(printf '%s\n' ${line#*:} | tac) ${line%%:*}; do
        [ -e "$vm/root/modules/$(basename "$file")" ] && continue
        cp "$modules/$file" "$vm/root/modules/"
        order+=("$(basename "$file")")
    done
}
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
(cd "$vm/root" && find . | cpio -o -H newc --quiet | gzip -1 >"$vm/initrd")

timeout "${VM_TIMEOUT:-400}" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -nographic -no-reboot -nic none -kernel "$kernel" \
    -initrd "$vm/initrd" -append "console=ttyS0 quiet panic=-1 psi=1" -fsdev "local,id=h,path=/,security_model=none,readonly=on,multidevs=remap" \
    -device virtio-9p-pci,fsdev=h,mount_tag=host </dev/null >"$vm/console" 2>&1 || true
tr -d '\r' <"$vm/console" | grep -aE '^(ok|not ok|#) ' || true
tr -d '\r' <"$vm/console" | grep -aqx 'vm: end 0' || {
    echo "not ok 999 - the emulated machine did not come to a good end"
    tail -n 40 "$vm/console" | sed 's/^/# /'
    exit 1
}
