# Any 64-bit PC or industrial computer; also what `make` builds on one.
ARCH := amd64
TRIPLE := x86_64-linux-gnu
CPU_FLAGS :=
HARDEN_FLAGS := -fstack-clash-protection -fcf-protection
