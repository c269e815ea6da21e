#!/bin/bash
# first-steps.sh: sends a few events of each priority to a new local site, waits until the core has them, shows the status.
set -eu
. "$(dirname "$0")/settings.sh"
ctl=("$BUILD/greyctl" --addr "http://127.0.0.1:$((GREY_HTTP_PORT + 1))" --core "http://127.0.0.1:$GREY_CORE_PORT")
if [ ! -e "$RUN/first-steps" ]; then # once: to start again changes nothing
    "${ctl[@]}" event send --type machine.alarm --priority critical --data '{"machine":"press-4","text":"oil pressure low"}' >/dev/null
    "${ctl[@]}" event send --type machine.state --priority high --data '{"machine":"press-4","state":"stopped"}' >/dev/null
    for i in 1 2 3; do
        "${ctl[@]}" event send --type sensor.reading --priority normal --data "{\"celsius\":21.$i}" >/dev/null
    done
    "${ctl[@]}" event send --type log.line --priority low --data '"shift begins"' >/dev/null
    "${ctl[@]}" kv put greeting 'hello from the factory' >/dev/null
    if grep -q '^scheduler:' "$RUN/node1/greyd.yaml"; then # two tenants share the gateways
        for _ in $(seq 1 60); do # each offers what it has once it is a member
            [ "$("${ctl[@]}" -o json tenant list | grep -o '"condition":"ready"' | wc -l)" = 3 ] && break
            sleep 0.25
        done
        for tenant in press paint; do
            "${ctl[@]}" tenant set $tenant --cpu 40 --memory 40 >/dev/null
            for i in 1 2 3; do
                "${ctl[@]}" task submit --id "$tenant-$i" --tenant $tenant -- /bin/sh -c 'echo "$GREY_TASK ran on $(uname -n)"' >/dev/null
            done
        done
    fi
    touch "$RUN/first-steps"
    for _ in $(seq 1 60); do
        "${ctl[@]}" -o json queue | grep -q '"pending":[1-9]' || break
        sleep 0.25
    done
fi
"${ctl[@]}" status

greyctl=${BUILD#"$PWD"/}/greyctl run=${RUN#"$PWD"/}
other=$greyctl
[ "$run" = run ] || greyctl="$greyctl --addr unix:$run/node1/greyd.sock"
fleet=$other
[ "$GREY_CORE_PORT" = 8080 ] || fleet="$other --core http://127.0.0.1:$GREY_CORE_PORT"
cat <<EOF

The core's page: http://127.0.0.1:$GREY_CORE_PORT/
What to try next:
  $greyctl event send --type door.opened --priority high --data '{"door":7}'
  $fleet site events $GREY_SITE
  $greyctl kv get greeting
  $greyctl task submit --id hello -- /bin/echo hello; sleep 1; $greyctl task logs hello; $greyctl task proof hello --verify; $greyctl task list
  kill -9 \$(cat $run/node1.pid); sleep 1; $other --addr unix:$run/node2/greyd.sock status; make up
EOF
! grep -q '^attestation:' "$RUN/node1/greyd.yaml" || ! command -v tpm2_pcrextend >/dev/null || cat <<EOF
  tpm2_pcrextend -T swtpm:path=$run/node2/swtpm.sock 4:sha256=$(printf %064d 7); sleep 25; $greyctl attest status    somebody tampers with gateway 2
EOF
cat <<EOF
  make down      stops all of it, keeps the data
EOF
