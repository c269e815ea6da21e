#!/bin/bash
# routes.sh: "METHOD path" of every call that the code serves, or with --documented of every call in docs/openapi.yaml; names in braces
# become {}.
set -eu
if [ "${1:-}" = --documented ]; then
    awk '/^  \/.*:$/ {path = $1; sub(/:$/, "", path)} /^    (get|put|post|delete|head):/ {m = $1; sub(/:.*/, "", m); print toupper(m), path}' docs/openapi.yaml
else
    sed -nE 's/^    \{"([A-Z]+)", "([^"]+)", ([a-z_]+)\},$/\1 \2 \3/p' agent/api.c | grep -v ' not_here_yet$' | sed -E 's| [a-z_]+$||; s|/$|/{}|; s|\*|{}|'
    printf 'GET %s\n' /health /health/live /health/ready /metrics / /v1/sites '/v1/sites/{}' '/v1/sites/{}/events' '/v1/sites/{}/gaps' '/v1/sites/{}/objects' '/v1/sites/{}/labels' '/v1/rollouts/{}'
    printf 'PUT %s\n' '/v1/configs/{}' '/v1/policies/{}' '/v1/data/{}' '/v1/sites/{}/labels' '/v1/rollouts/{}'
    grep -oE '\{"[A-Z]+", "[^"]+", [A-Z_]+\}' core/enroller.c | sed -E 's/\{"([A-Z]+)", "([^"]+)".*/\1 \2/; s|/$|/{}|'
fi | sed -E 's/\{[^}]*\}/{}/g' | sort -u
