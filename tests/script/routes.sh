#!/bin/bash
# routes.sh: "METHOD path role" of every call that the code serves, or with --documented of every call in docs/openapi.yaml (x-role); names
# in braces become {}.
set -eu
if [ "${1:-}" = --documented ]; then
    awk '/^  \/.*:$/ {path = $1; sub(/:$/, "", path)}
         /^    (get|put|post|delete|head):/ {m = $1; sub(/:.*/, "", m); call = toupper(m) " " path}
         /x-role: / {role = $0; sub(/.*x-role: /, "", role); sub(/[^a-z].*/, "", role); if (call != "") print call, role; call = ""}' docs/openapi.yaml
else
    sed -nE 's/^    \{"([A-Z]+)", "([^"]+)", ([a-z_]+), ROLE_([A-Z]+)\},$/\1 \2 \3 \4/p' agent/api/api.c | grep -v ' not_here_yet ' |
        while read -r method path _ role; do echo "$method $path ${role,,}"; done
    sed -nE 's/^    \{"([A-Z]+)", "([^"]+)", ROLE_([A-Z]+)\},.*$/\1 \2 \3/p' core/core_api.c |
        while read -r method path role; do echo "$method $path ${role,,}"; done
fi | sed -E 's/\{[^}]*\}/{}/g; s|\*|{}|; s|/ ([a-z]+)$|/{} \1|; s|^([A-Z]+) /\{\} |\1 / |' | sort -u
