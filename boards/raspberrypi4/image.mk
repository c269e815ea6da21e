# Recipe of a bootable image for this board: Debian packages and sizes.
KERNEL_PACKAGE := linux-image-arm64
DEVICE_TREE := broadcom/bcm2711-rpi-4-b.dtb
BOOT_PACKAGES := raspi-firmware
BOOT := raspi
CONSOLE := ttyS1,115200
MODULES := sdhci_iproc bcmgenet bcm2835_wdt raspberrypi_hwmon tpm_tis_spi
WATCHDOG_DRIVER := bcm2835_wdt
TPM_DEVICE :=
TPM_PCRS :=
BOOT_MB := 256
ROOT_MB := 1024
DATA_MB_MIN := 2048
