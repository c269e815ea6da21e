# Recipe of a bootable image for this board: Debian packages and sizes.
KERNEL_PACKAGE := linux-image-arm64
DEVICE_TREE := broadcom/bcm2711-rpi-4-b.dtb
BOOT_PACKAGES := raspi-firmware
BOOT := raspi
CONSOLE := ttyS1,115200
MODULES := sdhci_iproc genet broadcom mdio_bcm_unimac reset_raspberrypi xhci_pci uas usb_storage bcm2835_wdt bcm2711_thermal iproc_rng200 spi_bcm2835 tpm_tis_spi
OVERLAYS := tpm-slb9670
WATCHDOG_DRIVER := bcm2835_wdt
TPM_DEVICE :=
TPM_PCRS :=
BOOT_MB := 256
ROOT_MB := 128
DATA_MB_MIN := 1024
