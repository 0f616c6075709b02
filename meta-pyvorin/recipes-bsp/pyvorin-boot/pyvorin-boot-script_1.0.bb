SUMMARY = "U-Boot script of a gateway: the boot partition, else the recovery partition"
DESCRIPTION = "boot.scr for the first FAT partition. The slot is the initramfs' choice, so the script knows none."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "bootloaders"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

DEPENDS = "u-boot-mkimage-native"

SRC_URI = "file://boot.cmd.in"

S = "${UNPACKDIR}"
B = "${WORKDIR}/build"

inherit deploy features_check

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery"

PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"

# U-Boot's command for this kind of kernel image.
PYVORIN_BOOTCMD ?= "${@{'Image': 'booti', 'zImage': 'bootz'}.get(d.getVar('KERNEL_IMAGETYPE'), 'bootm')}"
# mkimage's name of the architecture, where it is not bitbake's.
PYVORIN_MKIMAGE_ARCH ?= "${@{'aarch64': 'arm64', 'riscv64': 'riscv'}.get(d.getVar('TARGET_ARCH'), d.getVar('TARGET_ARCH'))}"
# What the product's kernel wants on its command line, such as a console.
PYVORIN_BOOTARGS ?= "panic=10 quiet"

do_configure[noexec] = "1"
do_install[noexec] = "1"

do_compile() {
    sed -e 's|@KERNEL@|${KERNEL_IMAGETYPE}|g' -e 's|@BOOTCMD@|${PYVORIN_BOOTCMD}|g' \
        -e 's|@BOOTARGS@|${PYVORIN_BOOTARGS}|g' ${UNPACKDIR}/boot.cmd.in > ${B}/boot.cmd
    mkimage -A ${PYVORIN_MKIMAGE_ARCH} -T script -C none -n pyvorin -d ${B}/boot.cmd ${B}/boot.scr
}

do_deploy() {
    install -D -m 0644 ${B}/boot.scr ${DEPLOYDIR}/boot.scr
}

addtask deploy after do_compile before do_build
