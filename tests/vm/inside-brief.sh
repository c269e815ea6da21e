# inside-brief.sh: what brief.sh has the emulated machine do; a shell, busybox and our programs are all that there is.
set -u
status=0
echo # what the kernel said last may have no end of line
ok() { # WORD...: how the last command ended
    if [ $? -eq 0 ]; then echo "ok 1 - $*"; else echo "not ok 1 - $*" && status=1; fi
}
controllers=$(cat /sys/fs/cgroup/cgroup.controllers)
echo "$controllers" | grep -q 'cpu.*io.*memory.*pids'
ok "the machine has control groups of version 2: $controllers"
mke2fs -I 256 /dev/vda >/dev/null && mount -t ext4 /dev/vda /tmp && chmod 1777 /tmp
ok "it has a disk"

tests() { # PROGRAM: its tests; nothing that it can try here is left out
    CMOCKA_MESSAGE_OUTPUT=TAP "$1" >/tmp/said 2>&1 || status=1
    grep -E '^(ok|not ok) ' /tmp/said
    if grep -qE 'SKIP|not tried' /tmp/said; then
        echo "not ok 1 - $1 left something out: $(grep -E 'SKIP|not tried' /tmp/said | head -n 1)" && status=1
    fi
    [ $status -eq 0 ] || grep -vE '^[0-9-]+T' /tmp/said | sed 's/^/# /'
}
export GREY_PATIENCE_S=120
GREY_CAGE=2 tests test_cage
GREY_TESTS='test_apart_*' tests test_apart

# A site of one gateway.
mkdir -p /tmp/site
cat >/tmp/site/greyd.yaml <<END
mode: single
node: {id: one}
networking: {http_addr: "127.0.0.1:8443", peer_addr: "127.0.0.1:8444", socket: "/tmp/site/s"}
storage: {data_dir: "/tmp/site/data"}
scheduler: {cpu_limit_millicores: 2000, memory_limit_bytes: 536870912, launcher: "/tmp/launch/launch.sock"}
END
grey-launch --dir /tmp/launch >/tmp/launch.log 2>&1 &
greyd --config /tmp/site/greyd.yaml >/tmp/greyd.log 2>&1 &
ask() { greyctl --addr http://127.0.0.1:8443 "$@" 2>/tmp/why; }
try() { # SECONDS COMMAND...: until it is well
    local left=$1
    shift
    until "$@"; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 1
    done
}
hog() { ask task submit --file /tmp/hog >/dev/null; }
cat >/tmp/hog <<'END'
{"id": "hog", "command": ["/bin/sh", "-c", "x=x; while :; do x=$x$x; done"], "resources": {"cpu_millicores": 500, "memory_bytes": 67108864}}
END
is() { ask task show "$1" | grep -Eq "^$2 +$3"; }
try 120 hog
ok "a site of one gateway takes a task"
try 120 is hog reason memory
ok "it says that the task was killed for its memory: $(ask task show hog | grep -E '^(state|reason)' | tr -s ' \n' ' ')"
grep -q 'limits=cgroup v2' /tmp/launch.log
ok "under control groups of version 2"
[ $status -eq 0 ] || tail -n 20 /tmp/launch.log /tmp/greyd.log /tmp/why | sed 's/^/# /'
exit $status
