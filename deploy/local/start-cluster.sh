#!/bin/bash
# start-cluster.sh: one site of three gateways, a broker with TLS and a core, all on this machine, in the background; state in run/.
# Starts only what is not running and changes nothing else.  Ports: see settings.sh.
set -eu
. "$(dirname "$0")/settings.sh"
say() { printf '%s\n' "$*"; }
fail() {
    say "start-cluster: $*" >&2
    exit 1
}
for program in greyd greyctl grey-core grey-launch; do
    [ -x "${BUILD:-/nonexistent}/$program" ] || fail "$program is not built yet: say 'make'"
done
broker=$(PATH=$PATH:/usr/sbin command -v mosquitto) || fail "mosquitto is not installed: say 'deploy/deps.sh run'"
mkdir -p "$RUN" && chmod 755 "$RUN"

# A port that somebody else holds is named before anything is started.
free_port() { # name program port
    local owner
    running "$1" "$2" && return
    if ss -Hltn "sport = :$3" 2>/dev/null | grep -q .; then
        owner=$(ss -Hltnp "sport = :$3" 2>/dev/null | sed -n 's/.*users:((\([^)]*\)).*/\1/p' | head -n 1)
        fail "port $3 ($1) is in use${owner:+ by $owner}; stop that, or choose another port (see deploy/local/settings.sh)"
    fi
}
free_port broker mosquitto "$GREY_BROKER_PORT"
free_port core grey-core "$GREY_CORE_PORT"
free_port core grey-core "$GREY_ENROLL_PORT"
for n in 1 2 3; do
    free_port "node$n" greyd $((GREY_HTTP_PORT + n))
    free_port "node$n" greyd $((GREY_PEER_PORT + n))
done

# --- the CA, and certificates of broker and core ---------------------------------------------------------------------------------
"$BUILD/grey-core" ca init --dir "$CA"
for who in broker core; do
    [ "$CA/$who.crt" -nt "$CA/issuing.crt" ] || "$BUILD/grey-core" ca $who --dir "$CA" --out "$CA/$who"
done

# --- broker ------------------------------------------------------------------------------------------------------------------------
if ! running broker mosquitto; then
    sed -e "s|@PORT@|$GREY_BROKER_PORT|; s|@CA@|$CA|; s|@RUN@|$RUN|; s|@USER@|$(id -un)|" "$ROOT/deploy/local/mosquitto.conf.in" >"$RUN/mosquitto.conf"
    install -m 0600 "$ROOT/deploy/local/broker.acl" "$RUN/broker.acl"
    start broker "$RUN/broker.log" "$broker" -c "$RUN/mosquitto.conf"
    say "broker     127.0.0.1:$GREY_BROKER_PORT (mutual TLS)"
fi

# --- core ------------------------------------------------------------------------------------------------------------------------------
if ! running core grey-core; then
    start core "$RUN/core.log" "$BUILD/grey-core" --data-dir "$RUN/core" --http-addr "127.0.0.1:$GREY_CORE_PORT" \
        --broker "mqtts://localhost:$GREY_BROKER_PORT" --tls-ca "$CA/ca.crt" --tls-cert "$CA/core.crt" --tls-key "$CA/core.key" --sign-dir "$CA" \
        --ca-dir "$CA" --enroll-addr "127.0.0.1:$GREY_ENROLL_PORT" --broker-pid "$RUN/mosquitto.pid"
    say "core       http://127.0.0.1:$GREY_CORE_PORT/"
fi

# --- enrolment: each gateway makes its own key; one token lets the three in ---------------------------------------------------------
token=
for n in 1 2 3; do
    mkdir -p "$RUN/node$n"
    [ -f "$RUN/node$n/enrolled" ] && continue
    for _ in $(seq 1 100); do
        [ -n "$token" ] && break
        token=$("$BUILD/greyctl" --core "http://127.0.0.1:$GREY_CORE_PORT" enroll token --site "$GREY_SITE" --nodes 3 --ttl 10m 2>/dev/null) || sleep 0.1
    done
    [ -n "$token" ] || fail "the core gives no enrolment token; its log: $RUN/core.log"
    printf '%s\n' "$token" | "$BUILD/greyd" enroll --core "https://localhost:$GREY_ENROLL_PORT" --token-file - --node "$n" --dir "$RUN/node$n" \
        --config '' >/dev/null
    say "enrolled   gateway $n of site $GREY_SITE"
