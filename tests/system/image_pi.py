#!/usr/bin/env python3
"""If this fails, a card that was written for a Raspberry Pi 4 does not come up: its kernel does not find the slots, its root does not start the agent.

Nothing emulates a Raspberry Pi 4.  Its image's kernel, initramfs (with the card driver of the 3 B put behind it) and disk are started on an emulated
3 B, with that board's device tree.  Not seen so: the firmware's part, the network card, the overlay.  Arguments: BOARD ARCH IMAGE, a folder of
build/image/; see `make check-image`."""
import os, shutil, subprocess, sys, tempfile, time

BOARD, ARCH, IMAGE = sys.argv[1:4]
BOOT = "@@1M"  # where the boot partition begins, for mtools
PATIENCE_S = 300  # bounds a hang on a loaded machine
CARD_DRIVER, TREE = "bcm2835", "broadcom/bcm2837-rpi-3-b.dtb"
os.environ["PATH"] += ":/usr/sbin:/sbin"
work = tempfile.mkdtemp(prefix="grey-test-")
count = failed = 0


def run(*command, data=None):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, input=data, cwd=work).stdout


def ok(condition, text):
    global count, failed
    count += 1
    failed += not condition
    print("%sok %d - %s" % ("" if condition else "not ", count, text), flush=True)


def with_card_driver(initramfs, pool, release):
    """A second archive goes over the first: more modules, and the order in which they are loaded."""
    with open(initramfs, "rb") as f:
        first = f.read()
    unpacked = subprocess.run(["gzip", "-dc"], input=first, stdout=subprocess.PIPE, check=True).stdout
    order = run("cpio", "-i", "--quiet", "--to-stdout", "lib/modules/order", data=unpacked).decode().split()
    folder = os.path.join(work, "more", "lib", "modules")
    os.makedirs(folder)
    for line in run("modprobe", "-d", pool, "-S", release, "--show-depends", CARD_DRIVER).decode().splitlines():
        if line.startswith("insmod "):
            path = line.split()[1]
            shutil.copy(path, folder)
            order.append(os.path.basename(path))
    with open(os.path.join(folder, "order"), "w") as f:
        f.write("".join(name + "\n" for name in order))
    second = subprocess.run("find . | cpio -o -H newc --quiet | gzip -n", shell=True, cwd=os.path.join(work, "more"), stdout=subprocess.PIPE, check=True).stdout
    with open(initramfs, "wb") as f:
        f.write(first + second)


def data_offset(disk):
    for line in run("sfdisk", "--dump", disk).decode().splitlines():
        if 'name="data"' in line:
            return int(line.split("start=")[1].split(",")[0]) * 512
    raise ValueError("no data partition")


def main():
    card = os.path.join(work, "card")
    run("cp", "--sparse=always", os.path.join(IMAGE, "disk.img"), card)
    size = 1 << (os.path.getsize(card) - 1).bit_length()  # a card's is a power of two
    os.truncate(card, size)
    run("mcopy", "-i", card + BOOT, "::kernel", "::initramfs", "::cmdline.txt", work)
    with open(os.path.join(IMAGE, "pool")) as f:
        pool, release = f.read().split()
    with_card_driver(os.path.join(work, "initramfs"), pool, release)
    for name, text in (("greyd.yaml", "mode: single\nnode: {id: pi}\n"), ("default", "GREY_RAFT_BOOTSTRAP=true\n")):
        with open(os.path.join(work, name), "w") as f:
            f.write(text)
        subprocess.run(["debugfs", "-w", "-R", "write %s /etc/%s" % (name, name), "%s?offset=%d" % (card, data_offset(card))], cwd=work, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(os.path.join(work, "cmdline.txt")) as f:
        arguments = f.read().strip()
    log = open(os.path.join(work, "console"), "wb")
    begin = time.monotonic()
    machine = subprocess.Popen(["qemu-system-aarch64", "-M", "raspi3b", "-kernel", "kernel", "-initrd", "initramfs", "-dtb", os.path.join(pool, "usr/lib/linux-image-" + release, TREE),
                                "-append", arguments, "-drive", "if=sd,format=raw,file=" + card, "-display", "none", "-serial", "null", "-serial", "stdio", "-no-reboot"],
                               cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        for said, text in (("greyd ready ", "kernel, initramfs and root of %s start the agent" % BOARD), ("slot confirmed: keeps a", "and keep the slot when it answers")):
            while True:
                with open(os.path.join(work, "console"), errors="replace") as f:
                    console = f.read()
                if said in console or time.monotonic() > begin + PATIENCE_S or machine.poll() is not None:
                    break
                time.sleep(0.2)
            ok(said in console, text)
            print("# after %.1f s on an emulated Raspberry Pi 3 B" % (time.monotonic() - begin))
        if failed:
            print("".join("# %s\n" % line for line in console.splitlines()[-30:]))
    finally:
        machine.kill()
        machine.wait()


try:
    main()
finally:
    shutil.rmtree(work)
print("1..%d" % count)
sys.exit(failed > 0)
