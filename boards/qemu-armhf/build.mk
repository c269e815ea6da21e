# Debian's armhf: runs on every armv7-a with VFPv3-D16; also what ARCH=armhf without a board means.  GCC has no stack clash protection
# for 32-bit ARM.
ARCH := armhf
TRIPLE := arm-linux-gnueabihf
CPU_FLAGS :=
HARDEN_FLAGS :=
