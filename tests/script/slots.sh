#!/bin/bash
# slots.sh: if this fails, an update that does not work is started for ever, a power cut while the choice of a slot is written leaves a gateway
# that does not know which one to start, or a word of confirmation counts for what it was not said of, or is lost.  TAP.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# In an image there is nothing but busybox.
mkdir "$work/applets"
for name in $(busybox --list); do ln -s "$(command -v busybox)" "$work/applets/$name"; done
slot() { PATH=$work/applets busybox sh deploy/image/slot "$@"; }
export SLOT_RUNNING=$work/running
. tests/script/expect.sh
fresh() {
    truncate -s 0 "$work/state" && truncate -s 1M "$work/state"
    head -c 100000 /dev/urandom >"$work/update"
    truncate -s 200000 "$work/a" "$work/b"
}
boot() { # starts what it says
    local to
    to=$(slot boot "$work/state")
    echo "grey.slot=$to" >"$SLOT_RUNNING"
    echo "$to"
}
install() { slot install "$work/state" "$work/update" "$work/a" "$work/b"; }

fresh
expect "a new disk starts slot a" "$(boot)" a
boot >/dev/null
install
expect "an update goes to the slot that does not run" "$(cmp -n 100000 "$work/update" "$work/b" && echo same)" same
expect "and is tried three times, then left" "$(boot) $(boot) $(boot) $(boot) $(boot)" "b b b a a"
boot >/dev/null
install
expect "a confirmed one is kept" "$(boot) $(slot confirm "$work/state") $(boot) $(boot) $(boot) $(boot)" "b  b b b b"
slot install "$work/state" "$work/update" "$work/a" "$work/b"
expect "the next one goes to the other" "$(boot)" a

# The power goes while a sector is written: whatever part of it is there, the start is one that would have been without the write, or with it.
torn=
for bytes in $(seq 0 40); do
    for sector in 0 8; do
        fresh
        boot >/dev/null
        install
        cp "$work/state" "$work/before"
        boot >/dev/null # counts a try down
        cmp -s -i $((sector * 512)) -n 512 "$work/before" "$work/state" && continue
        dd if="$work/state" of="$work/before" bs=1 skip=$((sector * 512)) seek=$((sector * 512)) count="$bytes" conv=notrunc 2>/dev/null
        cp "$work/before" "$work/state"
        said=$(boot)
        [ "$said" = b ] || torn="$torn $bytes:$said"
    done
done
expect "a power cut while the choice is written loses nothing" "$torn" ""
fresh
boot >/dev/null
dd if=/dev/urandom of="$work/state" bs=512 count=16 conv=notrunc 2>/dev/null
expect "of noise nothing is believed" "$(boot)" a

# A disk that takes no writes any more, as a card does at the end of its life: dd reads, and writes nothing.
fresh
boot >/dev/null
install
boot >/dev/null
slot confirm "$work/state" # b is kept
install
mkdir "$work/worn" && cp -a "$work/applets/." "$work/worn/" && rm "$work/worn/dd"
printf '#!/bin/sh\ncase "$*" in *of=*) exit 1 ;; esac\nexec busybox dd "$@"\n' >"$work/worn/dd" && chmod +x "$work/worn/dd"
expect "where no try can be counted, what is kept is started" "$(PATH=$work/worn /bin/sh deploy/image/slot boot "$work/state")" b
expect "and what was to be tried is tried when it can" "$(boot)" a

# Signed roots.
export GREY_UPDATE=${BUILD:-build/amd64}/grey-update SLOT_BOARD=$work/board SLOT_KEY=$work/maker/update-sign.pub
fresh
echo qemu-arm64 >"$SLOT_BOARD"
"$GREY_UPDATE" keygen "$work/maker" && "$GREY_UPDATE" keygen "$work/other"
bundle() { # board folder-of-the-key
    "$GREY_UPDATE" pack --sign "$work/$2" --product "$1" --version 2 --counter 2 --out "$work/bundle" "$work/update" >/dev/null
}
update() { slot update "$work/state" "$work/bundle" "$work/a" "$work/b" 2>/dev/null && echo taken || echo refused; }
boot >/dev/null
bundle qemu-arm64 other
expect "a root that its maker did not sign is refused, and the one that runs stays" "$(update) $(boot)" "refused a"
bundle raspberrypi4 maker
expect "one for another board likewise" "$(update) $(boot)" "refused a"
bundle qemu-arm64 maker
expect "one that is signed goes to the other slot, and is tried" "$(update) $(cmp -n 100000 "$work/update" "$work/b" && echo same) $(boot)" "taken same b"

