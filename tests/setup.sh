#!/bin/sh
# Brings a fresh Debian machine to the point where everything here can be built and tested. Quick when nothing is
# missing; as root it installs, otherwise it says what is missing and how to get it.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
PATH=$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin
venv=$top/.cache/zig
layers=$top/.cache/layers/venv
full=no
[ "${1:-}" != full ] || full=yes
zig=ziglang==0.17.1
zigbuild=cargo-zigbuild==0.24.0
triples='x86_64-unknown-linux-musl aarch64-unknown-linux-musl'

# command, or file, and the Debian package it comes in; one line per apt call, because a machine that has qemu-utils from
# backports refuses both QEMU packages in one call with anything else.
needs() {
    cat <<TEXT
qemu-system-aarch64:qemu-system-arm
qemu-system-x86_64:qemu-system-x86
musl-gcc:musl-tools sfdisk:fdisk mke2fs:e2fsprogs debugfs:e2fsprogs mformat:mtools mkfs.fat:dosfstools shellcheck:shellcheck zstd:zstd xz:xz-utils modprobe:kmod cc:gcc c++:g++ readelf:binutils make:make git:git sqlite3:sqlite3 systemd-analyze:systemd busybox:busybox cpio:cpio strace:strace minisign:minisign age:age
TEXT
    # What only make test-full uses.
    [ "$full" = yes ] || return 0
    cat <<TEXT
mmdebstrap:mmdebstrap fakeroot:fakeroot gpg:gnupg borg:borgbackup restic:restic genimage:genimage grub-mkimage:grub-common mkimage:u-boot-tools
/usr/share/OVMF/OVMF_CODE.fd:ovmf /usr/lib/grub/x86_64-efi:grub-efi-amd64-bin /usr/lib/u-boot/qemu_arm64:u-boot-qemu
TEXT
}

missing_in() { # the words of one line
    for pair in $1; do
        command -v "${pair%%:*}" > /dev/null 2>&1 || [ -e "${pair%%:*}" ] || printf '%s ' "${pair#*:}"
    done | tr ' ' '\n' | sort -u | tr '\n' ' '
}

python_packages() { # the venv of either check
    python3 -c 'import sqlite3, sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || printf 'python3 '
    # Without ensurepip, python3 -m venv makes a directory that has no pip.
    { [ -x "$venv/bin/cargo-zigbuild" ] && [ -x "$layers/bin/pip" ]; } || python3 -c 'import ensurepip' 2> /dev/null || printf 'python3-venv '
}

packages() {
    needs | while read -r line; do
        missing_in "$line"
        echo
    done | sed 's/^ *//; /^$/d'
    python_packages
}

install_packages() {
    apt-get -qq update
    packages | while read -r line; do
        echo "setup: apt-get install $line"
        # shellcheck disable=SC2086 # a list of package names
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $line > "$top/.cache/apt.log" 2>&1 ||
            { cat "$top/.cache/apt.log" >&2; exit 8; }
    done
}

mkdir -p "$top/.cache"
if [ -n "$(packages)" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo 'setup: these Debian packages are missing; as root run:' >&2
        packages | sed 's/^/    apt-get install --no-install-recommends /' >&2
        exit 8
    fi
    install_packages
    if [ -n "$(packages)" ]; then
        echo "setup: still missing after installation: $(packages)" >&2
        exit 8
    fi
fi

# A rustup that was installed without a toolchain has no cargo that works.
if ! cargo --version > /dev/null 2>&1 && command -v rustup > /dev/null 2>&1; then
    rustup -q toolchain install stable --profile minimal
fi
if ! cargo --version > /dev/null 2>&1; then
    echo 'setup: cargo is missing; install Rust 1.89 or newer with rustup' >&2
    exit 8
fi
for triple in $triples; do
    [ -d "$(rustc --print sysroot)/lib/rustlib/$triple" ] && continue
    if ! command -v rustup > /dev/null 2>&1; then
        echo "setup: the Rust target $triple is missing; install it with your Rust toolchain" >&2
        exit 8
    fi
    rustup -q target add "$triple"
done
for component in rustfmt clippy; do
    command -v "cargo-${component#rust}" > /dev/null 2>&1 || rustup -q component add "$component"
done

# The musl of Debian's cross packages does not exist and gcc with glibc headers is unsound for it: zig brings both.
if [ "$("$venv/bin/pip" list --format freeze 2> /dev/null | grep -cE "^($zig|$zigbuild)\$")" -ne 2 ]; then
    echo "setup: $zig and $zigbuild into .cache/zig"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" -q --disable-pip-version-check install "$zig" "$zigbuild"
fi

# The linter of the Yocto layer, of PyPI.
if [ "$("$layers/bin/pip" list --format freeze 2> /dev/null | grep -cFxf "$top/tests/layers/requirements.txt")" -ne 1 ]; then
    echo 'setup: the checks of the layers into .cache/layers'
    rm -rf "$layers"
    python3 -m venv "$layers"
    "$layers/bin/pip" -q --disable-pip-version-check install -r "$top/tests/layers/requirements.txt"
fi
