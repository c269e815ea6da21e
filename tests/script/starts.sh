#!/bin/bash
# starts.sh: if this fails, a gateway that was started from an image stays dark after its card or cable had a fault, or hangs until somebody pulls its
# plug.  Runs the image's scripts on folders of this machine, with the machine's commands played.  TAP.
# shellcheck disable=SC2016  # what is played expands where it is played
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{bin,applets,cards/lo,cards/eth0,run,etc}
# In an image there is nothing but busybox; of that, here, only what reads, and writes files.
for name in awk basename cat cut grep head ls mkdir mv paste readlink rm sed tail; do ln -s "$(command -v busybox)" "$work/applets/$name"; done
. tests/script/expect.sh
play() { # name: what it does
    printf '#!/bin/sh\necho "%s $*" >>"$WORK/done"\n%s\n' "$1" "$2" >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}
run() { # script words: what was done, in one line
    : >"$work/done" && : >"$work/console"
    PATH=$work/bin:$work/applets WORK=$work /bin/sh "$work/$1" "${@:2}"
    paste -sd ';' "$work/done"
}
for name in data net watch; do
    sed "s|=/sys/class/net|=$work/cards|; s|/sys/fs/ext4|$work/ext4|; s|=/data/etc|=$work/etc|; s|/run/|$work/run/|g; s|/dev/console|$work/console|; s|=/dev/watchdog|=$work/watchdog|" \
        "deploy/image/root/usr/lib/grey-image/$name" >"$work/$name"
done

# --- The data partition. ----------------------------------------------------------------------------------------------------------------------
play e2fsck 'rm -f "$WORK/damaged"; echo 0 >"$WORK/ext4/data/errors_count"'
play umount :
play sleep :
play reboot :
play mount 'case $* in *ext4*) [ ! -e "$WORK/damaged" ] ;; esac'
mkdir -p "$work/ext4/data" && : >"$work/run/data"
echo 0 >"$work/ext4/data/errors_count"
data="mount -t ext4 -o noatime,nodev,nosuid $work/run/data /data"
expect "a power cut asks for no check" "$(run data)" "$data"
: >"$work/damaged"
expect "a file system that cannot be mounted is mended" "$(run data)" "$data;e2fsck -y $work/run/data;$data"
echo 3 >"$work/ext4/data/errors_count"
expect "and one that was found damaged while it was in use" "$(run data)" "$data;umount /data;e2fsck -y $work/run/data;$data"
: >"$work/damaged"
play e2fsck :
expect "what cannot be mended is tried again" "$(run data | grep -o 'sleep 60;reboot -f$')" "sleep 60;reboot -f"
expect "and told on the boot partition" "$(cat "$work/run/boot-partition/start-failed.txt")" "the data partition could not be mounted, nor mended: write the image to a new card"

# --- The network. -----------------------------------------------------------------------------------------------------------------------------
play ip :
play udhcpc 'echo 4711 >"$WORK/run/net/${4##*/}"'
echo "eth1 10.20.0.11/24 10.20.0.1" >"$work/etc/addresses"
expect "a card gets its address" "$(run net once)" "ip link set eth0 up;udhcpc -b -p $work/run/net/eth0 -i eth0 -s /usr/lib/grey-image/lease"
mkdir "$work/cards/eth1"
expect "one that comes late as well, and the other goes on" "$(run net once)" "ip link set eth1 up;ip addr replace 10.20.0.11/24 dev eth1;ip route replace default via 10.20.0.1"
expect "nothing is done twice" "$(run net once)" ""
rmdir "$work/cards/eth1" && run net once >/dev/null && mkdir "$work/cards/eth1"
expect "one that was pulled out and comes back begins anew" "$(run net once | cut -d ';' -f 2)" "ip addr replace 10.20.0.11/24 dev eth1"

# --- The watchdog. ----------------------------------------------------------------------------------------------------------------------------
# Looks at greyd, one digit each: 1 it answers, 0 it does not, - it does not run; then the loop ends.
mknod "$work/watchdog" p
play kill 'echo 99999998 >"$WORK/pid"'
play sleep 'look=$(head -c 1 "$WORK/looks"); [ -n "$look" ] || exit 1; tail -c +2 "$WORK/looks" >"$WORK/rest"; mv "$WORK/rest" "$WORK/looks"; echo "$look" >"$WORK/look"'
play pidof '[ "$(cat "$WORK/look")" != - ] && cat "$WORK/pid"'
play greyctl '[ "$(cat "$WORK/look")" = 1 ]'
sed -i "s|-c \$device|-p \$device|; s|\bkill -|$work/bin/kill -|" "$work/watch" # sh knows kill by itself
watch() { # looks: how often the board was fed, and whether greyd was ended
    echo 99999999 >"$work/pid" && printf %s "$1" >"$work/looks"
    timeout 60 cat "$work/watchdog" >"$work/fed" &
    local reader=$! said
    said=$(run watch | tr ';' '\n' | grep -c '^kill -ABRT 99999999$')
    wait "$reader"
    echo "$(wc -l <"$work/fed") $said"
}
silent=00000000000000000000
expect "greyd that answers is left alone" "$(watch 1111)" "4 0"
expect "one that starts may take as long as it takes" "$(watch "--$silent$silent")" "42 0"
expect "one that answers no more is ended, once, and the board goes on" "$(watch "1$silent")" "21 1"
play kill :
expect "a board on which nothing helps is not fed any more" "$(watch "1$silent$silent")" "25 1"
echo "1..$number"
exit $failed
