SUMMARY = "initramfs support for checking and repairing the gateway's databases"
DESCRIPTION = "A module of initramfs-framework: after devices are there, before the root is mounted."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://pyvorin"

S = "${UNPACKDIR}"

inherit allarch features_check

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery"

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    # The framework calls pyvorin_enabled and pyvorin_run: the name of a module is what stands between the first dash
    # and the second. 80 is behind devices (01, 09, 10) and before whatever mounts a root (85, 89, 90, 91).
    install -D -m 0755 ${UNPACKDIR}/pyvorin ${D}/init.d/80-pyvorin
}

FILES:${PN} += "/init.d/80-pyvorin"
RDEPENDS:${PN} = "e2fsprogs-e2fsck initramfs-framework-base pyvorin-recovery-conf pyvorin-recovery-hook"
