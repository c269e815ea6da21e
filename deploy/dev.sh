#!/bin/bash
# dev.sh start|stop|status: one node without TLS, for trying things out; data in run/dev.
set -eu
. "$(dirname "$0")/local/settings.sh"
port=${GREY_DEV_PORT:-8080}
address=http://127.0.0.1:$port
fail() {
    echo "dev.sh: $*" >&2
    exit 1
}
ready() { curl -sf -m 1 -o /dev/null "$address/health/ready"; }
case ${1:-} in
start)
    [ -x "${BUILD:-/nonexistent}/greyd" ] || fail "greyd is not built yet: say 'make'"
    mkdir -p "$RUN"
    if running dev greyd; then
        echo "greyd runs already: $address"
        exit 0
    fi
    start dev "$RUN/dev.log" "$BUILD/greyd" --mode dev --data-dir "$RUN/dev" --http-addr "127.0.0.1:$port"
    for _ in $(seq 1 100); do
        ready && break
        running dev greyd || {
            tail -n 3 "$RUN/dev.log" >&2
            fail "greyd has ended; its log: $RUN/dev.log (another port: GREY_DEV_PORT=8090 deploy/dev.sh start)"
        }
        sleep 0.1
    done
    ready || fail "greyd is not ready after 10 s; its log: $RUN/dev.log"
    echo "greyd runs: $address  log $RUN/dev.log"
    echo "try: $BUILD/greyctl --addr $address kv put colour blue"
    ;;
stop) set +e && stop_all dev:greyd ;;
status)
    running dev greyd || fail "not running; start it with deploy/dev.sh start"
    "$BUILD/greyctl" --addr "$address" status
    ;;
*)
    echo "usage: deploy/dev.sh start|stop|status" >&2
    exit 2
    ;;
esac
