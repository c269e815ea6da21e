#!/bin/bash
# make-tpm.sh AUTHORITY FOLDER...: makes a software TPM in each folder, with an endorsement certificate, where there is none yet.  The maker who
# signs them lives in AUTHORITY; its certificates are in AUTHORITY/roots.pem.
set -eu
[ $# -ge 2 ] || {
    echo "usage: make-tpm.sh AUTHORITY FOLDER..." >&2
    exit 2
}
PATH=$PATH:/usr/sbin
mkdir -p "$1"
authority=$(cd "$1" && pwd)
shift
# swtpm splits values at white space.
case $authority in *[[:space:]]*)
    echo "make-tpm.sh: no software TPM below a path with white space: $authority" >&2
    exit 1
    ;;
esac
localca=$(command -v swtpm_localca) || localca=/usr/bin/swtpm_localca
cat >"$authority/setup.conf" <<EOF
create_certs_tool = $localca
create_certs_tool_config = $authority/ca.conf
create_certs_tool_options = $authority/options
active_pcr_banks = sha256
EOF
cat >"$authority/ca.conf" <<EOF
statedir = $authority
signingkey = $authority/signkey.pem
issuercert = $authority/issuer.pem
certserial = $authority/serial
EOF
printf -- '--platform-manufacturer Grey\n--platform-version 1\n--platform-model local\n' >"$authority/options"
for folder in "$@"; do
    [ -e "$folder/made" ] && continue # made whole
    mkdir -p "$folder"
    if ! swtpm_setup --tpm2 --tpmstate "dir://$folder" --config "$authority/setup.conf" --create-ek-cert --lock-nvram --overwrite >"$folder/setup.log" 2>&1; then
        tail -n 5 "$folder/setup.log" >&2
        exit 1
    fi
    touch "$folder/made"
done
cat "$authority/issuer.pem" "$authority/swtpm-localca-rootca-cert.pem" >"$authority/roots.pem"
