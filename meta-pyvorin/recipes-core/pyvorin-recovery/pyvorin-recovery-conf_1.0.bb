SUMMARY = "Configuration of pyvorin-recovery for one product"
DESCRIPTION = "The recovery.toml of initramfs and system; a product replaces this example from a bbappend."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://recovery.toml"

S = "${UNPACKDIR}"

inherit allarch

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    # The mark stands in the file of the layer alone; whoever reviewed the file has taken it out.
    if grep -q '^# pyvorin: unedited' ${UNPACKDIR}/recovery.toml; then
        bbwarn "recovery.toml is the layer's example. Next: ship your own from a pyvorin-recovery-conf.bbappend; docs/provisioning.md lists what to decide."
    fi
    # /etc alone: the boot trusts only what was baked into the initramfs, and the same file is baked and shipped.
    install -D -m 0644 ${UNPACKDIR}/recovery.toml ${D}${sysconfdir}/pyvorin/recovery.toml
}

CONFFILES:${PN} += "${sysconfdir}/pyvorin/recovery.toml"
