# Recipe of a bootable image for this board: Debian packages and sizes.
KERNEL_PACKAGE := linux-image-cloud-arm64
DEVICE_TREE :=
BOOT_PACKAGES := u-boot-qemu
BOOT := u-boot
CONSOLE := ttyAMA0,115200
MODULES := virtio_pci virtio_mmio virtio_blk virtio_net ext4 tpm_tis
WATCHDOG_DRIVER := softdog
TPM_DEVICE := /dev/tpmrm0
TPM_PCRS := 0 7
BOOT_MB := 64
ROOT_MB := 64
DATA_MB_MIN := 256
