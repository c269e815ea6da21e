#!/bin/bash
# cuts.sh BUILD [CUTS]: records what a gateway writes to its disk, below the file system, and cuts the power at CUTS boundaries of its writes, or at
# all (replay.py).  TAP.  Needs deps.sh cuts and the right to mount.
set -u
here=$(dirname "$0") build=$1
folder=$(mktemp -d -p /dev/shm grey-cuts-XXXXXX) || exit 1 # the disk below is memory: its time is not what is tried
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/recorded" "$folder/mnt"
truncate -s 64M "$folder/fresh"
mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 "$folder/fresh" || exit 1
cp --sparse=always "$folder/fresh" "$folder/disk"
if ! mount -o loop "$folder/disk" "$folder/mnt" 2>/dev/null || ! umount "$folder/mnt" || ! [ -w /dev/fuse ]; then
    echo "1..0 # SKIP power cuts below the file system: no right to mount a disk image here"
    exit 0
fi
cp --sparse=always "$folder/fresh" "$folder/disk"
"$here/recorder.py" "$folder/disk" "$folder/record" "$folder/recorded" &
recorder=$!
trap 'umount "$folder/mnt" 2>/dev/null; umount "$folder/recorded" 2>/dev/null; wait $recorder; rm -rf "$folder"' EXIT
for _ in $(seq 100); do
    [ -e "$folder/recorded/disk" ] && break
    sleep 0.1
done
mount -t ext4 -o loop,noatime "$folder/recorded/disk" "$folder/mnt" || exit 1
"$here/record.py" "$build" "$folder/mnt" "$folder/recorded/promises"
status=$?
umount "$folder/mnt" && umount "$folder/recorded" && wait $recorder
trap 'rm -rf "$folder"' EXIT
"$here/replay.py" "$build" "$folder" "${@:2}" || status=1
exit $status