done

# --- gateways ----------------------------------------------------------------------------------------------------------------------
for n in 1 2 3; do
    others=
    for m in 1 2 3; do
        [ $m = $n ] || others=${others:+$others,}127.0.0.1:$((GREY_PEER_PORT + m))
    done
    cat >"$RUN/node$n/greyd.yaml.new" <<EOF
# Written by deploy/local/start-cluster.sh.
mode: edge
node:
  id: "$n"
site:
  id: $GREY_SITE
networking:
  http_addr: "127.0.0.1:$((GREY_HTTP_PORT + n))"
  peer_addr: "127.0.0.1:$((GREY_PEER_PORT + n))"
  socket: "$RUN/node$n/greyd.sock"
storage:
  data_dir: "$RUN/node$n/data"
security:
  tls:
    enabled: true
    ca_cert: "$RUN/node$n/ca.crt"
    cert: "$RUN/node$n/node.crt"
    key: "$RUN/node$n/node.key"
federation:
  enabled: true
  upstream:
    endpoints: ["localhost:$GREY_BROKER_PORT"]
    core_key: "$RUN/node$n/core-sign.pub"
    tls:
      ca_cert: "$RUN/node$n/ca.crt"
      client_cert: "$RUN/node$n/node.crt"
      client_key: "$RUN/node$n/node.key"
EOF
    # Tasks, where the name of the launcher's socket is short enough for the kernel.
    [ ${#RUN} -gt 80 ] || cat >>"$RUN/node$n/greyd.yaml.new" <<EOF
scheduler:
  enabled: true
  launcher: "$RUN/launch$n/launch.sock"
EOF
    [ -f "$RUN/node$n/greyd.yaml" ] && rm "$RUN/node$n/greyd.yaml.new" || mv "$RUN/node$n/greyd.yaml.new" "$RUN/node$n/greyd.yaml"
    if grep -qF "$RUN/launch$n/launch.sock" "$RUN/node$n/greyd.yaml" && ! running "launch$n" grey-launch; then
        start "launch$n" "$RUN/launch$n.log" "$BUILD/grey-launch" --dir "$RUN/launch$n"
    fi
    if ! running "node$n" greyd; then
        first=()
        [ $n = 1 ] && first=(--bootstrap)
        start "node$n" "$RUN/node$n/greyd.log" "$BUILD/greyd" --config "$RUN/node$n/greyd.yaml" "${first[@]}" --join "$others"
        say "gateway $n  http://127.0.0.1:$((GREY_HTTP_PORT + n))  log $RUN/node$n/greyd.log"
    fi
done

# --- until the site is whole -------------------------------------------------------------------------------------------------------
verdict=
printf 'waiting for three gateways and the link to the core '
for _ in $(seq 1 240); do
    verdict=$("$BUILD/greyctl" --timeout 5 --addr "http://127.0.0.1:$((GREY_HTTP_PORT + 1))" status 2>&1 | head -n 1 || true)
    case $verdict in
    'OK: 3 of 3 nodes'*'; link up'*)
        say ' done'
        exit 0
        ;;
    esac
    for name in broker:mosquitto core:grey-core node1:greyd node2:greyd node3:greyd; do
        running "${name%%:*}" "${name##*:}" || {
            say
            case ${name%%:*} in node*) log=$RUN/${name%%:*}/greyd.log ;; *) log=$RUN/${name%%:*}.log ;; esac
            tail -n 5 "$log" >&2
            fail "${name%%:*} has ended; its log: $log"
        }
    done
    printf .
    sleep 0.5
done
say
fail "the site is not whole after two minutes: $verdict; logs are in $RUN"
