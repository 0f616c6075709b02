#!/bin/sh
# Called by mmdebstrap as a customize hook: debian-hook.sh ROOT, with what it needs in the environment. Makes a gateway
# out of the fresh Debian: kernel, our integration as the README tells an integrator to install it, a reader in place of
# the agent; then builds the initramfs.
set -eu

root=$1
for variable in GENERATOR TOP PARTS BINARY CONFIG UNIT_DIR OUT; do
    eval "value=\${$variable:-}"
    [ -n "$value" ] || { echo "debian-hook: $variable is not set" >&2; exit 8; }
done
PATH=$PATH:/usr/sbin:/sbin

for kernel in "$PARTS"/lib/modules/*; do
    release=${kernel##*/}
done
mkdir -p "$root/lib/modules" "$root/boot"
cp -r "$PARTS/lib/modules/$release" "$root/lib/modules/"
cp "$PARTS/config" "$root/boot/config-$release"

sh "$TOP/initramfs/install" --for "$GENERATOR" --binary "$BINARY" --config "$CONFIG" --root "$root"
case $GENERATOR in
    initramfs-tools) chroot "$root" mkinitramfs -o /boot/initrd.img "$release" ;;
    # Host-only, as on a gateway, where ext4 comes from our module alone; the disk of the virtual machine is not here.
    dracut)
        chroot "$root" dracut --quiet --force --hostonly --no-hostonly-cmdline --no-hostonly-default-device \
            --add-drivers 'virtio_pci virtio_blk' --kver "$release" /boot/initrd.img
        ;;
esac
cp "$root/boot/initrd.img" "$OUT/initrd"

# The layer's units, under the names and at the places that its recipe gives them.
units=$root/usr/lib/systemd/system
cp "$UNIT_DIR/data.mount" "$units/var-lib-pyvorin.mount"
cp "$UNIT_DIR/state.mount" "$units/var-lib-pyvorin\\x2drecovery.mount"
cp "$UNIT_DIR/pyvorin-recovery-status.service" "$units/"
mkdir -p "$units/pyvorin-edge-agent.service.d"
cp "$UNIT_DIR/10-pyvorin-recovery.conf" "$units/pyvorin-edge-agent.service.d/"

cat > "$units/pyvorin-edge-agent.service" <<'UNIT'
[Unit]
Description=Reader in place of the edge agent
After=pyvorin-recovery-status.service
[Service]
Type=oneshot
ExecStart=/usr/local/bin/reader
[Install]
WantedBy=multi-user.target
UNIT
cat > "$root/usr/local/bin/reader" <<'READER'
#!/bin/sh
# Opens the store as the agent would and says on the console what is in it.
store=/var/lib/pyvorin/edge_store.db
{
    printf '\nREPORT '
    tr -d '\n' < /run/pyvorin-recovery/report.json || printf '{}'
    rows=$(sqlite3 "$store" 'SELECT count(*) FROM readings' 2>&1 | tr ' ' _)
    max=$(sqlite3 "$store" 'SELECT max(id) FROM readings' 2>&1 | tr ' ' _)
    printf '\nUSERLAND slot=A init=systemd rows=%s max_id=%s integrity=%s status=%s\n' "$rows" "$max" \
        "$(sqlite3 "$store" 'PRAGMA integrity_check' 2>&1 | tr ' ' _)" \
        "$(systemctl is-active pyvorin-recovery-status.service)"
} > /dev/console 2> /dev/null
systemctl --no-block poweroff
READER
chmod 0755 "$root/usr/local/bin/reader"
chroot "$root" systemctl enable -q var-lib-pyvorin.mount 'var-lib-pyvorin\x2drecovery.mount' \
    pyvorin-recovery-status.service pyvorin-edge-agent.service
mkdir -p "$root/var/lib/pyvorin" "$root/var/lib/pyvorin-recovery"
: > "$root/etc/fstab"

# What a slot of 400 MiB need not carry: the initramfs has the modules of the disk, the rest was for building.
rm -rf "${root:?}/boot" "$root/usr/share/doc" "$root/usr/share/locale" "$root/usr/share/man" "$root/var/cache/apt" \
    "$root/var/lib/apt/lists" "$root/lib/modules/$release/kernel/drivers" "$root/lib/modules/$release/kernel/sound"
