# Recipe of a bootable image for this board: Debian packages and sizes.
KERNEL_PACKAGE := linux-image-arm64
DEVICE_TREE := freescale/imx8mm-evk.dtb
BOOT_PACKAGES :=
BOOT := vendor
CONSOLE := ttymxc1,115200
MODULES := sdhci_esdhc_imx fec imx2_wdt spi_imx tpm_tis_spi
WATCHDOG_DRIVER := imx2_wdt
TPM_DEVICE := /dev/tpmrm0
TPM_PCRS := 0 7
BOOT_MB := 128
ROOT_MB := 1024
DATA_MB_MIN := 2048
