# BCM2711: four Cortex-A72 without the cryptography extension.
ARCH := arm64
TRIPLE := aarch64-linux-gnu
CPU_FLAGS := -mcpu=cortex-a72+crc+nocrypto
HARDEN_FLAGS := -fstack-clash-protection -mbranch-protection=standard
