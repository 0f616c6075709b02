#!/usr/bin/env python3
"""The disks of buildroot-ext, made by its own post-image script with Debian's tools and started from their firmware:
GRUB under UEFI on x86-64, U-Boot on 64-bit ARM. Kernel and system are those of the QEMU tests.

boards.py [qemu_x86_64] [qemu_aarch64]     both without a word
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "qemu"))

import artefacts  # noqa: E402  (the path must be set first)
import image  # noqa: E402
import machine  # noqa: E402
import stores  # noqa: E402

TOP = Path(__file__).resolve().parents[2]
BOARDS = TOP / "buildroot-ext/board/pyvorin"
CACHE = TOP / ".cache/layers"
ARCH = {"qemu_x86_64": "amd64", "qemu_aarch64": "arm64"}
LIMIT = 400
SEED = 512
GRUB_MODULES = "boot linux ext2 fat part_msdos part_gpt normal efi_gop search search_label serial echo configfile".split()


def firmware(board, directory):
    """The command that starts this board's disk as the board does."""
    disk = ["-drive", f"file={directory / 'images/disk.img'},format=raw,if=none,id=disk",
            "-device", "virtio-blk-pci,drive=disk", "-nographic", "-nodefaults", "-serial", "stdio", "-net", "none",
            "-no-reboot", "-m", "512"]
    if board == "qemu_aarch64":
        return [*machine.MACHINES["arm64"][0], "-bios", "/usr/lib/u-boot/qemu_arm64/u-boot.bin", *disk]
    variables = directory / "vars.fd"
    shutil.copy("/usr/share/OVMF/OVMF_VARS.fd", variables)
    return [*machine.MACHINES["amd64"][0], "-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd",
            "-drive", f"if=pflash,format=raw,file={variables}", *disk]


def target(board, directory):
    """What Buildroot would have in its target directory, as far as the scripts look at it."""
    arch = ARCH[board]
    tree = directory / "target"
    for path in ("usr/sbin", "sbin", "etc/pyvorin", "lib/modules"):
        (tree / path).mkdir(parents=True)
    (tree / "lib64").symlink_to("lib")
    shutil.copy(artefacts.binary(arch), tree / "usr/sbin/pyvorin-recovery")
    (tree / "etc/pyvorin/recovery.toml").write_text(artefacts.CONFIG)
    shutil.copytree(artefacts.PARTS / arch / "lib/modules" / artefacts.release(arch),
                    tree / "lib/modules" / artefacts.release(arch), symlinks=True,
                    ignore=shutil.ignore_patterns("drivers/net", "sound", "build", "source"))
    if arch == "amd64":
        # The machine's own, with its libraries: the script has to find them.
        e2fsck = shutil.which("e2fsck", path="/usr/sbin:/sbin")
        shutil.copy(e2fsck, tree / "sbin/e2fsck")
        for library in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", e2fsck], text=True, capture_output=True).stdout):
            shutil.copy(library, tree / "lib")
    else:
        shutil.copy(artefacts.PARTS / arch / "e2fsck", tree / "sbin/e2fsck")
    return tree


