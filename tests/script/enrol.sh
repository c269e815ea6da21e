#!/bin/bash
# enrol.sh: if this fails, a gateway that was started from an image does not find its way into its site, keeps its token on the card, or loses what a
# person has configured.  Runs the image's script on folders of this machine; what would enrol is played.  TAP.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/applets" "$work/run/grey" "$work"/cards/{lo,eth0}
# In an image there is nothing but busybox.
for name in $(busybox --list); do ln -s "$(command -v busybox)" "$work/applets/$name"; done
# The partition is a folder; the agent says what it was asked and writes what it would.
for name in mount umount chown sync; do
    printf '#!/bin/sh\nexit 0\n' >"$work/bin/$name"
done
printf '#!/bin/sh\ncase $* in *"${WORN:-none}"*) exit 1 ;; esac\n' >"$work/bin/mount" # WORN=rw: no writes any more
cat >"$work/bin/date" <<'E2'
#!/bin/sh
[ "$1" = -s ] && echo "$2" >"$WORK/clock" && exit 0
echo "${NOW:-9999999999}"
E2
cat >"$work/bin/start-stop-daemon" <<'E2'
#!/bin/sh
echo "$*" >"$WORK/asked"
cp "$WORK/run/grey/token" "$WORK/used"
[ -z "${REFUSE:-}" ] || { echo "greyd: $REFUSE"; exit 1; }
echo "mode: edge" >"$WORK/identity/greyd.yaml"
echo "enrolled: node 'gw1' of site 's'; key, certificate and CA are in identity"
E2
chmod +x "$work"/bin/*
sed "s|=/data/etc|=$work/etc|; s|=/var/lib/grey/identity|=$work/identity|; s|/run/|$work/run/|g; s|=/sys/class/net|=$work/cards|; s|>/dev/console|>>$work/console|" deploy/image/root/usr/lib/grey-image/enrol >"$work/enrol"
chmod +x "$work/enrol"
export WORK=$work
card=$work/run/boot-partition
. tests/script/expect.sh
fresh() { # enroll.conf on stdin
    rm -rf "$card" "$work"/{etc,identity,console,asked,used,clock,run/enroll.conf} && mkdir -p "$card" "$work/etc" "$work/identity"
    cat >"$card/enroll.conf"
}
whole() {
    printf 'core=https://core:8443\ntoken=grey1:s:00:11\nnode=gw1\npeer_addr=10.20.0.11:9090\npeers=10.20.0.12:9090,10.20.0.13:9090\n'
}
enrol() { PATH=$work/bin:$work/applets "$work/enrol" "$@"; }
start() { enrol find && enrol; }
there() { (cd "$work" && ls -d "$@" 2>/dev/null | paste -sd ' '); }

whole | fresh
start
expect "a gateway with enroll.conf enrols" "$? $(cat "$work/used") $(grep -o -e '--node gw1' "$work/asked")" "0 grey1:s:00:11 --node gw1"
expect "and removes it, with the token" "$(there run/boot-partition/enroll.conf run/enroll.conf run/grey/token)" ""
expect "it knows its own address" "$(grep -c '^  peer_addr: "10.20.0.11:9090"$' "$work/etc/greyd.yaml")" 1
expect "and the others" "$(cat "$work/etc/default")" "GREY_CLUSTER_PEERS=10.20.0.12:9090,10.20.0.13:9090"
start
expect "the next start asks nothing" "$? $(wc -l <"$work/console")" "0 1"

{
    printf '\xef\xbb\xbf# ours\r\n\r\n'
    whole | sed 's/=/ = /; s/$/ \r/'
    printf ' bootstrap =  true\r\naddress = eth0 10.20.0.11/24 10.20.0.1\r\nhost = 10.20.0.1 core\r\ndns = 10.20.0.1'
} | fresh
start
expect "whatever editor wrote it" "$? $(cat "$work/used") $(tail -n 1 "$work/etc/default")" "0 grey1:s:00:11 GREY_RAFT_BOOTSTRAP=true"
expect "addresses and names are there before the network" "$(cat "$work/etc/addresses"); $(tail -n 1 "$work/etc/hosts"); $(cat "$work/etc/dns")" "eth0 10.20.0.11/24 10.20.0.1; 10.20.0.1 core; 10.20.0.1"
whole | sed 's/^peers=.*/peers = 10.20.0.12:9090, 10.20.0.13:9090/' | fresh
start
expect "peers may be written as people write lists" "$? $(sh -c '. "$1" && echo "$GREY_CLUSTER_PEERS"' - "$work/etc/default" 2>&1)" "0 10.20.0.12:9090,10.20.0.13:9090"

