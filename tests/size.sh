#!/bin/sh
# The shipped binary is fully static and small, and so is the complete initramfs without kernel modules; two builds
# of that initramfs are the same bytes.
set -eu

cd "$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)"
max_binary=4718592    # 4.5 MiB
max_initramfs=5242880 # 5 MiB
failed=0

fail() {
    echo "size: $*" >&2
    failed=1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo '# defaults' > "$work/recovery.toml"

for pair in arm64:aarch64 amd64:x86_64; do
    arch=${pair%%:*}
    binary=target/${pair#*:}-unknown-linux-musl/release/pyvorin-recovery
    size=$(stat -c %s "$binary")
    [ "$size" -le "$max_binary" ] || fail "$binary has $size bytes, more than $max_binary"
    if readelf -lW "$binary" | grep -q INTERP; then
        fail "$binary asks for a dynamic loader"
    fi
    if readelf -dW "$binary" | grep -q NEEDED; then
        fail "$binary needs a shared library"
    fi
    if readelf -SW "$binary" | grep -q ' \.symtab '; then
        fail "$binary is not stripped"
    fi
    for n in 1 2; do
        initramfs/build --binary "$binary" --e2fsck ".cache/parts/$arch/e2fsck" --config "$work/recovery.toml" \
            --output "$work/$n/initramfs.zst"
    done
    packed=$(stat -c %s "$work/1/initramfs.zst")
    [ "$packed" -le "$max_initramfs" ] || fail "the $arch initramfs has $packed bytes, more than $max_initramfs"
    cmp -s "$work/1/initramfs.zst" "$work/2/initramfs.zst" || fail "two builds of the $arch initramfs differ"
    echo "size: $arch binary $size bytes, static; initramfs without modules $packed bytes, the same twice"
done
exit "$failed"
