#!/bin/bash
# mbedtls36.sh DIR: mbedTLS 3.6, which Debian 13 has and Debian 12 has not, from Debian 13's source package: headers in DIR/include, static
# libraries in DIR/library.  For tests on Debian 12 (make MBEDTLS=3.6); on Debian 13 the package libmbedtls-dev is used like any other.
# What was downloaded stays beside DIR, so that a second build needs no network.
set -eu
dir=$1
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
version=3.6.6
archive=mbedtls_$version.orig.tar.bz2
sha256=8fb65fae8dcae5840f793c0a334860a411f884cc537ea290ce1c52bb64ca007a # of mbedtls_3.6.6-0.1~deb13u1.dsc, main of trixie
kept=$(dirname "$dir")/$archive
[ -e "$dir/library/libmbedtls.a" ] && exit 0

is_whole() { [ -e "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }

mkdir -p "$(dirname "$dir")"
if ! is_whole "$kept"; then
    from=$mirror/pool/main/m/mbedtls/$archive
    if ! curl -fsSL --retry 3 --max-time 300 -o "$kept.new" "$from"; then
        echo "mbedtls36.sh: $from cannot be downloaded.  mbedTLS 3.6 is not in Debian 12; without a network, put $archive of" >&2
        echo "Debian 13 at $kept, or name another mirror: DEBIAN_MIRROR=http://... make MBEDTLS=3.6" >&2
        exit 1
    fi
    if ! is_whole "$kept.new"; then
        echo "mbedtls36.sh: what came from $from is not Debian 13's $archive (SHA-256 $sha256)" >&2
        rm -f "$kept.new"
        exit 1
    fi
    mv "$kept.new" "$kept"
fi
rm -rf "$dir.new" "$dir"
mkdir "$dir.new"
tar xjf "$kept" -C "$dir.new" --strip-components=1
cd "$dir.new"
# As in Debian's rules.  Two threads of greyd shake hands, and TLS 1.3 shares the state of PSA among them.
for option in MBEDTLS_THREADING_C MBEDTLS_THREADING_PTHREAD MBEDTLS_CMAC_C MBEDTLS_SSL_DTLS_SRTP; do
    scripts/config.py set $option
done
# The archive brings the files that are generated.  Not on behalf of the flags and goals of the make that started this.
env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u CC -u CFLAGS make -s -j"$(nproc)" GEN_FILES= CC=gcc CFLAGS="-O1 -fPIE -fstack-protector-strong" -C library static
cd - >/dev/null
mv "$dir.new" "$dir"
