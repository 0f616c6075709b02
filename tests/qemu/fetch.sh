#!/bin/sh
# Brings the foreign parts of the QEMU tests into .cache/: stock Debian kernels (unpacked, never installed) and
# static e2fsck binaries, for arm64 and amd64; and promtool, of which the package around it is not wanted.
#
# apt runs on directories of our own with both architectures enabled, so that the machine's own package state is
# not changed and no root is needed. Everything is keyed by package version; once there, no network is asked.
#
# Prints nothing when all is there. Result: .cache/parts/ARCH/{vmlinuz,lib/modules/RELEASE,e2fsck,config,versions}, .cache/parts/promtool.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=$top/.cache
parts=$cache/parts
apt=$cache/apt

all_there() {
    [ -x "$parts/promtool" ] || return 1
    for arch in arm64 amd64; do
        for part in vmlinuz lib/modules e2fsck versions; do
            [ -e "$parts/$arch/$part" ] || return 1
        done
    done
}

if all_there; then
    exit 0
fi

# apt parses its command-line values as configuration text; a space in a path would need quotes inside them, and
# a configuration file does that in one place.
prepare_apt() {
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    : > "$apt/status"
    cat > "$apt/apt.conf" <<CONF
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
    export APT_CONFIG="$apt/apt.conf"
}

# The metapackage names the concrete kernel in its dependencies.
kernel_package() {
    apt-cache depends --important "linux-image-$1:$1" |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ :]*\).*/\1/p' | head -n 1
}

download() {
    (cd "$apt/debs" && apt-get -qq download "$1")
}

version() {
    apt-cache show --no-all-versions "$1" | sed -n 's/^Version: //p' | head -n 1
}

unpack() { # deb, directory
    rm -rf "$2"
    mkdir -p "$2"
    dpkg-deb -x "$1" "$2"
}

bring() { # architecture
    arch=$1
    kernel=$(kernel_package "$arch")
    if [ -z "$kernel" ]; then
        echo "fetch: apt knows no linux-image-$arch; is a Debian archive among apt's sources?" >&2
        exit 1
    fi
    kernel_version=$(version "$kernel:$arch")
    fsck_version=$(version "e2fsck-static:$arch")
    stage=$cache/unpacked/$arch
    echo "fetch: $kernel $kernel_version and e2fsck-static $fsck_version ($arch)"
    download "$kernel:$arch"
    download "e2fsck-static:$arch"
    unpack "$(ls "$apt/debs/${kernel}_"*"_$arch.deb")" "$stage/kernel"
    unpack "$(ls "$apt/debs/e2fsck-static_"*"_$arch.deb")" "$stage/e2fsck"
    rm -rf "${parts:?}/$arch"
    mkdir -p "$parts/$arch"
    mv "$stage"/kernel/boot/vmlinuz-* "$parts/$arch/vmlinuz"
    mv "$stage"/kernel/boot/config-* "$parts/$arch/config"
    mv "$stage/kernel/lib" "$parts/$arch/lib"
    # A kernel package of Debian holds exactly one release; the package leaves modules.dep to its installation.
    for release in "$parts/$arch/lib/modules/"*; do
        depmod -b "$parts/$arch" "${release##*/}"
    done
    mv "$stage/e2fsck/sbin/e2fsck.static" "$parts/$arch/e2fsck"
    # Last: its presence says that this architecture is complete.
    printf '%s %s\ne2fsck-static %s\n' "$kernel" "$kernel_version" "$fsck_version" > "$parts/$arch/versions"
    rm -rf "$stage"
}

bring_promtool() {
    arch=$(dpkg --print-architecture)
    echo "fetch: promtool $(version "prometheus:$arch") ($arch)"
    download "prometheus:$arch"
    unpack "$(ls "$apt/debs/prometheus_"*"_$arch.deb")" "$cache/unpacked/promtool"
    mkdir -p "$parts"
    mv "$cache/unpacked/promtool/usr/bin/promtool" "$parts/promtool"
    rm -rf "$cache/unpacked/promtool"
}

prepare_apt
apt-get -qq update
[ -x "$parts/promtool" ] || bring_promtool
[ -e "$parts/arm64/versions" ] || bring arm64
[ -e "$parts/amd64/versions" ] || bring amd64
rm -rf "$apt/debs"
