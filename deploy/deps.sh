#!/bin/bash
# deps.sh GROUP...: installs the Debian packages of a group when they are missing: build, run, test, vm, install, cuts, bench, cross, package, image.
# deps.sh --list GROUP: only names them; group libraries: what a build links, of each architecture.
# Needs root or sudo, and apt.  Does nothing, quickly, when all are there.
set -eu
libraries="libmbedtls-dev libmosquitto-dev libcbor-dev liblz4-dev libsqlite3-dev libpq-dev libyaml-dev libjansson-dev libsodium-dev libhttp-parser-dev libseccomp-dev libtss2-dev zlib1g-dev"
declare -A groups=(
    [libraries]="$libraries"
    [build]="build-essential pkg-config $libraries"
    [run]="mosquitto curl iproute2"
    [test]="libcmocka-dev clang libclang-rt-14-dev clang-format clang-tidy cppcheck openssl mosquitto mosquitto-clients curl iproute2 python3 python3-cryptography faketime postgresql swtpm swtpm-tools tpm2-tools crun busybox-static"
    [tpm]="swtpm swtpm-tools tpm2-tools"
    [vm]="qemu-system-x86 busybox-static cpio python3 gzip crun"
    [install]="mmdebstrap dpkg-dev e2fsprogs iproute2 openssh-client swtpm"
    [cross]="mmdebstrap gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf qemu-user-static python3 mosquitto"
    [cuts]="python3-fusepy fuse3 e2fsprogs mount"
    [package]="lintian mmdebstrap strace systemd zsh"
    [image]="mmdebstrap kmod device-tree-compiler cpio mtools fdisk e2fsprogs qemu-user-static qemu-system-arm qemu-system-x86 ovmf binutils mosquitto python3 swtpm swtpm-tools tpm2-tools"
    [bench]="etcd-server libraft-dev libuv1-dev iproute2 linux-perf python3 mosquitto-clients postgresql"
)
if [ "$1" = --list ]; then
    echo "${groups[${2:?usage: deps.sh --list GROUP}]:?no such group: $2}"
    exit 0
fi
missing=()
for group in "$@"; do
    for package in ${groups[$group]:?no such group: $group}; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "deps.sh: these packages are missing, and I am neither root nor is sudo here: ${missing[*]}" >&2
        exit 1
    }
    sudo=(sudo)
fi
command -v apt-get >/dev/null || {
    echo "deps.sh: no apt-get here; install by hand: ${missing[*]}" >&2
    exit 1
}
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# The mosquitto package would start a broker of its own on port 1883; ours is started by hand with our configuration.
policy=
if [ ! -e /usr/sbin/policy-rc.d ] && [ "$(id -u)" -eq 0 ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d && policy=1
fi
trap '[ -n "$policy" ] && rm -f /usr/sbin/policy-rc.d' EXIT
install=("${sudo[@]}" apt-get install -y -qq -o DPkg::Lock::Timeout=600 --no-install-recommends "${missing[@]}")
"${install[@]}" >/dev/null 2>&1 && exit 0
"${sudo[@]}" apt-get update -qq -o DPkg::Lock::Timeout=600
"${install[@]}" >/dev/null
