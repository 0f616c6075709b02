#!/bin/sh
# The shipped binary and the test's userland for both architectures, static, in release form.
set -eu

cd "$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)"
PATH=$PWD/.cache/zig/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
# What cargo makes is told to it twice in one call: the dependencies are then built once for both programs.
what='--release --bin pyvorin-recovery --example userland'
[ -f Cargo.lock ] && what="$what --locked"
# shellcheck disable=SC2086 # a list of options
nice cargo zigbuild $what --target aarch64-unknown-linux-musl
# shellcheck disable=SC2086
nice cargo build $what --target x86_64-unknown-linux-musl
