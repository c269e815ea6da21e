#!/bin/bash
# packages.sh: if this fails, a gateway cannot be installed or upgraded, loses its configuration or data when it is, or runs with more
# rights than it needs.  TAP.  BUILD has the programs and deb/, VERSION is theirs.  As root: it installs into a root of its own below
# build/packages, where no systemd runs: ROOT=clean, a Debian with what the packages depend on and nothing else, whose download is kept;
# or ROOT=machine, in seconds, this machine's root with a layer over it that takes every change and is thrown away.
set -uo pipefail
[ "${1:-}" = --mounts-of-its-own ] || {
    unshare --mount true 2>/dev/null && exec unshare --mount --propagation private "$0" --mounts-of-its-own
    echo "not ok 1 # SKIP a root for packages needs mounts: run it as root"
    exit 0
}
build=${BUILD:?} version=${VERSION:?} work=build/packages arch=$(dpkg --print-architecture)
packages=(grey-agent grey-tpm grey-ctl grey-core)
root=$work/root
export LC_ALL=C.UTF-8
unset MAKEFLAGS MAKELEVEL MFLAGS GREY_NODE_ID GREY_DATA_DIR
mkdir -p "$work"
number=0 failed=0
result() { # status sentence [what was said]
    number=$((number + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $number - $2"
    else
        echo "not ok $number - $2"
        sed 's/^/# /' <<<"${3:-}"
        failed=1
    fi
}
check() { # sentence command...: one that prints nothing, or why not
    local sentence=$1 said status
    shift
    said=$("$@" 2>&1)
    status=$?
    result $status "$sentence" "$said"
}
deb() { echo "$1/${2}_${3}_$arch.deb"; } # folder package version

# --- The files themselves --------------------------------------------------------------------------------------------------------------
lint() {
    local said
    said=$(lintian --allow-root --fail-on error,warning "$(deb "$build/deb" "$1" "$version")" 2>&1) || {
        echo "$said"
        return 1
    }
}
for package in "${packages[@]}"; do
    check "lintian has nothing against $package" lint "$package"
done
exposure() { # unit, at most so many tenths
    systemd-analyze security --offline=yes --threshold="$2" "deploy/systemd/$1.service" | grep -E '→|✗'
    return "${PIPESTATUS[0]}"
}
check "greyd.service is exposed by at most 2.5 of 10" exposure greyd 25
check "grey-core.service is exposed by at most 2.5 of 10" exposure grey-core 25
check "grey-launch.service, for whose tasks devices and compilers stay open, by at most 4" exposure grey-launch 40
check "grey-tpm.service, which is root, by at most 1.5" exposure grey-tpm 15
check "bash reads the completion" bash -n "$build/completion/bash"
check "zsh reads the completion" zsh -n "$build/completion/zsh"
# What the unit allows, as systemd's own groups say; what the program asks the kernel for, as strace says.
forbidden_calls() { # unit, file of strace
    python3 - "deploy/systemd/$1.service" "$2" <<'EOF'
import re, subprocess, sys
unit, trace = (open(path).read() for path in sys.argv[1:])

def calls(name):
    if not name.startswith("@"):
        return {name}
    said = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    return set().union(*(calls(line.strip()) for line in said.splitlines()[1:] if line.strip() and not line.strip().startswith("#")))

allowed = set()
for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.M):
    for name in line.lstrip("~").split():
        allowed = allowed - calls(name) if line.startswith("~") else allowed | calls(name)
used = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", trace, re.M))
assert len(used) > 30 and len(allowed) > 100, (used, allowed)
if used - allowed:
    sys.exit("its unit forbids: " + " ".join(sorted(used - allowed)))
EOF
}
calls_of_greyd() { # as somebody who is not root: SQLite does other things for root
    local http peer pid at
    read -r http peer < <(free_ports)
    at=$(mktemp -d) && cp "$build/greyd" "$build/greyctl" "$at" && chown -R nobody "$at" || return 1
    setpriv --reuid nobody --regid nogroup --clear-groups strace -f -qq -o "$at/calls" "$at/greyd" --mode site --node-id gw1 --data-dir "$at/data" \
        --http-addr "127.0.0.1:$http" --peer-addr "127.0.0.1:$peer" --bootstrap >"$at/log" 2>&1 &
    pid=$!
    for _ in $(seq 1 150); do
        "$at/greyctl" --addr "unix:$at/data/greyd.sock" --timeout 5 kv put colour blue >/dev/null 2>&1 && break
        sleep 0.2
    done
    "$at/greyctl" --addr "unix:$at/data/greyd.sock" snapshot create >/dev/null || {
        cat "$at/log"
        return 1
    }
    kill -TERM "$(cat /proc/$pid/task/$pid/children)"
    wait $pid
    forbidden_calls greyd "$at/calls"
    local status=$?
    rm -rf "$at"
    return $status
}
free_ports() { # two
    python3 -c 'import socket
s = [socket.socket() for _ in range(2)]
[x.bind(("127.0.0.1", 0)) for x in s]
print(*[x.getsockname()[1] for x in s])'
}
check "greyd needs no system call that its unit forbids" calls_of_greyd
same_needs() {
    local mine theirs
    mkdir -p "$work/needs/debian" && printf 'Source: x\n\nPackage: x\nArchitecture: any\n' >"$work/needs/debian/control"
    theirs=$(cd "$work/needs" && dpkg-shlibdeps -O "$@" 2>/dev/null | sed 's/^shlibs:Depends=//') || return 1
    mine=$(deploy/debian/libraries.sh "$@")
    [ "$mine" = "$theirs" ] || {
        printf 'ours:   %s\ntheirs: %s\n' "$mine" "$theirs"
        return 1
    }
}
check "what the packages depend on is what dpkg-shlibdeps says" same_needs "$PWD/$build"/{greyd,greyctl,grey-core,grey-launch,grey-tpm,grey-update}
# Three failures within ten minutes, then a good end; after each failure how long the next start waits.
waits() {
    local file=$work/failures second seen=''
    rm -f "$file"
    for second in 100 110 120 130 140 150 160 170 180 190 2000; do
        echo "$second.5 1.0" >"$work/uptime"
        SERVICE_RESULT=exit-code BACK_OFF_UPTIME=$work/uptime deploy/systemd/back-off ended "$file"
        seen+=" $(BACK_OFF_SLEEP='echo slept' BACK_OFF_UPTIME=$work/uptime deploy/systemd/back-off wait "$file" | sed -n 's/^slept //p')"
    done
    SERVICE_RESULT=success BACK_OFF_UPTIME=$work/uptime deploy/systemd/back-off ended "$file"
    [ ! -e "$file" ] && [ "$(echo $seen)" = "1 2 4 8 16 32 60 60 60" ] || {
        echo "waited:$seen"
        return 1
    }
}
check "a service that fails again and again waits longer, to a minute, and a good end is forgotten" waits

# --- Twice the same bytes --------------------------------------------------------------------------------------------------------------
# From another folder, with other times, in another time zone, under another umask and locale.
elsewhere=$work/a-folder-of-another-name
rebuild() {
    rm -rf "$elsewhere" && mkdir -p "$elsewhere"
    git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - 2>/dev/null | tar -x -C "$elsewhere" -m
    (umask 077 && TZ=Pacific/Kiritimati LC_ALL=C make -C "$elsewhere" -j"$(nproc)" deb) >"$work/rebuild.log" 2>&1 || {
        tail -n 20 "$work/rebuild.log"
        return 1
    }
    local package
    for package in "${packages[@]}"; do
        cmp "$(deb "$build/deb" "$package" "$version")" "$(deb "$elsewhere/build/$arch/deb" "$package" "$version")" || return 1
    done
}
check "a build elsewhere gives the same bytes" rebuild

# --- A clean Debian root -------------------------------------------------------------------------------------------------------------------
# With what the packages depend on and nothing else; of alternatives the last: the programs that stand in for systemd.
needs() {
    for package in "${packages[@]}"; do
        dpkg-deb -f "$(deb "$build/deb" "$package" "$version")" Depends
    done | tr ',' '\n' | sed 's/.*|//; s/(.*//; s/ //g' | grep -v '^grey-' | sort -u | paste -sd ,
}
layered_root() {
    mkdir -p "$work/layer" "$root" && mount -t tmpfs -o mode=0755 layer "$work/layer" && mkdir "$work/layer/upper" "$work/layer/work" &&
        mount -t overlay -o "lowerdir=/,upperdir=$work/layer/upper,workdir=$work/layer/work" root "$root" &&
        rm -rf --one-file-system "${root:?}/run/systemd" && mkdir -p "$root/proc" "$root/dev"
}
clean_root() {
    local include tarball
    include=$(needs)
    tarball=$work/debian-$(sha256sum <<<"$include" | cut -c 1-12)
    if [ ! -s "$tarball.tar" ]; then
        mmdebstrap --variant=essential --include="$include" "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$tarball-new.tar" >"$work/mmdebstrap.log" 2>&1 || {
            tail -n 20 "$work/mmdebstrap.log"
            return 1
        }
        mv "$tarball-new.tar" "$tarball.tar"
    fi
    rm -rf --one-file-system "$root" && mkdir -p "$root" && tar -x -C "$root" -f "$tarball.tar" --exclude='./dev/*'
}
inside() { # command...: in the root, with processes and devices, and nobody who answers questions
    unshare --mount --pid --fork --kill-child sh -c 'root=$1; shift; mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
        exec chroot "$root" "$@"' sh "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@" </dev/null
}
install_all() { # folder version
    local package
    rm -rf "$root/debs" && mkdir "$root/debs"
    for package in "${packages[@]}"; do
        cp "$(deb "$1" "$package" "$2")" "$root/debs/" || return 1
    done
    inside sh -c 'dpkg --force-confdef --force-confold -i /debs/*.deb' || return 1
    rm -rf "$root/debs"
}
installed() { # version
    local package
    for package in "${packages[@]}"; do
        [ "$(inside dpkg-query -W -f '${db:Status-Status} ${Version}' "$package")" = "installed $1" ] || {
            echo "$package is not installed as $1"
            return 1
        }
    done
}
case ${ROOT:-clean} in
machine) check "there is a layer over this machine's root" layered_root ;;
*) check "there is a Debian root with what the packages depend on" clean_root ;;
esac
[ $failed -eq 0 ] || {
    echo "1..$number"
    exit 1
}
list() { # folder: what is in it, but for what every installation writes
    find "$1" -xdev \( -path "$1/var/log/*" -o -path "$1/var/cache/*" -o -path "$1/var/lib/dpkg/*" \) -prune -o -printf '%P\n' | sort
}
before=
[ "${ROOT:-clean}" = machine ] || before=$(list "$root")
new_files() {
    if [ "${ROOT:-clean}" = machine ]; then # the layer has what changed, and the folders above it
        list "$work/layer/upper" | while read -r path; do
            [ -e "/$path" ] || [ -L "/$path" ] || echo "$path"
        done
    else
        comm -13 <(echo "$before") <(list "$root")
    fi
}

