#!/bin/bash
# build.sh ARCH BUILD VERSION OUT: makes grey-agent, grey-tpm, grey-ctl and grey-core packages of the programs in BUILD, into the folder OUT.
# The same input gives the same bytes: times come from deploy/debian/changelog, owners are root, order and compression are fixed.
# Foreign programs are packed as well; none of them is run.  STRIP: the strip of their architecture.
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022
[ $# -eq 4 ] || {
    echo "usage: build.sh ARCH BUILD VERSION OUT" >&2
    exit 2
}
arch=$1 build=$2 version=$3 out=$4
fail() {
    echo "build.sh: $*" >&2
    exit 1
}
declare -A machine=([amd64]='Advanced Micro Devices X86-64' [arm64]=AArch64 [armhf]=ARM)
for program in greyd greyctl grey-core grey-launch grey-tpm grey-update; do
    [ -x "$build/$program" ] || fail "$build/$program is not built"
    readelf -h "$build/$program" | grep -qE "Machine: +${machine[$arch]:?no such architecture: $arch}\$" ||
        fail "$build/$program is not for $arch"
done
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -l deploy/debian/changelog -S Timestamp)
export SOURCE_DATE_EPOCH
stage=$out/stage
rm -rf "$stage" && mkdir -p "$stage"

put() { # mode source target
    install -D -m "$1" "$2" "$stage/$package/$3"
}
program() { # name
    install -D -m 0755 "$build/$1" "$stage/$package/usr/bin/$1"
    "${STRIP:-strip}" --strip-unneeded --remove-section=.comment "$stage/$package/usr/bin/$1"
}
squeeze() { # source target
    mkdir -p "$(dirname "$stage/$package/$2")"
    gzip -9n <"$1" >"$stage/$package/$2"
}
manual() { # page...
    local page
    for page in "$@"; do
        squeeze "docs/man/$page" "usr/share/man/man${page##*.}/$page.gz"
    done
}
document() { # page...
    local page
    for page in "$@"; do
        squeeze "docs/$page" "usr/share/doc/$package/$page.gz"
    done
}
finish() {
    local root=$stage/$package needs
    squeeze deploy/debian/changelog "usr/share/doc/$package/changelog.gz"
    put 0644 deploy/debian/copyright "usr/share/doc/$package/copyright"
    [ ! -f "deploy/debian/$package/overrides" ] || put 0644 "deploy/debian/$package/overrides" "usr/share/lintian/overrides/$package"
    needs=$(deploy/debian/libraries.sh "$root"/usr/bin/*)
    mkdir -p "$root/DEBIAN"
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | sort | xargs -d '\n' md5sum) >"$root/DEBIAN/md5sums.new"
    mv "$root/DEBIAN/md5sums.new" "$root/DEBIAN/md5sums"
    if [ -d "$root/etc" ]; then
        (cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
    fi
    local script size
    for script in postinst prerm postrm; do
        [ ! -f "deploy/debian/$package/$script" ] || install -m 0755 "deploy/debian/$package/$script" "$root/DEBIAN/$script"
    done
    size=$(find "$root" -path "$root/DEBIAN" -prune -o -type f -printf '%s\n' -o -type d -printf '1\n' |
        awk '{kib += int(($1 + 1023) / 1024)} END {print kib}')
    sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/; s/@SHLIBS@/$needs/" "deploy/debian/$package/control" >"$root/DEBIAN/control"
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$root" "$out/${package}_${version}_$arch.deb" >/dev/null
    echo "$out/${package}_${version}_$arch.deb"
}

package=grey-agent
program greyd
program grey-launch
program grey-update
manual greyd.8 greyd.yaml.5 grey-launch.8 grey-update.8
document INSTALL.md CONFIGURATION.md ERRORS.md RECONNECT.md SCHEDULING.md UPDATES.md
put 0644 deploy/etc/greyd.yaml etc/grey/greyd.yaml
put 0644 deploy/etc/greyd.default etc/default/greyd
put 0644 deploy/etc/greyd-example.yaml usr/share/doc/grey-agent/examples/greyd.yaml
for board in boards/*/; do
    put 0644 "${board}profile.yaml" "usr/share/doc/grey-agent/examples/boards/$(basename "$board").yaml"
done
put 0644 deploy/systemd/grey-launch-images.conf usr/share/doc/grey-agent/examples/grey-launch-images.conf
put 0644 deploy/systemd/greyd.service lib/systemd/system/greyd.service
put 0644 deploy/systemd/grey-launch.service lib/systemd/system/grey-launch.service
put 0644 deploy/systemd/grey-update.path lib/systemd/system/grey-update.path
put 0644 deploy/systemd/grey-update.service lib/systemd/system/grey-update.service
put 0644 deploy/systemd/slots.conf usr/lib/grey-agent/slots.conf
put 0755 deploy/systemd/back-off usr/lib/grey-agent/back-off
put 0644 deploy/systemd/grey-agent.sysusers usr/lib/sysusers.d/grey-agent.conf
put 0644 deploy/systemd/grey-agent.tmpfiles usr/lib/tmpfiles.d/grey-agent.conf
finish

package=grey-tpm
program grey-tpm
manual grey-tpm.8
document ATTESTATION.md
put 0644 deploy/systemd/grey-tpm.service lib/systemd/system/grey-tpm.service
put 0644 deploy/systemd/greyd-tpm.conf lib/systemd/system/greyd.service.d/tpm.conf
finish

package=grey-ctl
program greyctl
manual greyctl.1
for shell in bash zsh fish; do
    case $shell in
    bash) target=bash-completion/completions/greyctl ;;
    zsh) target=zsh/vendor-completions/_greyctl ;;
    fish) target=fish/vendor_completions.d/greyctl.fish ;;
    esac
    put 0644 "$build/completion/$shell" "usr/share/$target"
done
finish

package=grey-core
program grey-core
manual grey-core.8
document INSTALL.md openapi.yaml
put 0644 deploy/etc/grey-core.yaml etc/grey-core/grey-core.yaml
put 0644 deploy/local/broker.acl usr/share/doc/grey-core/examples/broker.acl
put 0644 deploy/systemd/grey-core.service lib/systemd/system/grey-core.service
put 0644 deploy/systemd/grey-core.sysusers usr/lib/sysusers.d/grey-core.conf
put 0644 deploy/systemd/grey-core.tmpfiles usr/lib/tmpfiles.d/grey-core.conf
finish
rm -rf "$stage"
