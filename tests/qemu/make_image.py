#!/usr/bin/env python3
"""Puts a bootable arm64 gateway into a directory: disk, initramfs, kernel, and the command that starts it."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import artefacts  # noqa: E402
import machine  # noqa: E402
import stores  # noqa: E402


def main():
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    tree = stores.closed_writer(artefacts.scratch() / "data")
    artefacts.disk(target / "disk.img", "arm64", tree)
    shutil.copy(artefacts.initramfs("arm64", artefacts.CONFIG, level=19), target / "initramfs.zst")
    shutil.copy(artefacts.kernel("arm64"), target / "vmlinuz")
    words = machine.command("arm64", "vmlinuz", "initramfs.zst", "disk.img", ["userland.hold"], None)
    quoted = " ".join(f"'{word}'" if " " in word else word for word in words)
    (target / "start.sh").write_text(f'#!/bin/sh\n# Ctrl-C ends it.\ncd "$(dirname -- "$0")"\nexec {quoted}\n')
    (target / "start.sh").chmod(0o755)
    for file in sorted(target.iterdir()):
        print(f"{file.stat().st_size:>12}  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