# The version before: the same programs, and a configuration file that this version changes.
previous=0.1.0~previous
older() {
    sed -i '1i # The version before said something else here.' "$elsewhere/deploy/etc/greyd.yaml"
    (cd "$elsewhere" && deploy/debian/build.sh "$arch" "build/$arch" "$previous" older) && install_all "$elsewhere/older" "$previous" && installed "$previous"
}
check "the version before installs where no systemd runs" older
owners() {
    local said
    said=$(inside stat -c '%U:%G %a %n' /var/lib/grey /var/lib/grey/identity /var/lib/grey-core)
    [ "$said" = "grey:grey 700 /var/lib/grey
grey:grey 700 /var/lib/grey/identity
grey-core:grey-core 700 /var/lib/grey-core" ] || {
        echo "$said"
        return 1
    }
}
check "data and keys are read by their own user alone" owners
nothing_runs() { # a gateway that nobody configured must not begin a life of its own
    ! find "$root/etc/systemd" -name '*grey*' | grep . && [ "$(ls -A "$root/var/lib/grey")" = identity ] && ! inside greyd --check-config 2>/dev/null
}
check "nothing is enabled, nor would start, before it is configured" nothing_runs
verified() { # every word of the units is known, and what they start is there; the clean root has no systemd and no targets
    local said
    said=$(systemd-analyze verify --man=no --root="$root" {greyd,grey-launch,grey-core,grey-tpm,grey-update}.service grey-update.path 2>&1 | grep -E '(greyd|grey-launch|grey-core|grey-tpm)\.service|grey-update' |
        grep -v 'Unit [a-z]*\.target not found')
    [ -z "$said" ] || {
        echo "$said"
        return 1
    }
}
check "systemd takes the units" verified
# The unit and its drop-ins in systemd's order: these by their names, whichever folder they lie in.
measured() { # root of the packages, [slots: the drop-in of docs/UPDATES.md is linked]
    python3 - "$1" "${2:-}" <<'EOF'
import glob, os, re, shlex, subprocess, sys
root, slots = sys.argv[1:]
parts = glob.glob(root + "/lib/systemd/system/greyd.service.d/*.conf") + ([root + "/usr/lib/grey-agent/slots.conf"] if slots else [])
start, before, environment = [], [], {}
for path in [root + "/lib/systemd/system/greyd.service"] + sorted(parts, key=os.path.basename):
    for key, value in re.findall(r"^(ExecStart|ExecStartPre|Environment)=(.*)$", open(path).read(), re.M):
        if key == "Environment":
            environment.update(word.split("=", 1) for word in shlex.split(value))
        else:
            commands = start if key == "ExecStart" else before
            commands[:] = commands + [value] if value else []
measure = [i for i, line in enumerate(before) if "grey-tpm" in line]
boot = [i for i, line in enumerate(before) if "grey-update boot" in line]
assert len(start) == 1 and len(measure) == 1 and len(boot) == (1 if slots else 0), (start, before)
assert not slots or boot[0] < measure[0], "it measures before it is known which slot starts"
words = [word.replace("$$", "$") for word in shlex.split(before[measure[0]].lstrip("-+@!:"))]
words[-1] = words[-1].replace("/dev/tpmrm0", "/dev/null").replace("exec /usr/bin/grey-tpm", "exec echo")
said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.split()
program, runs = said[said.index("--program") + 1], shlex.split(start[0])[0]
assert program == runs, "measured: %s, started: %s" % (program, runs)
assert runs.startswith("/var/lib/grey-slots/" if slots else "/usr/bin/"), runs
EOF
}
check "the program that starts is the one that is measured" measured "$root"
check "also when it starts from a slot" measured "$root" slots
answers() {
    local line
    for line in 'greyd --help' 'greyd --version' 'greyctl --version' 'grey-core --help' 'grey-launch --version' 'grey-tpm --help' 'grey-update --help'; do
        # shellcheck disable=SC2086  # words
        inside setpriv --reuid nobody --regid nogroup --clear-groups $line >/dev/null || {
            echo "$line: exit status $?"
            return 1
        }
    done
}
check "every program starts for anybody" answers

