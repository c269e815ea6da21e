#!/bin/bash
# base.sh DEBS: makes in build/install what the machines of by_the_book.py start from: a Debian 12 as an engineer finds it (debian.img), the kernel
# that boots it (kernel, initrd), and the key that opens it (key).  What our packages need is not installed there: it lies in the machine as a mirror of
# Debian would offer it, so apt-get finds it without a network.  Downloads are kept; as root.
set -euo pipefail
debs=$1 work=build/install suite=bookworm
vm=$work
. "$(dirname "$0")/../vm/machine.sh"
# What our packages depend on, of alternatives the first, and what docs/INSTALL.md has engineers install beside.
offered=$(for package in "$debs"/*.deb; do dpkg-deb -f "$package" Depends; done | tr ',' '\n' | sed 's/|.*//; s/(.*//; s/ //g' | grep -v '^grey-' | sort -u | tr '\n' ' ')
offered="$offered mosquitto crun"
fetch_kernel linux-image-cloud-amd64
image=$work/debian-$( (echo "$offered" "$modules" && cat "$0") | sha256sum | cut -c 1-12).img
[ -s "$work/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$work/key"
if [ ! -s "$image" ]; then
    tree=$work/tree
    rm -rf --one-file-system "$tree" "$work"/debian-*.img
    # What a Debian has without a task chosen, and a way in.
    mmdebstrap --variant=important --include=openssh-server,dbus --skip=cleanup/apt/lists --aptopt='APT::Get::Assume-Yes "true"' \
        --customize-hook='chroot "$1" apt-get install --download-only --reinstall '"$offered"'' \
        --customize-hook='mkdir "$1/srv/debian" && mv "$1"/var/cache/apt/archives/*.deb "$1/srv/debian/"' \
        --customize-hook='cd "$1/srv/debian" && dpkg-scanpackages --multiversion . >Packages 2>/dev/null' \
        --customize-hook='echo "deb [trusted=yes] file:/srv/debian ./" >"$1/etc/apt/sources.list" && rm -rf "$1"/var/lib/apt/lists/* && chroot "$1" apt-get update' \
        "$suite" "$tree" >"$work/mmdebstrap.log" 2>&1 || {
        tail -n 30 "$work/mmdebstrap.log"
        exit 1
    }
    rm -rf "$tree/lib/modules" && mkdir -p "$tree/lib/modules" && cp -a "$modules" "$tree/lib/modules/"
    chroot "$tree" depmod "$(basename "$modules")"
    # On a loaded machine many begin to come in, and few get there in time.
    printf 'MaxStartups 100\nLoginGraceTime 60\n' >"$tree/etc/ssh/sshd_config.d/test.conf"
    # Debian's own timers would come up in the middle of a test.
    for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit"
    done
    echo '/dev/vda / ext4 errors=remount-ro 0 1' >"$tree/etc/fstab"
    truncate -s 2G "$image.new"
    mke2fs -q -t ext4 -L root -d "$tree" "$image.new"
    rm -rf --one-file-system "$tree"
    mv "$image.new" "$image"
fi
rm -rf "$work/root" && mkdir -p "$work"/root/{bin,dev,proc,modules,new} && cp /bin/busybox "$work/root/bin/busybox"
for module in virtio_pci virtio_blk; do want "$module"; done
cat >"$work/root/init" <<END2
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for m in ${order[*]}; do /bin/busybox insmod /modules/\$m; done
until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 -o ro /dev/vda /new
/bin/busybox umount /dev /proc
exec /bin/busybox switch_root /new /sbin/init
END2
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc --quiet >"$OLDPWD/$work/initrd")
ln -f "$kernel" "$work/kernel"
ln -sf "$(basename "$image")" "$work/debian.img"
