# Sourced by the scripts of this folder: where things are and which ports they use.  Each variable can be set outside:
#     GREY_HTTP_PORT=18080 GREY_PEER_PORT=19090 GREY_CORE_PORT=18080 GREY_BROKER_PORT=18883 GREY_ENROLL_PORT=18443 RUN=/tmp/run make up
# shellcheck shell=bash disable=SC2034  # used by those who source this
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$(ls -d "$ROOT"/build/amd64 "$ROOT"/build/arm64 "$ROOT"/build/armhf 2>/dev/null | head -n 1)}
RUN=${RUN:-$ROOT/run}
GREY_SITE=${GREY_SITE:-edge-factory-001}
GREY_HTTP_PORT=${GREY_HTTP_PORT:-8080}         # node N: this + N
GREY_PEER_PORT=${GREY_PEER_PORT:-9090}         # node N: this + N
GREY_BROKER_PORT=${GREY_BROKER_PORT:-8883}
GREY_CORE_PORT=${GREY_CORE_PORT:-8080}
GREY_ENROLL_PORT=${GREY_ENROLL_PORT:-8443} # where gateways enrol, with TLS
GREY_ATTEST_PERIOD=${GREY_ATTEST_PERIOD:-20} # seconds; 0: no software TPMs, no attestation
CA=$RUN/ca
PATH=$PATH:/usr/sbin

# running NAME PROGRAM: the process recorded in run/NAME.pid lives, is that program, and works in our run/: a number that the system
# gave to somebody else in the meantime is nobody we may stop.
running() {
    local pid exe
    pid=$(cat "$RUN/$1.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] || return 1
    exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    exe=${exe% (deleted)} # rebuilt since
    [ "${exe##*/}" = "$2" ] && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$RUN/"
}
# start NAME LOG PROGRAM ARGUMENTS...: in the background, detached, output to the log file, pid recorded.
start() {
    local name=$1 log=$2
    shift 2
    setsid "$@" >>"$log" 2>&1 </dev/null &
    local pid=$!
    echo $pid >"$RUN/$name.pid"
    for _ in $(seq 1 100); do # until the shell has become the program, so that `running` knows it
        case $(readlink "/proc/$pid/exe" 2>/dev/null) in
        */bash | */dash | */setsid | */sh) sleep 0.02 ;;
        */grey-tpm) # measures a gateway's agent and becomes it
            case $name in node*) sleep 0.02 ;; *) break ;; esac
            ;;
        *) break ;;
        esac
    done
}
# stop_all NAME:PROGRAM...: asks each to end, waits for at most 10 s, then kills what is left.
stop_all() {
    local one left
    for one in "$@"; do
        running "${one%%:*}" "${one##*:}" && kill -TERM "$(cat "$RUN/${one%%:*}.pid")"
    done
    for _ in $(seq 1 100); do
        left=
        for one in "$@"; do
            running "${one%%:*}" "${one##*:}" && left=yes
        done
        [ -z "$left" ] && break
        sleep 0.1
    done
    for one in "$@"; do
        if running "${one%%:*}" "${one##*:}"; then
            echo "${one%%:*} did not stop within 10 s; killed" >&2
            kill -KILL "$(cat "$RUN/${one%%:*}.pid")"
        fi
        rm -f "$RUN/${one%%:*}.pid"
    done
}
