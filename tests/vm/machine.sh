# machine.sh: for run.sh and brief.sh, which source it with vm=FOLDER: Debian's kernel, unpacked there and never installed, an initramfs of busybox
# and modules, and an emulated machine (qemu, without help of the processor) that boots them.  Needs deps.sh vm.
mkdir -p "$vm"

# METAPACKAGE: its kernel; sets kernel and modules.  Of the files below lib/modules only those named are unpacked.
fetch_kernel() {
    local package place=$vm/$1 names=(./boot) file
    shift
    [ $# -gt 0 ] || names+=(./lib)
    for file in "$@"; do
        names+=("./lib/modules/*/$file")
    done
    if ! ls "$place"/boot/vmlinuz-* >/dev/null 2>&1; then
        package=$(apt-cache depends "$(basename "$place")" 2>/dev/null | awk '/Depends:/ {print $2; exit}')
        [ -n "$package" ] || return 1
        rm -rf "$place" "$place.new" && mkdir -p "$place.new"
        (cd "$place.new" && apt-get download -qq "$package" 2>/dev/null && dpkg-deb --fsys-tarfile "$package"_*.deb |
            tar -x --wildcards "${names[@]}" && rm -f "$package"_*.deb) || return 1
        mv "$place.new" "$place"
    fi
    kernel=$(ls "$place"/boot/vmlinuz-*)
    modules=$(echo "$place"/lib/modules/*)
    [ -e "$modules/modules.dep" ] || busybox depmod -b "$place" "$(basename "$modules")"
}

order=()
want() { # into the initramfs, with what it needs before it
    local line file
    line=$(grep -E "/$1\.ko[^:]*:" "$modules/modules.dep" | head -n 1)
    [ -n "$line" ] || return 0 # built in
    for file in $(printf '%s\n' ${line#*:} | tac) ${line%%:*}; do
        [ -e "$vm/root/modules/$(basename "$file")" ] && continue
        cp "$modules/$file" "$vm/root/modules/"
        order+=("$(basename "$file")")
    done
}

# Boots what lies in $vm/root (no_timer_check: on a loaded machine the kernel finds the emulated timer too slow, and stops); its console is in $vm/console.  True: it came to a good end.  Shows the tests.
boot() {
    (cd "$vm/root" && find . | cpio -o -H newc --quiet >"$vm/initrd")
    timeout "${VM_TIMEOUT:-400}" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -nographic -no-reboot -nic none -kernel "$kernel" \
        -initrd "$vm/initrd" -append "console=ttyS0 quiet loglevel=1 panic=-1 psi=1 no_timer_check" "$@" </dev/null >"$vm/console" 2>&1 || true
    tr -d '\r' <"$vm/console" | grep -aE '^(ok|not ok|#) ' || true
    tr -d '\r' <"$vm/console" | grep -aqx 'vm: end 0' || {
        echo "not ok 999 - the emulated machine did not come to a good end"
        tail -n 40 "$vm/console" | sed 's/^/# /'
        return 1
    }
}
