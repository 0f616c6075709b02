SUMMARY = "Example of a gateway with two slots and a recovery partition"
DESCRIPTION = "A small system in the six partitions that pyvorin-recovery expects, to start from and to test with."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "images"
LICENSE = "MIT"

inherit features_check

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery systemd"

IMAGE_INSTALL = "\
    packagegroup-core-boot \
    e2fsprogs-e2fsck \
    pyvorin-recovery \
    pyvorin-recovery-agent \
    pyvorin-recovery-audit \
    pyvorin-recovery-backup \
    pyvorin-recovery-conf \
    pyvorin-recovery-keys \
    pyvorin-recovery-mark-good \
    pyvorin-recovery-metrics \
    pyvorin-recovery-mounts \
    pyvorin-recovery-queue \
    pyvorin-recovery-status \
    sqlite3 \
    ${CORE_IMAGE_EXTRA_INSTALL} \
"
IMAGE_LINGUAS = ""

# The root is the same in both slots and is never written by the field: what changes lives on state and data.
IMAGE_FEATURES += "read-only-rootfs"

inherit core-image

IMAGE_FSTYPES += "wic"
PYVORIN_WKS = "pyvorin-gateway-uboot.wks.in"
PYVORIN_WKS:x86-64 = "pyvorin-gateway-efi.wks.in"
WKS_FILE = "${PYVORIN_WKS}"
do_image_wic[depends] += "\
    pyvorin-image-recovery:do_image_complete \
    pyvorin-image-initramfs:do_image_complete \
    ${@bb.utils.contains('PYVORIN_WKS', 'pyvorin-gateway-uboot.wks.in', 'pyvorin-boot-script:do_deploy', '', d)} \
"

# What lies beside the loader in the boot partition: bootimg_partition (U-Boot) copies the first list, bootimg_efi the
# second and the kernel.
PYVORIN_INITRAMFS_TYPE ?= "cpio.gz"
IMAGE_BOOT_FILES = "\
    ${KERNEL_IMAGETYPE} \
    pyvorin-image-initramfs-${MACHINE}.${PYVORIN_INITRAMFS_TYPE};initramfs \
    boot.scr \
"
IMAGE_EFI_BOOT_FILES = "pyvorin-image-initramfs-${MACHINE}.${PYVORIN_INITRAMFS_TYPE};initramfs"
