#!/bin/bash
# stop-cluster.sh: stops what start-cluster.sh started, by recorded pid; the data stays.
set -eu
. "$(dirname "$0")/settings.sh"
all="node3:greyd node2:greyd node1:greyd core:grey-core broker:mosquitto"
for name in $all; do
    if running "${name%%:*}" "${name##*:}"; then
        kill -TERM "$(cat "$RUN/${name%%:*}.pid")"
    fi
done
for _ in $(seq 1 100); do
    left=
    for name in $all; do
        running "${name%%:*}" "${name##*:}" && left="$left ${name%%:*}"
    done
    [ -z "$left" ] && break
    sleep 0.1
done
for name in $all; do
    if running "${name%%:*}" "${name##*:}"; then
        echo "stop-cluster: ${name%%:*} did not stop within 10 s; killed" >&2
        kill -KILL "$(cat "$RUN/${name%%:*}.pid")"
    fi
    rm -f "$RUN/${name%%:*}.pid"
done
