#!/bin/bash
# inside.sh BUILD: what run.sh has the emulated machine do.
set -u
build=$1 status=0
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
controllers=$(cat /sys/fs/cgroup/cgroup.controllers)
case $controllers in
*cpu*memory*pids*) echo "ok 1 - the machine has control groups of version 2: $controllers" ;;
*) echo "not ok 1 - control groups of version 2: $controllers" && status=1 ;;
esac
# 2: the version of control groups that must be used there
GREY_CAGE=2 CMOCKA_MESSAGE_OUTPUT=TAP "$build/tests/test_cage" 2>/dev/null | grep -E '^(ok|not ok|#)' || status=1
[ "${PIPESTATUS[0]}" -eq 0 ] || status=1
# A whole site, with tasks under those groups.
BUILD=$build tests/system/test_run_tasks.py >/tmp/run_tasks 2>&1 || status=1
grep -E '^(ok|not ok)' /tmp/run_tasks
grep -q 'limits=cgroup v2' /tmp/run_tasks || grep -qE '^ok .*memory$' /tmp/run_tasks || status=1
# Images under crun, which looks at the groups of the machine before it does anything.
BUILD=$build tests/system/test_images.py >/tmp/images 2>&1 || status=1
grep -E '^(ok|not ok)' /tmp/images
grep -qE '^ok .*nothing that was unpacked stays' /tmp/images || status=1
[ $status -eq 0 ] || tail -n 60 /tmp/run_tasks /tmp/images | sed 's/^/# /'
exit $status
