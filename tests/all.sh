#!/bin/sh
# `make test`: every check, cheapest first; stops at the first phase that fails, and says how long each one took.
set -eu

cd "$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)"
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
begun=$(date +%s)

phase() { # name, command...
    name=$1
    shift
    echo "=== $name"
    from=$(date +%s)
    "$@" || { echo "=== $name FAILED after $(($(date +%s) - from)) s" >&2; exit 1; }
    echo "=== $name: $(($(date +%s) - from)) s"
}

phase 'setup' sh tests/setup.sh
phase 'downloads' sh tests/qemu/fetch.sh
phase 'scripts' sh tests/layers/scripts.sh
phase 'format' cargo fmt --check
phase 'lints' nice cargo clippy -q --all-targets -- -D warnings
phase 'tests' nice python3 tests/parallel.py
phase 'static builds' sh tests/build.sh
phase 'sizes' sh tests/size.sh
phase 'layers' sh tests/layers/quick.sh
# Last, and it prints the total, so that the count of passed and failed boots is the last line of all.
echo '=== boots in QEMU'
exec nice python3 tests/qemu/run.py --begun "$begun"
