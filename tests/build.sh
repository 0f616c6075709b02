#!/bin/sh
# The shipped binary and the test's userland for both architectures, static, in release form.
set -eu

cd "$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)"
PATH=$PWD/.cache/zig/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
# What cargo makes is told to it twice in one call: the dependencies are then built once for both programs.
what='--release --bin pyvorin-recovery --example userland'
[ -f Cargo.lock ] && what="$what --locked"
# Most of it is linking, on one processor: side by side, so each in a directory of its own, which cargo locks.
arm=aarch64-unknown-linux-musl
# shellcheck disable=SC2086 # a list of options
nice cargo zigbuild $what --target $arm --target-dir target/aside &
aside=$!
# shellcheck disable=SC2086
nice cargo build $what --target x86_64-unknown-linux-musl || { wait $aside || true; exit 1; }
wait $aside
mkdir -p target/$arm/release/examples
for program in pyvorin-recovery examples/userland; do
    ln -f target/aside/$arm/release/$program target/$arm/release/$program
done
