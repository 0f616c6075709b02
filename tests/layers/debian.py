#!/usr/bin/env python3
"""The integrations for initramfs-tools and dracut, booted: a Debian root with systemd, Debian's generator and kernel,
the seed drill, and a reader where the agent would be.

debian.py [initramfs-tools] [dracut]      both without a word
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "qemu"))

import artefacts  # noqa: E402  (the path must be set first)
import image  # noqa: E402
import machine  # noqa: E402
import stores  # noqa: E402

TOP = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CACHE = TOP / ".cache" / "layers"
UNITS = TOP / "meta-pyvorin/recipes-core/pyvorin-recovery/pyvorin-recovery-units"
ROOT_MIB = 480
SEED = 512
LIMIT = 900
# An emulated machine on a busy host is slow, which is no reason to give up on its disk.
PATIENCE = ("systemd.default_timeout_start_sec=900", "systemd.default_device_timeout_sec=900")
SYSTEM = "systemd-sysv,udev,kmod,e2fsprogs,sqlite3"
TOOLS = {"initramfs-tools": "initramfs-tools,zstd", "dracut": "dracut,zstd"}
# Slots are the loader's business here: the program runs as a hook.
CONFIG = '[data]\ndevice = "LABEL=PYV-DATA"\n[state]\ndevice = "LABEL=PYV-STATE"\n'


def suite():
    """The release of this machine, whose kernel and archive keys are at hand."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    sys.exit("debian.py: /etc/os-release names no Debian release; next: run this on Debian")


def gateway(generator):
    """Initramfs and slot file system, made once for the same inputs: (initrd, root.ext4)."""
    digest = hashlib.sha256(f"{generator} {suite()} {ROOT_MIB} {CONFIG}".encode())
    files = [artefacts.binary("amd64"), artefacts.PARTS / "amd64/versions", HERE / "debian-hook.sh"]
    for folder in (TOP / "initramfs", UNITS):
        files += sorted(path for path in folder.rglob("*") if path.is_file())
    for file in files:
        digest.update(file.read_bytes())
    out = CACHE / f"debian-{generator}-{digest.hexdigest()[:16]}"
    if not (out / "root.ext4").exists():
        for old in CACHE.glob(f"debian-{generator}-*"):
            shutil.rmtree(old)
        out.mkdir(parents=True)
        (out / "recovery.toml").write_text(CONFIG)
        needed = {
            "GENERATOR": generator, "TOP": TOP, "PARTS": artefacts.PARTS / "amd64", "UNIT_DIR": UNITS, "OUT": out,
            "BINARY": artefacts.binary("amd64"), "CONFIG": out / "recovery.toml"}
        done = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={SYSTEM},{TOOLS[generator]}",
             f"--customize-hook={HERE / 'debian-hook.sh'}", suite(), out / "root"],
            env={**os.environ, **{key: str(value) for key, value in needed.items()}}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            shutil.rmtree(out)
            sys.exit(f"debian.py: mmdebstrap failed with {done.returncode}:\n{done.stdout}")
        image.run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", "PYV-ROOT-A", "-d", out / "root",
                  out / "root.tmp", f"{ROOT_MIB}m")
        shutil.rmtree(out / "root")
        (out / "root.tmp").rename(out / "root.ext4")
    return out / "initrd", out / "root.ext4"


def drill(directory, root):
    """A disk whose store lost the head of its log, with this file system as slot A."""
    tree = stores.killed_writer(directory / "data", seed=SEED)
    stores.ruin_head(tree, seed=SEED)
    layout = image.Layout(sizes={**image.SIZES, "root-a": ROOT_MIB})
    disk = directory / "disk.img"
    with disk.open("wb") as file:
        file.truncate(layout.total)
    layout.write_table(disk)
    empty = directory / "empty"
    empty.mkdir()
    image.make_ext4(disk, layout, "state", empty)
    image.make_ext4(disk, layout, "data", tree)
    offset, _ = layout.parts["root-a"]
    image.run("dd", f"if={root}", f"of={disk}", "bs=1M", f"seek={offset >> 20}", "conv=notrunc,sparse")
    return disk


def boot(initrd, disk, *words):
    return machine.boot("amd64", artefacts.kernel("amd64"), initrd, disk,
                        ["root=PARTLABEL=root-a", "ro", "fsck.mode=skip", *PATIENCE, *words], limit=LIMIT, memory=768)


def told(result, name, rows):
    """Says how the boot ended; true when it ended as it must."""
    said = result.userland or {}
    good = said.get("rows") == rows and said.get("integrity") == "ok" and said.get("status") == "active"
    print(f"{'ok  ' if good else 'FAIL'} {result.seconds:6.1f} s  {name}: rows={said.get('rows', 'no OS reached')} "
          f"integrity={said.get('integrity')} status={said.get('status')}", flush=True)
    if not good:
        print("\n".join(line for _, line in result.lines[-80:]))
    return good


def main():
    asked = sys.argv[1:] or list(TOOLS)
    if set(asked) - set(TOOLS):
        sys.exit(f"debian.py: unknown generator; next: name one of {', '.join(TOOLS)}")
    for tool in ("mmdebstrap", "mke2fs"):
        if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            sys.exit(f"debian.py: {tool} is missing; next: sh tests/setup.sh full")
    if os.geteuid() != 0:
        sys.exit("debian.py: a root file system with its owners can only be made by root; next: run this as root")
    artefacts.fetch()
    good = True
    for generator in asked:
        began = time.monotonic()
        initrd, root = gateway(generator)
        print(f"     {time.monotonic() - began:6.1f} s  {generator}: {initrd.stat().st_size >> 10} KiB of initramfs", flush=True)
        scratch = CACHE / "run"
        for name, words, rows in (
                ("the seed drill", (), "1000"),
                # The control: the same disk without us. What SQLite alone makes of it must not be what we are after.
                ("the same without the program", ("pyvorin.off",), None)):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            result = boot(initrd, drill(scratch, root), *words)
            if rows is None:
                lost = result.userland is not None and result.userland.get("rows") != "1000"
                print(f"{'ok  ' if lost else 'FAIL'} {result.seconds:6.1f} s  {generator}, {name}: "
                      f"rows={(result.userland or {}).get('rows', 'no OS reached')}", flush=True)
                good &= lost
            else:
                good &= told(result, f"{generator}, {name}", rows)
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
