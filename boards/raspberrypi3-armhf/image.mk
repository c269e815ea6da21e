# Recipe of a bootable image for this board: Debian packages and sizes.
KERNEL_PACKAGE := linux-image-armmp
DEVICE_TREE := bcm2837-rpi-3-b.dtb
BOOT_PACKAGES := raspi-firmware
BOOT := raspi
CONSOLE := ttyS1,115200
MODULES := sdhci_iproc bcm2835 smsc95xx lan78xx bcm2835_wdt bcm2835_thermal
WATCHDOG_DRIVER := bcm2835_wdt
TPM_DEVICE :=
TPM_PCRS :=
BOOT_MB := 256
ROOT_MB := 768
DATA_MB_MIN := 1024
