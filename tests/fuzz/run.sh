#!/bin/sh
# Runs one fuzz target with libFuzzer: run.sh TARGET SECONDS [libFuzzer options]
#
# A stable toolchain is enough: the coverage instrumentation of LLVM is switched on with stable code generation options
# (those that cargo-fuzz passes), and the address sanitizer, which needs nightly, would have nothing to look at in code
# without `unsafe`. What it would add here, bounds on memory, the targets measure themselves.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
targets=$(sed -n 's/^ *Target { name: "\([a-z]*\)".*/\1/p' "$here/src/lib.rs" | tr '\n' ' ')
target=${1:-none}
seconds=${2:-60}
case " $targets " in
*" $target "*) shift ;;
*)
    echo "usage: make fuzz TARGET=name SECONDS=60; the targets are: $targets" >&2
    exit 16
    ;;
esac
[ $# -gt 0 ] && shift
command -v c++ > /dev/null || { echo 'fuzz: libFuzzer needs a C++ compiler: apt-get install g++' >&2; exit 8; }

# With --target the flags reach the code under test alone, not the build scripts.
triple=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$here/../../target/fuzz}"
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares ${RUSTFLAGS:-}"
nice cargo build -q --release --manifest-path "$here/Cargo.toml" --target "$triple"
program=$CARGO_TARGET_DIR/$triple/release/pyvorin-recovery-fuzz

# What is found new goes to the work directory; what is kept in the repository is read, never written.
work=$CARGO_TARGET_DIR/corpus/$target
crashes=$CARGO_TARGET_DIR/crashes/$target
mkdir -p "$work" "$crashes"
kept=$here/corpus/$target
[ -d "$kept" ] || mkdir -p "$kept"
export FUZZ_TARGET="$target"
limits=$(FUZZ_SEEDS="$work" "$program")
# A stack of 1 MiB: recursion that follows the input does not get far.
# shellcheck disable=SC3045 # not in POSIX, and in every sh of a Linux
ulimit -s 1024
exec nice -n 15 "$program" "$limits" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 \
    -artifact_prefix="$crashes/" -print_final_stats=1 "$@" "$work" "$kept"
