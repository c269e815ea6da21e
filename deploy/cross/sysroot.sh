#!/bin/bash
# sysroot.sh ARCH DIR: what a cross build for ARCH (arm64, armhf) needs of Debian's headers and libraries, unpacked into DIR.
# The packages are the libraries of `deploy/deps.sh build` and cmocka, of the release this machine runs, from its mirrors.  Nothing of this
# machine is changed (no multiarch) and nothing foreign runs.  Does nothing when DIR holds them already: the list stands in DIR.packages.
# On the armhf index of the security suite, which now and then does not fit its packages, see the second try below.
set -eu
arch=${1:?usage: sysroot.sh ARCH DIR} dir=${2:?usage: sysroot.sh ARCH DIR}
here=$(dirname "$0")
release=$(. /etc/os-release && echo "${VERSION_CODENAME:?this machine does not run a Debian release}")
packages="libc6-dev libgcc-12-dev libcmocka-dev $("$here/../deps.sh" --list libraries)"
list="$release $arch: $packages"
if [ "$(cat "$dir.packages" 2>/dev/null)" = "$list" ]; then
    exit 0
fi
mkdir -p "$(dirname "$dir")"
# Two makes at once (make -j check-cross beside make cross) prepare it once.
exec 9>"$dir.lock"
flock 9
if [ "$(cat "$dir.packages" 2>/dev/null)" = "$list" ]; then
    exit 0
fi
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 2>/dev/null |
    awk -v release="$release" '$2 == release && $3 == "main" {print $1; exit}')
mirror=${mirror:-http://deb.debian.org/debian}
security=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 2>/dev/null |
    awk -v release="$release-security" '$2 == release {print $1; exit}')
security=${security:-http://deb.debian.org/debian-security}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
unpack() {
    rm -rf "$dir" "$dir.new"
    printf '%s\n' "$@" | mmdebstrap --quiet --variant=extract --architectures="$arch" --include="${packages// /,}" \
        --skip=check/empty --aptopt='Acquire::Retries "3"' "$release" "$dir.new" - >"$log" 2>&1
}
echo "unpacking $arch libraries of Debian $release into $dir"
main="deb $mirror $release main" updates="deb $mirror $release-updates main"
if ! unpack "$main" "$updates" "deb $security $release-security main"; then
    echo "the security suite does not resolve for $arch just now; going on with main and updates:"
    tail -n 3 "$log"
    unpack "$main" "$updates" || { sleep 30 && unpack "$main" "$updates"; } || { # a mirror that is being updated
        tail -n 20 "$log" >&2
        exit 1
    }
fi
# Links with absolute targets would lead into this machine's own libraries.
find "$dir.new" -type l -lname '/*' | while read -r link; do
    ln -sfnr "$dir.new$(readlink "$link")" "$link"
done
# Documentation, locales and programs are not used by a build; only the loader and the libraries are.
rm -rf "$dir.new"/usr/share/{doc,man,locale,info} "$dir.new"/var/{cache,lib/apt,lib/dpkg/info} "$dir.new"/usr/bin "$dir.new"/usr/sbin \
    "$dir.new"/dev "$dir.new"/proc "$dir.new"/sys
mv "$dir.new" "$dir"
echo "$list" >"$dir.packages"
