SUMMARY = "Boot-time recovery of SQLite data on edge gateways"
SUMMARY:${PN}-hook = "Runs pyvorin-recovery inside another initramfs"
DESCRIPTION = "Checks the SQLite databases of a gateway before its system mounts them, and repairs them without losing rows."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "base"
CVE_PRODUCT = "pyvorin-recovery sqlite:sqlite"
# SQLite is compiled in; its authors' blessing takes the place of a licence. So are zstd and the curves of the signatures
# (BSD-3-Clause), and what age says in other languages (Unicode-3.0). Every other crate can be had under MIT or Apache-2.0.
LICENSE = "(MIT | Apache-2.0) & BSD-3-Clause & Unicode-3.0 & blessing"
LIC_FILES_CHKSUM = "\
    file://LICENSE;md5=f0aa2bcd0ab6485fe306b406c1d96eba \
    file://LICENSE-APACHE;md5=1836efb2eb779966696f473ee8540542 \
    file://LICENSE-MIT;md5=d6c8fa73ffaacf52852be3dc9b10adb9 \
"

# The layer lives in the source tree of the program and builds that tree, so that the two cannot disagree. A copy of
# the layer alone is told where a release lies:
#   PYVORIN_RECOVERY_GIT = "git://git.example.com/pyvorin-recovery.git;protocol=https;branch=main"
#   SRCREV:pn-pyvorin-recovery = "the commit of the release"
PYVORIN_RECOVERY_GIT ?= ""
PYVORIN_RECOVERY_TREE = "\
    file://Cargo.lock;subdir=${BP} \
    file://Cargo.toml;subdir=${BP} \
    file://LICENSE;subdir=${BP} \
    file://LICENSE-APACHE;subdir=${BP} \
    file://LICENSE-MIT;subdir=${BP} \
    file://README.md;subdir=${BP} \
    file://initramfs/hook;subdir=${BP} \
    file://src;subdir=${BP} \
    file://tests/qemu/userland.rs;subdir=${BP} \
"

require ${BPN}-crates.inc

SRC_URI += "\
    ${@d.getVar('PYVORIN_RECOVERY_GIT') or d.getVar('PYVORIN_RECOVERY_TREE')} \
    file://run-ptest \
"

# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext - the tree around the layer
FILESEXTRAPATHS:append := "${THISDIR}/../../..:"

inherit cargo cargo-update-recipe-crates features_check ptest

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery"

# With musl the binary is static, as in the multiconfig pyvorin-musl; with glibc it follows the distro.
RUSTFLAGS:append:libc-musl = " -C target-feature=+crt-static"
# Stripping is the packaging's, which keeps the symbols in -dbg.
export CARGO_PROFILE_RELEASE_STRIP = "none"

do_install:append() {
    # What only root starts; cargo's class knows bindir alone.
    install -d ${D}${sbindir}
    mv ${D}${bindir}/pyvorin-recovery ${D}${sbindir}/pyvorin-recovery
    rmdir ${D}${bindir}
    install -D -m 0755 ${S}/initramfs/hook ${D}${nonarch_libdir}/pyvorin-recovery/hook
}

PACKAGES =+ "${PN}-hook"

FILES:${PN}-hook += "${nonarch_libdir}/pyvorin-recovery/hook"
RDEPENDS:${PN}-hook = "${PN}"
RDEPENDS:${PN}-ptest += "sqlite3"
RRECOMMENDS:${PN} = "e2fsprogs-e2fsck pyvorin-recovery-conf"

# nooelint: oelint.task.noanonpython - only this can skip a recipe with a sentence
python () {
    tree = os.path.normpath(os.path.join(d.getVar("THISDIR"), "../../.."))
    if not d.getVar("PYVORIN_RECOVERY_GIT") and not os.path.exists(os.path.join(tree, "Cargo.lock")):
        raise bb.parse.SkipRecipe(
            "the layer stands outside its source tree; next: set PYVORIN_RECOVERY_GIT and SRCREV:pn-pyvorin-recovery")
}