whole | fresh
REFUSE="this token was used (GREY-3012)" start
expect "a refusal is told on the card, and the file stays" "$? $(cat "$card/enroll-failed.txt") $(there run/boot-partition/enroll.conf)" \
    "1 greyd: this token was used (GREY-3012) run/boot-partition/enroll.conf"
expect "nothing is configured then, and no token lies about" "$(there etc/greyd.yaml run/grey/token)" ""
start
expect "the next try may succeed, and takes the reason away" "$? $(there run/boot-partition/enroll-failed.txt etc/greyd.yaml)" "0 etc/greyd.yaml"

{ whole && echo 'peer_adr=10.20.0.11:9090'; } | fresh
start
expect "a name that is misspelt is told" "$? $(grep -c '(line and name: 6:peer_adr)' "$card/enroll-failed.txt") $(there asked)" "1 1 "
{ whole && echo 'http_addr="; rm -rf /'; } | fresh
start
expect "a value that could be read as more than a value is refused" "$? $(there asked etc/greyd.yaml)" "1 "
told() { # lines beside those that are needed: what the card tells
    { whole && printf '%b\n' "$1"; } | fresh
    start
    echo "$? $(cat "$card/enroll-failed.txt" 2>&1) $(there asked)"
}
expect "a word that is neither true nor false is told: it would else mean false" "$(told 'bootstrap = yes'); $(told 'attestation=True')" \
    "1 enroll.conf: bootstrap is true or false ; 1 enroll.conf: attestation is true or false "
expect "of two tokens none is guessed" "$(told 'token=grey1:s:00:22')" "1 enroll.conf: token stands there twice "
expect "an address without a card is told" "$(told 'address=10.20.0.11/24 10.20.0.1')" \
    "1 enroll.conf: address is a card, an address/bits and a router, not '10.20.0.11/24 10.20.0.1 ' "
expect "and one of a card that is not there, with those that are" "$(told 'address=eth0 10.20.0.11/24\naddress=eth7 10.20.1.11/24')" \
    "1 enroll.conf: there is no card eth7 here, but eth0 "
whole | grep -v '^token' | fresh
start
expect "what is missing is told, the token never" "$? $(cat "$card/enroll-failed.txt")" "1 enroll.conf: there is no line token="

whole | fresh
echo "mode: site # by hand" >"$work/etc/greyd.yaml"
start
expect "what a person configured stays" "$? $(cat "$work/etc/greyd.yaml") $(there run/boot-partition/enroll.conf)" "0 mode: site # by hand "
# A card that takes no writes any more, as it is at the end of its life, or with its lock on.
whole | fresh
WORN=rw start
expect "a boot partition that cannot be written does not hold the gateway up" "$? $(there etc/greyd.yaml etc/default) $(head -n 1 "$work/console")" \
    "0 etc/default etc/greyd.yaml enroll.conf, with its token, cannot be removed from the boot partition"
rm "$work/asked"
WORN=rw REFUSE="the core cannot be reached" start
expect "nor does the core at its next start, for it is asked once" "$? $(there asked)" "0 "
REFUSE="the core cannot be reached" start
expect "and when it can be written again the token goes" "$? $(there run/boot-partition/enroll.conf)" "0 "
whole | sed 's/00:11/00:22/' >"$card/enroll.conf"
start
expect "another enroll.conf is followed" "$? $(cat "$work/used")" "0 grey1:s:00:22"

whole | fresh
touch -d @2000000000 "$card/enroll.conf"
NOW=1000 start
expect "a board without a clock takes the file's time" "$(cat "$work/clock")" "@2000000000"
echo "1..$number"
exit $failed
