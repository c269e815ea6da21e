#!/bin/bash
# dev.sh start|stop|status: one node without TLS, for trying things out; data in run/dev.
set -eu
. "$(dirname "$0")/local/settings.sh"
port=${GREY_DEV_PORT:-8080}
case ${1:-} in
start)
    mkdir -p "$RUN"
    if running dev greyd; then
        echo "greyd runs already: http://127.0.0.1:$port"
    else
        start dev "$RUN/dev.log" "$BUILD/greyd" --mode dev --data-dir "$RUN/dev" --http-addr "127.0.0.1:$port"
        for _ in $(seq 1 50); do
            curl -sf -m 1 "http://127.0.0.1:$port/health/ready" >/dev/null && break
            sleep 0.1
        done
        curl -sf -m 1 "http://127.0.0.1:$port/health/ready" >/dev/null || {
            tail -n 3 "$RUN/dev.log" >&2
            exit 1
        }
        echo "greyd runs: http://127.0.0.1:$port  log $RUN/dev.log"
    fi
    ;;
stop)
    running dev greyd && kill -TERM "$(cat "$RUN/dev.pid")"
    rm -f "$RUN/dev.pid"
    ;;
status) "$BUILD/greyctl" --addr "http://127.0.0.1:$port" status ;;
*)
    echo "usage: deploy/dev.sh start|stop|status" >&2
    exit 2
    ;;
esac
