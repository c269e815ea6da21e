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
for program in greyd greyctl grey-core grey-launch grey-tpm; do
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

# --- software TPMs: one for each gateway, with an endorsement certificate by a maker that the core trusts -----------------------------
attest=no
if [ "$GREY_ATTEST_PERIOD" = 0 ]; then
    say "attestation is off: GREY_ATTEST_PERIOD is 0"
elif ! command -v swtpm >/dev/null || ! command -v swtpm_setup >/dev/null; then
    say "NO ATTESTATION: swtpm is not installed, so these gateways have no TPM and nobody can tell whether one was tampered with."
    say "                'deploy/deps.sh tpm' installs it; then 'make clean-run' and 'make up'"
elif [ ${#RUN} -gt 80 ]; then
    say "NO ATTESTATION: $RUN is too long for the sockets of software TPMs"
elif ! "$ROOT/deploy/local/make-tpm.sh" "$RUN/tpm-maker" "$RUN/node1/tpm" "$RUN/node2/tpm" "$RUN/node3/tpm"; then
    say "NO ATTESTATION: software TPMs could not be made"
else
    attest=yes
fi
tpm_flags() { # of grey-tpm for gateway $1: no firmware log, which would be that of this machine
    printf '%s\n' --tpm "swtpm:path=$RUN/node$1/swtpm.sock" --boot-log "$RUN/node$1/tpm/boot-log" --start-log "$RUN/node$1/tpm/starts"
}
start_tpm() { # machine $1: its TPM, and beside it what talks to it
    local flags
    if ! running "swtpm$1" swtpm; then
        rm -f "$RUN/node$1/swtpm.sock"
        start "swtpm$1" "$RUN/node$1/swtpm.log" swtpm socket --tpm2 --tpmstate "dir=$RUN/node$1/tpm" --server "type=unixio,path=$RUN/node$1/swtpm.sock" \
            --ctrl "type=unixio,path=$RUN/node$1/swtpm.sock.ctrl" --log "level=0" --flags not-need-init,startup-clear
        for _ in $(seq 1 100); do
            [ -S "$RUN/node$1/swtpm.sock" ] && break
            sleep 0.05
        done
    fi
    if ! running "tpm$1" grey-tpm; then
        mapfile -t flags < <(tpm_flags "$1")
        rm -f "$RUN/node$1/tpm.sock"
        start "tpm$1" "$RUN/node$1/tpm.log" "$BUILD/grey-tpm" "${flags[@]}" --socket "$RUN/node$1/tpm.sock" serve
        for _ in $(seq 1 100); do
            [ -S "$RUN/node$1/tpm.sock" ] && break
            sleep 0.05
        done
    fi
}

# --- broker ------------------------------------------------------------------------------------------------------------------------
if ! running broker mosquitto; then
    sed -e "s|@PORT@|$GREY_BROKER_PORT|; s|@CA@|$CA|; s|@RUN@|$RUN|; s|@USER@|$(id -un)|" "$ROOT/deploy/local/mosquitto.conf.in" >"$RUN/mosquitto.conf"
    install -m 0600 "$ROOT/deploy/local/broker.acl" "$RUN/broker.acl"
    start broker "$RUN/broker.log" "$broker" -c "$RUN/mosquitto.conf"
    say "broker     127.0.0.1:$GREY_BROKER_PORT (mutual TLS)"
fi

# --- core ------------------------------------------------------------------------------------------------------------------------------
if ! running core grey-core; then
    judge=()
    [ $attest = no ] || judge=(--attest learn --attest-roots "$RUN/tpm-maker/roots.pem")
    start core "$RUN/core.log" "$BUILD/grey-core" --data-dir "$RUN/core" --http-addr "127.0.0.1:$GREY_CORE_PORT" \
        --broker "mqtts://localhost:$GREY_BROKER_PORT" --tls-ca "$CA/ca.crt" --tls-cert "$CA/core.crt" --tls-key "$CA/core.key" --sign-dir "$CA" \
        --ca-dir "$CA" --enroll-addr "127.0.0.1:$GREY_ENROLL_PORT" --broker-pid "$RUN/mosquitto.pid" "${judge[@]}"
    say "core       http://127.0.0.1:$GREY_CORE_PORT/"
fi

# What a site that is started as a whole shows is taken, and is the policy from then on: who is started alone later, with another program or
# configuration, or whose machine started something else, is found.
whole=$attest
for n in 1 2 3; do
    running "node$n" greyd && whole=no
done
learn() { # true or false; waits for the core; sets $serial, of the policy that is in force then
    local answer
    for _ in $(seq 1 100); do
        answer=$(curl -fsS -H 'Content-Type: application/json' -d "{\"learn\":$1}" "http://127.0.0.1:$GREY_CORE_PORT/v1/attestations/policy" 2>/dev/null) && break
        sleep 0.1
    done
    serial=$(sed -n 's/.*"serial":\([0-9]*\).*/\1/p' <<<"$answer")
    [ -n "$serial" ] || fail "the core takes no attestation policy; its log: $RUN/core.log"
}
[ $whole = no ] || learn true

# --- enrolment: each gateway makes its own key, in its TPM where it has one; one token lets the three in ---------------------------------------------------------
token=
for n in 1 2 3; do
    mkdir -p "$RUN/node$n"
    [ -f "$RUN/node$n/enrolled" ] && continue
    for _ in $(seq 1 100); do
        [ -n "$token" ] && break
        token=$("$BUILD/greyctl" --core "http://127.0.0.1:$GREY_CORE_PORT" enroll token --site "$GREY_SITE" --nodes 3 --ttl 10m 2>/dev/null) || sleep 0.1
    done
    [ -n "$token" ] || fail "the core gives no enrolment token; its log: $RUN/core.log"
    place=()
    if [ $attest = yes ]; then
        start_tpm "$n"
        place=(--key tpm --tpm-socket "$RUN/node$n/tpm.sock")
    fi
    printf '%s\n' "$token" | "$BUILD/greyd" enroll --core "https://localhost:$GREY_ENROLL_PORT" --token-file - --node "$n" --dir "$RUN/node$n" \
        --config '' "${place[@]}" >/dev/null
    say "enrolled   gateway $n of site $GREY_SITE"
done

# --- gateways ----------------------------------------------------------------------------------------------------------------------
for n in 1 2 3; do
    others=
    for m in 1 2 3; do
        [ $m = $n ] || others=${others:+$others,}127.0.0.1:$((GREY_PEER_PORT + m))
    done
    key=$RUN/node$n/node.key signing_key=file
    if [ -f "$RUN/node$n/key-name" ] && [ $attest = yes ]; then # where the TPM has it
        key=$(cat "$RUN/node$n/key-name") signing_key=tpm
    fi
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
  signing_key: $signing_key
  tls:
    enabled: true
    ca_cert: "$RUN/node$n/ca.crt"
    cert: "$RUN/node$n/node.crt"
    key: "$key"
federation:
  enabled: true
  upstream:
    endpoints: ["localhost:$GREY_BROKER_PORT"]
    core_key: "$RUN/node$n/core-sign.pub"
    tls:
      ca_cert: "$RUN/node$n/ca.crt"
      client_cert: "$RUN/node$n/node.crt"
      client_key: "$key"
EOF
    # Tasks, where the name of the launcher's socket is short enough for the kernel.
    [ ${#RUN} -gt 80 ] || cat >>"$RUN/node$n/greyd.yaml.new" <<EOF
scheduler:
  enabled: true
  launcher: "$RUN/launch$n/launch.sock"
EOF
    [ $attest = no ] || cat >>"$RUN/node$n/greyd.yaml.new" <<EOF
attestation:
  enabled: true
  socket: "$RUN/node$n/tpm.sock"
  period_secs: $GREY_ATTEST_PERIOD
EOF
    [ -f "$RUN/node$n/greyd.yaml" ] && rm "$RUN/node$n/greyd.yaml.new" || mv "$RUN/node$n/greyd.yaml.new" "$RUN/node$n/greyd.yaml"
    if grep -qF "$RUN/launch$n/launch.sock" "$RUN/node$n/greyd.yaml" && ! running "launch$n" grey-launch; then
        start "launch$n" "$RUN/launch$n.log" "$BUILD/grey-launch" --dir "$RUN/launch$n"
    fi
    if ! running "node$n" greyd; then
        first=()
        [ $n = 1 ] && first=(--bootstrap)
        measure=()
        if [ $attest = yes ]; then
            start_tpm "$n"
            mapfile -t measure < <(tpm_flags "$n")
            measure=("$BUILD/grey-tpm" "${measure[@]}" --program "$BUILD/greyd" --measured-config "$RUN/node$n/greyd.yaml" measure --)
        fi
        start "node$n" "$RUN/node$n/greyd.log" "${measure[@]}" "$BUILD/greyd" --config "$RUN/node$n/greyd.yaml" "${first[@]}" --join "$others"
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
        break
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
case $verdict in
'OK: 3 of 3 nodes'*'; link up'*) ;;
*)
    say
    fail "the site is not whole after two minutes: $verdict; logs are in $RUN"
    ;;
esac

# --- until its gateways are trusted --------------------------------------------------------------------------------------------------
grep -q '^attestation:' "$RUN/node1/greyd.yaml" || exit 0
printf 'waiting for the core to trust three gateways '
for _ in $(seq 1 120); do
    # In a site that was started as a whole, by what it shows now: verdicts of former starts lie in its log.
    trusted=$("$BUILD/greyctl" --timeout 5 --addr "http://127.0.0.1:$((GREY_HTTP_PORT + 1))" -o json attest status 2>/dev/null |
        grep -o '"attestation":"trusted"[^{}]*"policy_serial":[0-9]*' | grep -c ":${serial:-[0-9]*}\$" || true)
    if [ "$trusted" = 3 ]; then
        [ $whole = no ] || learn false
        say ' done'
        exit 0
    fi
    printf .
    sleep 0.5
done
say
say "only $trusted of 3 gateways are trusted after a minute: greyctl attest status says why"
