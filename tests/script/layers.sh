#!/bin/bash
# layers.sh [ROOT]: compares every include line with docs/ARCHITECTURE.md, "Who may include whom".  TAP; faults name file and line.
set -u
cd "${1:-.}" || exit 1
export LC_ALL=C
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

folders=$(for f in include platform federation agent core tests; do [ -d "$f" ] && echo "$f"; done)
# shellcheck disable=SC2086  # folder names hold no spaces
find $folders -name '*.[ch]' | sort >"$scratch/files"
# file:line:"path" or file:line:<path>
xargs -a "$scratch/files" grep -HnoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<][^">]+[">]' |
    sed -E 's/#[[:space:]]*include[[:space:]]*//; s/:[[:space:]]*(["<])/:\1/' >"$scratch/includes"

# What federation (pure, all of it) may use of platform.
computing='bytes fault codec json yaml compress digest keys cert cipher ecdsa ekcert credential'

number=0 failed=0
report() { # report WHAT FILE-OF-FAULTS
    number=$((number + 1))
    if [ -s "$2" ]; then
        echo "not ok $number - $1"
        sed 's/^/# /' "$2"
        failed=1
    else
        echo "ok $number - $1"
    fi
}

awk -F: '$3 ~ /^"/ { path = $3; gsub(/"/, "", path); print $1 ":" $2 " " $1 " " path }' "$scratch/includes" >"$scratch/own"

while read -r place _ path; do
    case $path in
    */*) [ -f "$path" ] || echo "$place: \"$path\" is not a file, seen from the root" ;;
    *) echo "$place: \"$path\" is not written from the root" ;;
    esac
done <"$scratch/own" >"$scratch/root"
report "own headers are included by their path from the root" "$scratch/root"

awk -v computing="$computing" '
    # A folder below agent is a room of its own; the other layers are what stands before the first slash.
    function layer(path) {
        if (match(path, /^agent\/[a-z]+\//) || match(path, /^include\/grey\//)) return substr(path, 1, RLENGTH - 1)
        return substr(path, 1, index(path, "/") - 1)
    }
    BEGIN {
        count = split(computing, names, " ")
        for (i = 1; i <= count; i++) computes["platform/" names[i] ".h"] = 1
    }
    FNR == NR { # | `room` | `room` `room` |
        if (/^### /) doors = /^### Who may include whom/
        if (doors && split($0, cell, "|") == 4 && cell[2] ~ /`/) {
            gsub(/[` ]/, "", cell[2]); gsub(/`/, "", cell[3])
            may[cell[2]] = " " cell[2] " " cell[3] " "
        }
        next
    }
    {
        from = layer($2); to = layer($3)
        if (from == "tests" || $3 !~ /\//) next
        if (!(from in may)) print $1 ": docs/ARCHITECTURE.md, \"Who may include whom\", has no row for " from
        else if (index(may[from], " " to " ") == 0) print $1 ": " from " may not include " to " (\"" $3 "\")"
        else if (from == "federation" && to == "platform" && !($3 in computes)) print $1 ": federation is pure and may not include \"" $3 "\", which waits or does I/O"
    }' docs/ARCHITECTURE.md "$scratch/own" >"$scratch/layers"
report "include/grey <- platform <- federation <- agent, core" "$scratch/layers"

# Each package has one source that knows it (and at most one header, which that source's users see); tests may look.
# mbedtls is one package for several: TLS, certificates, keys, hashes.
awk -F: '
    $1 ~ /^tests\// || $3 !~ /^[<]/ { next }
    {
        path = $3; gsub(/[<>]/, "", path)
        package = path
        if (path ~ /^mbedtls\// || path ~ /^psa\//) package = "mbedtls"
        else if (path ~ /^sodium(\/|\.h$)/) package = "sodium.h"
        else if (path ~ /^cbor(\/|\.h$)/) package = "cbor.h"
        else if (path ~ /^lz4[a-z]*\.h$/) package = "lz4.h"
        else if (path ~ /^openssl\//) package = "openssl"
        else if (path ~ /^tss2\//) package = "tss2"
        else if (path !~ /^(sqlite3|mosquitto|yaml|jansson|zlib|http_parser|postgresql\/libpq-fe)\.h$/) next
        if (package == "mbedtls") {
            if ($1 !~ /^platform\/(mbed|conn_tls|conn_material|fetch_tls|pinned|vouch|cert|csr|crl|keysign|keys|digest|cipher|ecdsa|ekcert|credential)\.[ch]$/) print $1 ":" $2 ": <" path "> belongs to platform/{mbed,conn_tls,conn_material,fetch_tls,pinned,vouch,cert,csr,crl,keysign,keys,digest,cipher,ecdsa,ekcert,credential}"
            next
        }
        # Two sources of one part: the file layer below SQLite and its user; what a TPM keeps; server and client of one parser; checksums
        # and inflation of zlib.
        if (package == "sqlite3.h" && $1 ~ /^platform\/db(_disk)?\.[ch]$/) next
        if (package == "tss2" && $1 ~ /^platform\/tpm(_keep|_core)?\.[ch]$/) next
        if (package == "zlib.h" && $1 ~ /^platform\/(digest|gunzip)\.c$/) next
        if (package == "http_parser.h" && $1 ~ /^platform\/http_(wire|fetch)\.[ch]$/) next
        kind = $1 ~ /\.h$/ ? "header" : "source"
        if ((package, kind) in owner) {
            if (owner[package, kind] != $1) print $1 ":" $2 ": <" path "> belongs to " owner[package, kind]
        } else owner[package, kind] = $1
    }' "$scratch/includes" >"$scratch/packages"
report "each package is included by one source and at most one header" "$scratch/packages"

# A stem is the prefix of its functions, so it may live in one folder only.
awk '
    {
        name = $1; sub(/.*\//, "", name)
        folder = substr($1, 1, length($1) - length(name) - 1)
        stem = name; sub(/\.[ch]$/, "", stem)
        if (stem in at && at[stem] != folder) print $1 ":1: the name " stem " is taken by " at[stem] "/"
        else at[stem] = folder
    }' "$scratch/files" >"$scratch/names"
report "base names are unique" "$scratch/names"

echo "1..$number"
exit $failed
