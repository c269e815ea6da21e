#!/bin/bash
# first-steps.sh: sends a few events of each priority to the local site, waits until the core has them, shows the status.
set -eu
. "$(dirname "$0")/settings.sh"
ctl=("$BUILD/greyctl" --addr "http://127.0.0.1:$((GREY_HTTP_PORT + 1))" --core "http://127.0.0.1:$GREY_CORE_PORT")
"${ctl[@]}" event send --type machine.alarm --priority critical --data '{"machine":"press-4","text":"oil pressure low"}' >/dev/null
"${ctl[@]}" event send --type machine.state --priority high --data '{"machine":"press-4","state":"stopped"}' >/dev/null
for i in 1 2 3; do
    "${ctl[@]}" event send --type sensor.reading --priority normal --data "{\"celsius\":21.$i}" >/dev/null
done
"${ctl[@]}" kv put greeting 'hello from the factory' >/dev/null
for _ in $(seq 1 60); do
    "${ctl[@]}" -o json queue | grep -q '"pending":[1-9]' || break
    sleep 0.25
done
"${ctl[@]}" status
cat <<EOF

The core's page: http://127.0.0.1:$GREY_CORE_PORT/
What to try next:
  $BUILD/greyctl event send --type door.opened --priority high --data '{"door":7}'
  $BUILD/greyctl kv get greeting
  $BUILD/greyctl site events $GREY_SITE
  kill -9 \$(cat $RUN/node1.pid) && $BUILD/greyctl --addr http://127.0.0.1:$((GREY_HTTP_PORT + 2)) status && make up
  make down      stops all of it, keeps the data
EOF
