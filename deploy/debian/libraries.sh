#!/bin/bash
# libraries.sh PROGRAM...: the Debian packages that have the shared libraries of these programs, each with the least version that has all
# symbols used, as for Depends.  Like dpkg-shlibdeps, but for programs of other architectures too: it reads the symbols files of this
# machine's libraries, whose names and versions are the same on all architectures of a release.
set -euo pipefail
export LC_ALL=C
sonames=$(objdump -p "$@" | awk '$1 == "NEEDED" {print $2}' | sort -u)
used=$(objdump -T "$@" | awk '/\*UND\*/ {version = NF > 5 ? $(NF - 1) : "Base"; gsub(/[()]/, "", version); print $NF "@" version}' | sort -u)
for soname in $sonames; do
    case $soname in ld-linux*) continue ;; esac # comes with libc6
    files=$(grep -lE "^$soname " /var/lib/dpkg/info/*.symbols | grep -vE ':(i386|arm64|armhf)\.symbols$|-i386\.symbols$' || true)
    [ -n "$files" ] || {
        echo "libraries.sh: no package of this machine has $soname" >&2
        exit 1
    }
    # A symbol that only another architecture has counts by its version's name.
    # shellcheck disable=SC2086  # one file, or more
    awk -v soname="$soname" -v used="$used" '
        BEGIN {count = split(used, list, "\n"); for (i = 1; i <= count; i++) {want[list[i]] = 1; sub(/.*@/, "", list[i]); want[list[i] "@" list[i]] = 1}}
        /^[^ |*]/ {ours = $1 == soname; if (ours) {print $2, 0}; package = $2}
        ours && /^ / && ($1 in want) {print package, $2}' $files
done | sort -k 1,1 -k 2,2V | awk '
    $1 != package && package != "" {print line}
    {package = $1; version = $2; sub(/-[^-]*$/, "", version); line = version == "0" ? package : package " (>= " version ")"}
    END {print line}' | paste -sd , | sed 's/,/, /g'
