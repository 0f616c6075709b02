SUMMARY = "pyvorin-recovery as the whole init of an initramfs"
DESCRIPTION = "/init and console node of an initramfs without a shell, for images whose initramfs chooses the slot."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = ""

S = "${UNPACKDIR}"

inherit allarch features_check

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery"

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    ln -s ${@d.getVar('sbindir').lstrip('/')}/pyvorin-recovery ${D}/init
    # The kernel opens this one for PID 1 before anything can mount devtmpfs; without it the first messages are lost.
    install -d ${D}/dev
    mknod -m 0600 ${D}/dev/console c 5 1
}

FILES:${PN} += "/init /dev/console"
RDEPENDS:${PN} = "e2fsprogs-e2fsck pyvorin-recovery pyvorin-recovery-conf"
# Both bring an /init.
RCONFLICTS:${PN} = "initramfs-framework-base"
