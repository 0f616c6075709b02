#!/usr/bin/env python3
"""How long a clean boot takes as the database grows, beside the seed script's check of the same files.

Both are measured inside the same emulated arm64 gateway: the boot from the first instruction of /init to switch_root
(modules and devices included; in brackets the line alone, `elapsed_ms` of the boot report), then wal_checkpoint(TRUNCATE) and integrity_check by the real SQLite.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import artefacts  # noqa: E402
import machine  # noqa: E402
import stores  # noqa: E402

WAL_MIB = 4
BOOTS = 3
LIMIT = 1500


def main():
    scratch = artefacts.scratch()
    sizes = [int(word) for word in sys.argv[1:]] or [1, 64, 1024]
    kernel, image = artefacts.kernel("arm64"), artefacts.initramfs("arm64", artefacts.CONFIG)
    print(f"clean boot, {WAL_MIB} MiB of commits waiting in the WAL, arm64 under emulation")
    print(f"{'database':>10}  {'init to switch_root, ' + str(BOOTS) + ' boots':<36}  seed script", flush=True)
    for mib in sizes:
        tree = stores.large(scratch / f"data-{mib}", mib, WAL_MIB)
        disk = scratch / "disk.img"
        artefacts.disk(disk, "arm64", tree, data_mib=mib * 5 // 4 + 96)
        shutil.rmtree(tree)
        ours = []
        for _ in range(BOOTS):
            boot = machine.boot("arm64", kernel, image, disk, ["userland.dry"])
            if not boot.report or boot.switched_ms is None:
                print(boot.text)
                return 1
            ours.append(f"{boot.switched_ms} ({boot.report['elapsed_ms']})")
        boot = machine.boot("arm64", kernel, image, disk, ["userland.seed", "userland.nocheck"], limit=LIMIT)
        said = boot.userland or {}
        times = ", ".join(ours) + " ms"
        seed = f"{said['seed_ms']} ms ({said['seed_says']})" if "seed_ms" in said else f"none within {LIMIT} s"
        print(f"{mib:>6} MiB  {times:<36}  {seed}", flush=True)
        disk.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
