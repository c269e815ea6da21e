# BCM2837 with a 32-bit system: four Cortex-A53, NEON.
ARCH := armhf
TRIPLE := arm-linux-gnueabihf
CPU_FLAGS := -mcpu=cortex-a53 -mfpu=neon-fp-armv8
HARDEN_FLAGS :=
