#!/usr/bin/env python3
"""How long a clean boot takes as the database grows, beside the seed script's check of the same files.

From the first instruction of /init to switch_root: first on this machine's own processor (namespaces and loop devices;
kernel, modules and firmware left out), then inside an emulated arm64 gateway with everything (in brackets the line
alone, `elapsed_ms` of the boot report). The seed script's part is wal_checkpoint(TRUNCATE) and integrity_check by the
real SQLite on the same files: beside the native boots on the same medium, beside the emulated ones in the same gateway.
"""

import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import artefacts  # noqa: E402
import image  # noqa: E402
import machine  # noqa: E402
import native  # noqa: E402
import stores  # noqa: E402

WAL_MIB = 4
BOOTS = 3
NATIVE_BOOTS = 9
# Memory, so that the figure is ours and not a disk's; an SD card adds its own latency to both columns.
MEMORY = Path("/dev/shm")
LIMIT = 1500


def natively(scratch, sizes):
    """Boots on this processor; False where one fails."""
    why = native.possible(scratch)
    if why:
        print(f"no native boots: {why}")
        return True
    print(f"clean boot on this machine's processor, {WAL_MIB} MiB of commits waiting, disk in memory")
    print(f"{'database':>10}  {f'init to switch_root, {NATIVE_BOOTS} boots':<36}  seed script (SQLite {sqlite3.sqlite_version})",
          flush=True)
    for mib in sizes:
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else scratch) as place:
            place = Path(place)
            tree = stores.large(place / "data", mib, WAL_MIB)
            disk = place / "disk.img"
            layout = artefacts.disk(disk, "amd64", tree, data_mib=mib * 5 // 4 + 96)
            ours = []
            for _ in range(NATIVE_BOOTS):
                # A fresh boot state each time: nothing marks these boots good.
                image.empty(disk, layout, "state")
                text = native.boot(artefacts.binary("amd64"), artefacts.CONFIG, disk, layout, ["userland.dry"])
                if native.switched_ms(text) is None:
                    print(text)
                    return False
                ours.append(native.switched_ms(text))
            seed, says = seed_check(tree)
            middle = statistics.median(ours)
            times = f"median {middle:.0f} ms ({min(ours)} to {max(ours)})"
            print(f"{mib:>6} MiB  {times:<36}  {seed:.0f} ms ({says}): {seed / max(middle, 1):.1f} times as long", flush=True)
    return True


def seed_check(tree):
    """The seed script's two statements on the files themselves; (milliseconds, verdict)."""
    began = time.monotonic()
    store = sqlite3.connect(tree / stores.STORE)
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    says = store.execute("PRAGMA integrity_check").fetchone()[0]
    store.close()
    return (time.monotonic() - began) * 1000, says


def main():
    scratch = artefacts.scratch()
    sizes = [int(word) for word in sys.argv[1:]] or [1, 64, 1024]
    if not natively(scratch, sizes):
        return 1
    kernel, initramfs = artefacts.kernel("arm64"), artefacts.initramfs("arm64", artefacts.CONFIG)
    print(f"clean boot, {WAL_MIB} MiB of commits waiting in the WAL, arm64 under emulation")
    print(f"{'database':>10}  {'init to switch_root, ' + str(BOOTS) + ' boots':<36}  seed script", flush=True)
    for mib in sizes:
        tree = stores.large(scratch / f"data-{mib}", mib, WAL_MIB)
        disk = scratch / "disk.img"
        artefacts.disk(disk, "arm64", tree, data_mib=mib * 5 // 4 + 96)
        shutil.rmtree(tree)
        ours = []
        for _ in range(BOOTS):
            boot = machine.boot("arm64", kernel, initramfs, disk, ["userland.dry"])
            if not boot.report or boot.switched_ms is None:
                print(boot.text)
                return 1
            ours.append(f"{boot.switched_ms} ({boot.report['elapsed_ms']})")
        boot = machine.boot("arm64", kernel, initramfs, disk, ["userland.seed", "userland.nocheck"], limit=LIMIT)
        said = boot.userland or {}
        times = ", ".join(ours) + " ms"
        seed = f"{said['seed_ms']} ms ({said['seed_says']})" if "seed_ms" in said else f"none within {LIMIT} s"
        print(f"{mib:>6} MiB  {times:<36}  {seed}", flush=True)
        disk.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
