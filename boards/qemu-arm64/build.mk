# Debian's arm64: runs on every 64-bit ARM (armv8-a); also what ARCH=arm64 without a board means.
ARCH := arm64
TRIPLE := aarch64-linux-gnu
CPU_FLAGS :=
HARDEN_FLAGS := -fstack-clash-protection -mbranch-protection=standard