def disk(board, directory):
    """Runs the post-image script as Buildroot does."""
    arch = ARCH[board]
    images = directory / "images"
    (images / "efi-part/EFI/BOOT").mkdir(parents=True)
    boards = directory / "boards"
    shutil.copytree(BOARDS, boards)
    meta = boards / board / "meta"
    # Debian's kernel has these as modules; Buildroot's are built in.
    meta.write_text(meta.read_text().replace('MODULES=""', 'MODULES="virtio_pci virtio_blk ext4"'))
    kernel = {"amd64": "bzImage", "arm64": "Image"}[arch]
    shutil.copy(artefacts.kernel(arch), images / kernel)
    root = directory / "root"
    image.root_tree(root, "A", artefacts.binary(arch), artefacts.userland(arch), artefacts.CONFIG)
    image.run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", root, images / "rootfs.ext4", "24m")
    if arch == "amd64":
        image.run("grub-mkimage", "-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o", images / "efi-part/EFI/BOOT/bootx64.efi",
                  *GRUB_MODULES)
    else:
        image.run("mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-d", boards / board / "boot.cmd",
                  images / "boot.scr")
    places = {"BINARIES_DIR": images, "BUILD_DIR": directory, "HOST_DIR": "/usr", "TARGET_DIR": target(board, directory)}
    done = subprocess.run(
        ["sh", boards / "common/post-image.sh", images, board], text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", **{k: str(v) for k, v in places.items()}})
    if done.returncode != 0:
        sys.exit(f"boards.py: post-image.sh failed with {done.returncode}:\n{done.stdout}")
    return images / "disk.img"


def partitions(path):
    """Name to (offset, size) in bytes, as sfdisk reads them."""
    table = json.loads(image.run("sfdisk", "--json", path))["partitiontable"]["partitions"]
    return {entry["name"]: (entry["start"] * 512, entry["size"] * 512) for entry in table}


def fill_data(path, tree):
    """Puts the store into the data partition, under the label that genimage has given it."""
    offset, size = partitions(path)["data"]
    image.run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "PYV-DATA", "-E", f"offset={offset},root_owner=0:0",
              "-d", tree, path, f"{size // 1024}k")


def labels(path):
    """File-system labels of state and data, as genimage made them."""
    result = {}
    for name in ("state", "data"):
        offset, _ = partitions(path)[name]
        result[name] = image.run("blkid", "-p", "-O", offset, "-o", "value", "-s", "LABEL", path).strip()
    return result


def said(good, boot, name, what):
    print(f"{'ok  ' if good else 'FAIL'} {boot.seconds:6.1f} s  {name}: {what}", flush=True)
    if not good:
        print("\n".join(line for _, line in boot.lines[-80:]))
    return good


def board_works(board, directory):
    path = disk(board, directory)
    names = list(partitions(path))
    assert names == list(image.SIZES), f"{board}: the disk has {names}"
    assert labels(path) == {"state": "PYV-STATE", "data": "PYV-DATA"}, labels(path)
    tree = stores.killed_writer(directory / "data", seed=SEED)
    stores.ruin_head(tree, seed=SEED)
    fill_data(path, tree)
    boot = machine.boot(ARCH[board], None, None, None, limit=LIMIT, start=firmware(board, directory))
    rows = (boot.userland or {}).get("rows")
    good = said(rows == "1000", boot, f"{board}, from its firmware, the seed drill", f"rows={rows}")
    # The loader's own choice: a boot partition without a kernel leads to the recovery partition, which stays.
    offset, _ = partitions(path)["boot"]
    kernel = "bzImage" if ARCH[board] == "amd64" else "Image"
    image.run("mdel", "-i", f"{path}@@{offset}", f"::{kernel}")
    boot = machine.boot(ARCH[board], None, None, None, limit=LIMIT, start=firmware(board, directory),
                        until="the machine waits|recovery was asked for")
    stays = boot.userland is None and boot.says("the machine waits|recovery was asked for")
    good &= said(stays, boot, f"{board}, without a kernel in boot", "the recovery partition stays" if stays else "no recovery")
    return good


def main():
    asked = sys.argv[1:] or list(ARCH)
    if set(asked) - set(ARCH):
        sys.exit(f"boards.py: unknown board; next: name one of {', '.join(ARCH)}")
    for tool in ("genimage", "mkfs.vfat", "grub-mkimage", "mkimage", "fakeroot", "cpio"):
        if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            sys.exit(f"boards.py: {tool} is missing; next: sh tests/setup.sh full")
    artefacts.fetch()
    good = True
    for board in asked:
        directory = CACHE / f"board {board}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        good &= board_works(board, directory)
        shutil.rmtree(directory)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
