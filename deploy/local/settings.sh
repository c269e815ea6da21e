# Sourced by the scripts of this folder: where things are and which ports they use.  Each variable can be set outside.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$(ls -d "$ROOT"/build/amd64 "$ROOT"/build/arm64 "$ROOT"/build/armhf 2>/dev/null | head -n 1)}
RUN=${RUN:-$ROOT/run}
GREY_SITE=${GREY_SITE:-edge-factory-001}
GREY_HTTP_PORT=${GREY_HTTP_PORT:-8080}         # node N: this + N
GREY_PEER_PORT=${GREY_PEER_PORT:-9090}         # node N: this + N
GREY_BROKER_PORT=${GREY_BROKER_PORT:-8883}
GREY_CORE_PORT=${GREY_CORE_PORT:-8080}
CA=$RUN/ca

# running NAME PROGRAM: the process recorded in run/NAME.pid lives and is that program, not another one with its number.
running() {
    local pid
    pid=$(cat "$RUN/$1.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ "$(basename "$(readlink "/proc/$pid/exe" 2>/dev/null | sed 's/ (deleted)$//')")" = "$2" ]
}
# start NAME PROGRAM ARGUMENTS...: in the background, detached, output to the log file, pid recorded.
start() {
    local name=$1 log=$2
    shift 2
    setsid "$@" >>"$log" 2>&1 </dev/null &
    echo $! >"$RUN/$name.pid"
}
