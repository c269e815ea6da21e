# NXP i.MX 8M Mini: four Cortex-A53 with the cryptography extension.
ARCH := arm64
TRIPLE := aarch64-linux-gnu
CPU_FLAGS := -mcpu=cortex-a53+crc+crypto
HARDEN_FLAGS := -fstack-clash-protection -mbranch-protection=standard
