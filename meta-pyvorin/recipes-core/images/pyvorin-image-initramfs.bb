SUMMARY = "Initramfs that is pyvorin-recovery"
DESCRIPTION = "The program as /init, e2fsck and recovery.toml. Checks the databases, then starts slot A or B."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "images"
LICENSE = "MIT"

inherit features_check

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery"

# Drivers that reach the disk must be built into the kernel, or listed here as kernel-module-… together with a
# /lib/modules/load-order: there is no modprobe in here.
# With INITRAMFS_MULTICONFIG = "pyvorin-musl" the program is static; otherwise the distro's C library comes along.
PACKAGE_INSTALL = "pyvorin-recovery-init ${PYVORIN_INITRAMFS_EXTRA_INSTALL}"
PYVORIN_INITRAMFS_EXTRA_INSTALL ?= ""

# Nothing of the system's features belongs in here.
IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
# A module would bring the kernel image along, and that image may contain this initramfs.
PACKAGE_EXCLUDE = "kernel-image-*"

IMAGE_FSTYPES = "${INITRAMFS_FSTYPES}"
IMAGE_NAME_SUFFIX = ""
IMAGE_ROOTFS_SIZE = "8192"
IMAGE_ROOTFS_EXTRA_SPACE = "0"

inherit image
