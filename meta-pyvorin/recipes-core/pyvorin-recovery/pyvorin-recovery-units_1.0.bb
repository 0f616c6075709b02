SUMMARY = "systemd units around pyvorin-recovery"
SUMMARY:pyvorin-recovery-audit = "Folds the recovery's events into the agent's audit chain before the agent starts"
SUMMARY:pyvorin-recovery-backup = "Encrypted backups every day, and taken away when past their time"
SUMMARY:pyvorin-recovery-keys = "Makes the gateway's own keys at its first start"
SUMMARY:pyvorin-recovery-queue = "Notes every hour how long the agent's queue is"
SUMMARY:pyvorin-recovery-mark-good = "Marks the running slot good before boot-complete.target"
SUMMARY:pyvorin-recovery-agent = "Keeps the edge agent stopped while a repair is open"
SUMMARY:pyvorin-recovery-mounts = "Mounts of the data and state partitions"
SUMMARY:pyvorin-recovery-metrics = "Figures of the gateway for node_exporter, every quarter of an hour"
SUMMARY:pyvorin-recovery-status = "Report of the boot in the journal"
DESCRIPTION = "One package per wish: mark-good, condition on the agent, mounts, report for the journal, metrics, keys, backups."
HOMEPAGE = "https://pyvorin.com/"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "\
    file://10-pyvorin-recovery.conf \
    file://data.mount \
    file://pyvorin-recovery-audit.service \
    file://pyvorin-recovery-backup.service \
    file://pyvorin-recovery-backup.timer \
    file://pyvorin-recovery-keys.service \
    file://pyvorin-recovery-mark-good.service \
    file://pyvorin-recovery-metrics.service \
    file://pyvorin-recovery-metrics.timer \
    file://pyvorin-recovery-prune.service \
    file://pyvorin-recovery-prune.timer \
    file://pyvorin-recovery-queue.service \
    file://pyvorin-recovery-queue.timer \
    file://pyvorin-recovery-status.service \
    file://state.mount \
"

S = "${UNPACKDIR}"

inherit allarch features_check systemd

REQUIRED_DISTRO_FEATURES = "pyvorin-recovery systemd"

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-audit.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-backup.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-backup.timer ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-keys.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-mark-good.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-metrics.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-metrics.timer ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-prune.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-prune.timer ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-queue.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-queue.timer ${D}${systemd_system_unitdir}/
    install -m 0644 ${UNPACKDIR}/pyvorin-recovery-status.service ${D}${systemd_system_unitdir}/
    # systemd.mount(5): a mount unit is named after its path, and a dash in a path is written \x2d.
    install -m 0644 ${UNPACKDIR}/data.mount ${D}${systemd_system_unitdir}/var-lib-pyvorin.mount
    install -m 0644 ${UNPACKDIR}/state.mount '${D}${systemd_system_unitdir}/var-lib-pyvorin\x2drecovery.mount'
    # A read-only root cannot make its mount points when it starts.
    install -d ${D}${localstatedir}/lib/pyvorin ${D}${localstatedir}/lib/pyvorin-recovery
    # Both names of the agent's unit that are in the field; the drop-in of a unit that is not there does nothing.
    for unit in pyvorin-edge-agent pyvorin-edge; do
        install -D -m 0644 ${UNPACKDIR}/10-pyvorin-recovery.conf \
            ${D}${systemd_system_unitdir}/$unit.service.d/10-pyvorin-recovery.conf
    done
}

PACKAGES = "\
    pyvorin-recovery-agent \
    pyvorin-recovery-audit \
    pyvorin-recovery-backup \
    pyvorin-recovery-keys \
    pyvorin-recovery-mark-good \
    pyvorin-recovery-metrics \
    pyvorin-recovery-mounts \
    pyvorin-recovery-queue \
    pyvorin-recovery-status \
"

SYSTEMD_PACKAGES = "\
    pyvorin-recovery-audit \
    pyvorin-recovery-backup \
    pyvorin-recovery-keys \
    pyvorin-recovery-mark-good \
    pyvorin-recovery-metrics \
    pyvorin-recovery-mounts \
    pyvorin-recovery-queue \
    pyvorin-recovery-status \
"
SYSTEMD_SERVICE:pyvorin-recovery-audit = "pyvorin-recovery-audit.service"
SYSTEMD_SERVICE:pyvorin-recovery-backup = "pyvorin-recovery-backup.timer pyvorin-recovery-prune.timer"
SYSTEMD_SERVICE:pyvorin-recovery-keys = "pyvorin-recovery-keys.service"
SYSTEMD_SERVICE:pyvorin-recovery-mark-good = "pyvorin-recovery-mark-good.service"
SYSTEMD_SERVICE:pyvorin-recovery-metrics = "pyvorin-recovery-metrics.timer"
SYSTEMD_SERVICE:pyvorin-recovery-mounts = "var-lib-pyvorin.mount var-lib-pyvorin\x2drecovery.mount"
SYSTEMD_SERVICE:pyvorin-recovery-queue = "pyvorin-recovery-queue.timer"
SYSTEMD_SERVICE:pyvorin-recovery-status = "pyvorin-recovery-status.service"

FILES:pyvorin-recovery-mounts += "${localstatedir}/lib/pyvorin ${localstatedir}/lib/pyvorin-recovery"
# The services that timers start are enabled by nobody, and so not found by systemd.bbclass.
FILES:pyvorin-recovery-backup += "\
    ${systemd_system_unitdir}/pyvorin-recovery-backup.service \
    ${systemd_system_unitdir}/pyvorin-recovery-prune.service \
"
FILES:pyvorin-recovery-metrics += "${systemd_system_unitdir}/pyvorin-recovery-metrics.service"
FILES:pyvorin-recovery-queue += "${systemd_system_unitdir}/pyvorin-recovery-queue.service"
FILES:pyvorin-recovery-agent += "${systemd_system_unitdir}/*.service.d"
# What systemd.bbclass adds to the other packages are the units named above.

RDEPENDS:pyvorin-recovery-audit = "pyvorin-recovery pyvorin-recovery-conf"
RDEPENDS:pyvorin-recovery-backup = "pyvorin-recovery pyvorin-recovery-conf pyvorin-recovery-keys"
RDEPENDS:pyvorin-recovery-keys = "pyvorin-recovery pyvorin-recovery-conf"
RDEPENDS:pyvorin-recovery-mark-good = "pyvorin-recovery pyvorin-recovery-conf"
RDEPENDS:pyvorin-recovery-metrics = "pyvorin-recovery pyvorin-recovery-conf"
RDEPENDS:pyvorin-recovery-queue = "pyvorin-recovery pyvorin-recovery-conf"
RDEPENDS:pyvorin-recovery-status = "pyvorin-recovery"