# --- A gateway, as docs/INSTALL.md sets it up ----------------------------------------------------------------------------------------------
read -r http peer < <(free_ports)
configure() { # alone, without the links that need others
    sed -e "s/127.0.0.1:8080/127.0.0.1:$http/; s/10.20.0.11:9090/127.0.0.1:$peer/; s/^mode: edge/mode: site/; /^security:/,/limit_mbps/d; s/^#\(scheduler:\| *enabled\| *launcher\)/\1/" \
        "$root/usr/share/doc/grey-agent/examples/greyd.yaml" >"$root/etc/grey/greyd.yaml"
    sed -i 's/^#GREY_RAFT_BOOTSTRAP/GREY_RAFT_BOOTSTRAP/' "$root/etc/default/greyd"
    inside setpriv --reuid grey --regid grey --clear-groups touch /var/lib/grey/identity/node.key && inside greyd --check-config &&
        inside greyd --check-config --profile /usr/share/doc/grey-agent/examples/boards/generic-amd64.yaml
}
command_of() { sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/$1.service"; }
rights_of() { sed -n 's/^CapabilityBoundingSet=//p' "$root/lib/systemd/system/$1.service" | tr 'A-Z' 'a-z' | sed 's/cap_/+/g; s/ /,/g'; }
# The commands of the units, as the users and with the capabilities that these say; then what is asked, then both are stopped.
with_gateway() { # shell script
    cat >"$root/root/run.sh" <<EOF
set -eu
trap 'kill -TERM \$agent; wait \$agent || echo "greyd ended with \$?"; kill -TERM \$launch; wait \$launch || true' EXIT
mkdir -p /run/grey-launch && chmod 0711 /run/grey-launch
setpriv --bounding-set "-all,$(rights_of grey-launch)" --inh-caps -all --no-new-privs $(command_of grey-launch) >/root/launch.log 2>&1 &
launch=\$!
set -a; . /etc/default/greyd; set +a
setpriv --reuid grey --regid grey --clear-groups --bounding-set -all --inh-caps -all --no-new-privs $(command_of greyd) >/root/greyd.log 2>&1 &
agent=\$!
for _ in \$(seq 1 150); do
    greyctl --timeout 2 kv list >/dev/null 2>&1 && break
    kill -0 \$agent || { cat /root/greyd.log; exit 1; }
    sleep 0.2
done
$1
EOF
    inside sh /root/run.sh || {
        tail -n 15 "$root/root/greyd.log" "$root/root/launch.log"
        return 1
    }
}
check "a gateway is configured" configure
first_start() {
    local healthy=no pid
    with_gateway 'greyctl kv put colour blue && sleep 1' &
    pid=$!
    while [ $healthy = no ] && kill -0 $pid 2>/dev/null; do
        [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$http/health")" = 200 ] && healthy=yes
        sleep 0.1
    done
    wait $pid && [ $healthy = yes ]
}
check "it starts as its unit says, answers /health, and greyctl finds it" first_start
# Taken as soon as the site knows that this gateway takes tasks.
tasks='for _ in $(seq 1 150); do
    said=$(greyctl task submit --output json -- /bin/sh -c "id -un; echo kept" 2>&1) && break
    sleep 0.2
done
id=$(echo "$said" | sed -n "s/.*\"id\": *\"\([^\"]*\)\".*/\1/p" | head -n 1)
[ -n "$id" ] || { echo "$said"; exit 1; }
for _ in $(seq 1 150); do
    [ "$(greyctl task logs "$id" 2>/dev/null | tr "\n" " ")" = "grey-task kept " ] && exit 0
    sleep 0.2
done
greyctl task show "$id"; greyctl task logs "$id"; exit 1'
check "grey-launch runs a task as grey-task with the few rights of its unit" with_gateway "$tasks"

# --- Upgrade, removal, purge -----------------------------------------------------------------------------------------------------------------
upgrade() {
    local mine
    mine=$(sha256sum <"$root/etc/grey/greyd.yaml")
    install_all "$build/deb" "$version" && installed "$version" && [ "$mine" = "$(sha256sum <"$root/etc/grey/greyd.yaml")" ] || {
        echo "the configuration changed"
        return 1
    }
    grep -q '^GREY_RAFT_BOOTSTRAP=true' "$root/etc/default/greyd"
}
check "an upgrade asks nothing and keeps the configuration, where the file of the package changed too" upgrade
check "and the data" with_gateway '[ "$(greyctl kv get colour)" = blue ]'
inside dpkg --remove "${packages[@]}" >"$work/remove.log" 2>&1
result $? "they are removed" "$(cat "$work/remove.log")"
kept() {
    ! ls "$root"/usr/bin/grey* 2>/dev/null && [ -s "$root/etc/grey/greyd.yaml" ] && [ -e "$root/var/lib/grey/identity/node.key" ] && [ -e "$root/var/lib/grey/state.db" ]
}
check "which keeps configuration, keys and data" kept
again() { install_all "$build/deb" "$version" && with_gateway '[ "$(greyctl kv get colour)" = blue ]'; }
check "installed again it goes on where it was" again
inside dpkg --purge "${packages[@]}" >"$work/purge.log" 2>&1
result $? "they are purged without a question" "$(cat "$work/purge.log")"
nothing_left() {
    local more
    rm -f "$root"/root/{run.sh,greyd.log,launch.log}
    more=$(new_files | grep -vE '^(etc/(passwd|group|g?shadow|subuid|subgid)-?|etc/\.pwd\.lock)$')
    [ -z "$more" ] || {
        echo "$more"
        return 1
    }
}
check "and nothing of them is left but their users" nothing_left
echo "1..$number"
exit $failed