# What greyd says of the version on trial (docs/UPDATES.md).
mkdir "$work/base" "$work/inbox"
places=(--slots "$work/slots" --base "$work/base" --inbox "$work/inbox" --key "$work/maker/update-sign.pub")
packed=$("$GREY_UPDATE" pack --sign "$work/maker" --version 2 --counter 2 --out "$work/bundle" "$work/update")
kept() { "$GREY_UPDATE" show --slots "$work/slots" | awk '$1 == "keep" || $1 == "try" || $1 == "failed-why" { printf "%s ", $2 }'; }
confirm() { echo "${packed%% *}" >"$work/inbox/confirm"; }
confirm
"$GREY_UPDATE" install "$work/bundle" "${places[@]}" --confirm-s 0 -- true 2>/dev/null
expect "a confirmation from before the trial does not end it" "$(kept)" "base - 3308 "
# It ends when it would have greyd restarted, as in a power cut; the next one finds a disk that takes nothing, the one after that a mended disk.
# shellcheck disable=SC2016  # the shell that is started knows who started it
{ "$GREY_UPDATE" install "$work/bundle" "${places[@]}" -- sh -c 'kill -KILL $PPID'; } 2>/dev/null
expect "a trial goes on after a power cut" "$(kept)" "base a 3308 "
confirm
exec {said}< <(trap '' XFSZ && ulimit -f 0 && exec "$GREY_UPDATE" run "${places[@]}" -- true 2>&1)
full=$!
expect "a confirmation that cannot be kept is told of" "$(grep -c -m 1 GREY- <&"$said") $(kept)" "1 base a 3308 "
kill "$full"
exec {said}<&-
"$GREY_UPDATE" run "${places[@]}" --confirm-s 0 -- true 2>/dev/null
expect "and holds when the disk can be written again" "$(kept)$(ls "$work/inbox")" "a - 0 "
# What an engineer types by mistake is named, and does nothing.
refuses() { # words: the status, and what is said of it
    local said status
    said=$("$GREY_UPDATE" "$@" 2>&1)
    status=$?
    echo "$status $(grep -c "GREY-.*$wrong" <<<"$said")"
}
expect "a version that nobody would start is not installed" "$(wrong='takes -- and a command' refuses install "$work/bundle" "${places[@]}") $(kept)" "2 1 a - 0 "
expect "an option that is none is named" "$(wrong='--slot is no option' refuses show --slot "$work/slots")" "2 1"
expect "and a number that is none, or would be over at once" "$(wrong='--confirm-s is no option' refuses run "${places[@]}" --confirm-s soon -- true) $(wrong='--confirm-s is no option' refuses run "${places[@]}" --confirm-s 9223372036854775807 -- true)" "2 1 2 1"
expect "a word too many likewise" "$(wrong="has no use for '/var/lib/grey-slots'" refuses show /var/lib/grey-slots)" "2 1"
# The program itself is packed under its own name: nothing of it is lost before the bundle is whole.
cp "$work/update" "$work/greyd"
"$GREY_UPDATE" pack --sign "$work/maker" --version 3 --counter 3 --out "$work/greyd" "$work/greyd" >/dev/null
expect "a bundle may take the place of what was packed" "$? $(cmp -n 100000 -i 0:4096 "$work/update" "$work/greyd" && echo same)" "0 same"
mkdir "$work/root.bundle.parts"
truncate -s 1M "$work/image" && dd if="$work/update" of="$work/image" conv=notrunc 2>/dev/null
"$GREY_UPDATE" pack --sign "$work/maker" --product qemu-arm64 --version 3 --counter 3 --out "$work/root.bundle" --image "$work/image" >/dev/null
expect "an image is packed after one that was interrupted" "$? $(ls -d "$work"/root.bundle*)" "0 $work/root.bundle"
# The maker's key is lost while a version is on trial: it comes to its end all the same.
packed=$("$GREY_UPDATE" pack --sign "$work/maker" --version 4 --counter 4 --out "$work/bundle" "$work/update")
# shellcheck disable=SC2016  # as above
{ "$GREY_UPDATE" install "$work/bundle" "${places[@]}" -- sh -c 'kill -KILL $PPID'; } 2>/dev/null
confirm
"$GREY_UPDATE" run "${places[@]}" --key "$work/lost.pub" --confirm-s 5 -- true 2>/dev/null
expect "a trial ends although the maker's key is lost" "$(kept)" "b - 0 "

# A bundle of a turn that was cut: greyd hands it over again while it has its turn.
cp "$work/bundle" "$work/inbox/bundle"
"$GREY_UPDATE" boot "${places[@]}" 2>/dev/null
expect "what was not begun before a start is not begun after it by itself" "$(ls "$work/inbox")" ""
echo "1..$number"
exit $failed
