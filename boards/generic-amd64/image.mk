# Recipe of a bootable image for this board: Debian packages and sizes.
KERNEL_PACKAGE := linux-image-amd64
DEVICE_TREE :=
BOOT_PACKAGES := systemd-boot-efi
BOOT := efi
CONSOLE := ttyS0,115200
MODULES := virtio_pci virtio_blk virtio_net nvme ahci sd_mod mmc_block sdhci_pci xhci_pci ehci_pci uas usb_storage e1000e igb igc r8169 tg3 tpm_crb tpm_tis
WATCHDOG_DRIVER := iTCO_wdt
TPM_DEVICE := /dev/tpmrm0
TPM_PCRS := 0 2 4 7
BOOT_MB := 128
ROOT_MB := 128
DATA_MB_MIN := 2048
