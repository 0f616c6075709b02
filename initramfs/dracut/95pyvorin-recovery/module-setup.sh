#!/bin/bash
# dracut.modules(7). Sourced by dracut, which calls the four functions; the variables are dracut's.

# called by dracut: only in images that ask for it, or built on the machine that has it installed.
check() {
    require_binaries /usr/sbin/pyvorin-recovery /sbin/e2fsck || return 1
    return 0
}

# called by dracut
depends() {
    return 0
}

# called by dracut
installkernel() {
    # Whatever the root is: state and data are ext4, and a host-only image would leave out what the root does not use.
    hostonly='' instmods ext4
}

# called by dracut
install() {
    if [[ ! -r ${dracutsysrootdir-}/etc/pyvorin/recovery.toml ]]; then
        derror "pyvorin-recovery: /etc/pyvorin/recovery.toml is missing; next: write it; an empty file takes every default"
        return 1
    fi
    inst_multiple /usr/sbin/pyvorin-recovery /sbin/e2fsck sync sleep reboot
    # Only this file: what differs from device to device lives on the state partition, secrets on neither.
    inst_simple /etc/pyvorin/recovery.toml
    inst_script /usr/lib/pyvorin-recovery/hook /usr/lib/pyvorin-recovery/hook
    if dracut_module_included systemd; then
        # With systemd the root is a unit, and a shell hook has no order against it.
        inst_simple "${moddir:?}/pyvorin-recovery-boot.service" \
            "${systemdsystemunitdir:?}/pyvorin-recovery-boot.service"
        ${SYSTEMCTL:-systemctl} -q --root "${initdir:?}" add-wants initrd.target pyvorin-recovery-boot.service
    else
        inst_hook pre-mount 50 "$moddir/pre-mount.sh"
    fi
}
