SUMMARY = "Content of the recovery partition"
DESCRIPTION = "Kernel and initramfs of the recovery system in a FAT file system, which the loader falls back to."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "images"
LICENSE = "MIT"

inherit features_check

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery"

PACKAGE_INSTALL = ""
IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_INSTALL = ""
IMAGE_FSTYPES = "vfat"
# The wks files name this image without the suffix of a root file system.
IMAGE_NAME_SUFFIX = ""
# nooelint: oelint.vars.specific - an override of the image type
EXTRA_IMAGECMD:vfat = "-n RECOVERY"
# KiB; must hold kernel and initramfs and fit the partition of the wks.
IMAGE_ROOTFS_SIZE = "65536"
IMAGE_ROOTFS_EXTRA_SPACE = "0"

PYVORIN_RECOVERY_INITRAMFS ?= "pyvorin-image-initramfs"
# The type of INITRAMFS_FSTYPES that the loader takes.
PYVORIN_RECOVERY_INITRAMFS_TYPE ?= "cpio.gz"

inherit image

do_rootfs[depends] += "\
    virtual/kernel:do_deploy \
    ${PYVORIN_RECOVERY_INITRAMFS}:do_image_complete \
"

# Replaces the distro's root: a FAT partition holds two files and no system.
fakeroot pyvorin_fill_recovery() {
    rm -rf ${IMAGE_ROOTFS}
    install -d ${IMAGE_ROOTFS}
    install -m 0644 ${DEPLOY_DIR_IMAGE}/${KERNEL_IMAGETYPE} ${IMAGE_ROOTFS}/${KERNEL_IMAGETYPE}
    install -m 0644 \
        ${DEPLOY_DIR_IMAGE}/${PYVORIN_RECOVERY_INITRAMFS}-${MACHINE}.${PYVORIN_RECOVERY_INITRAMFS_TYPE} \
        ${IMAGE_ROOTFS}/initramfs
}
pyvorin_fill_recovery[doc] = "Puts kernel and initramfs in place of a root file system"
ROOTFS_POSTPROCESS_COMMAND:append = " pyvorin_fill_recovery"
