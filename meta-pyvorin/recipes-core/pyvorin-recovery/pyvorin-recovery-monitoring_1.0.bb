SUMMARY = "Alert rules and dashboard for the figures of pyvorin-recovery"
DESCRIPTION = "For the machine that watches the gateways: rules for Prometheus and a dashboard for Grafana."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "\
    file://alerts.yml \
    file://dashboard.json \
"
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext - kept once, for this layer and for Buildroot's package
FILESEXTRAPATHS:prepend := "${THISDIR}/../../files/monitoring:"

S = "${UNPACKDIR}"

inherit allarch features_check

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery"

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${UNPACKDIR}/alerts.yml ${D}${datadir}/pyvorin-recovery/monitoring/alerts.yml
    install -D -m 0644 ${UNPACKDIR}/dashboard.json ${D}${datadir}/pyvorin-recovery/monitoring/dashboard.json
}

FILES:${PN} += "${datadir}/pyvorin-recovery/monitoring"
