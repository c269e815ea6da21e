#!/bin/bash
# postgres.sh start|stop|crash|resume DIR: a PostgreSQL server of the tests' own in DIR/pg, reached through a socket there and by nothing
# else.  start prints its URI.  As root it runs as the user postgres, for the server refuses root.  FSYNC=off: faster, for tests that
# only kill clients.  crash: as kill -9; resume: starts it again on what is there.
set -eu
action=$1 dir=$2/pg
bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || { echo "postgres.sh: no PostgreSQL here; deploy/deps.sh test installs it" >&2; exit 1; }
as=()
if [ "$(id -u)" -eq 0 ]; then
    as=(setpriv --reuid postgres --regid postgres --clear-groups)
fi
serve() {
    (cd / && "${as[@]}" "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 -s start \
        -o "-c listen_addresses= -c unix_socket_directories=$dir -c fsync=${FSYNC:-on} -c max_connections=40 -c shared_buffers=64MB" >/dev/null)
    echo "postgresql:///postgres?host=$dir&user=grey"
}
case $action in
start)
    mkdir -p "$dir"
    chmod 711 "$2"
    [ "$(id -u)" -ne 0 ] || chown postgres: "$dir"
    (cd / && "${as[@]}" "$bin/initdb" -D "$dir/data" -U grey -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null)
    serve
    ;;
resume) serve ;;
stop) (cd / && "${as[@]}" "$bin/pg_ctl" -D "$dir/data" -m fast -s -w stop) ;;
crash) (cd / && "${as[@]}" "$bin/pg_ctl" -D "$dir/data" -m immediate -s -w stop) ;;
*) echo "usage: postgres.sh start|stop|crash|resume DIR" >&2; exit 2 ;;
esac
