#!/bin/sh
# The checks of meta-pyvorin, buildroot-ext and initramfs that need nothing but Debian's and PyPI's packages.
set -eu

cd "$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)"
python3 tests/layers/structure.py
python3 tests/layers/oelint.py
python3 tests/layers/behaviour.py
python3 tests/layers/monitoring.py
