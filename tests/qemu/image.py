"""Disk images of a gateway, made without root: a GPT and the six partitions of design.md section 3.

File systems are written straight into the image at their partition's offset (mke2fs -d, mtools), so nothing is ever
mounted on the machine that runs the tests. Images are sparse.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

MIB = 1 << 20
SIZES = {"boot": 8, "root-a": 24, "root-b": 24, "recovery": 8, "state": 16, "data": 64}
LABELS = {"root-a": "PYV-ROOT-A", "root-b": "PYV-ROOT-B", "state": "PYV-STATE", "data": "PYV-DATA"}
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
BASIC = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"


def run(*command, **more):
    """Runs a program; its output appears only if it fails."""
    paths = os.environ["PATH"] + ":/usr/sbin:/sbin"
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, "PATH": paths}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout


def fixed_uuid(*parts):
    """Identifiers must not differ between two builds of the same image."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(parts)))


class Layout:
    """Where each partition lies, in bytes."""

    def __init__(self, data_mib=SIZES["data"], without=(), sizes=None):
        self.parts = {}
        offset = MIB
        for name, size in (sizes or SIZES).items():
            size = (data_mib if name == "data" else size) * MIB
            if name not in without:
                self.parts[name] = (offset, size)
                offset += size
        self.total = offset + MIB

    def write_table(self, path):
        lines = ["label: gpt", f"label-id: {fixed_uuid('disk')}"]
        for name, (offset, size) in self.parts.items():
            kind = LINUX if name in LABELS else BASIC
            lines.append(f'start={offset // 512}, size={size // 512}, type={kind}, '
                         f'uuid={fixed_uuid("part", name)}, name="{name}"')
        run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path, input="\n".join(lines) + "\n")


def make_ext4(disk, layout, name, tree):
    """Debian's defaults for ext4 on a device of a useful size; small images would otherwise get 1 KiB blocks."""
    offset, size = layout.parts[name]
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", LABELS[name], "-U", fixed_uuid("fs", name),
        "-E", f"offset={offset},root_owner=0:0,hash_seed={fixed_uuid('hash', name)}",
        "-d", tree, disk, f"{size // 1024}k")


def empty(disk, layout, name):
    """The partition as it was before its first boot."""
    with tempfile.TemporaryDirectory() as tree:
        make_ext4(disk, layout, name, tree)


def make_fat(disk, layout, name):
    offset, size = layout.parts[name]
    run("mformat", "-i", f"{disk}@@{offset}", "-T", size // 512, "-N", "50595600", "-v", name.upper(), "::")


def root_tree(tree, slot, binary, userland, config):
    """A root file system that holds just enough to start and report."""
    for path in ("proc", "sys", "dev", "run", "sbin", "usr/sbin", "etc/pyvorin", "mnt",
                 "var/lib/pyvorin", "var/lib/pyvorin-recovery"):
        (tree / path).mkdir(parents=True)
    (tree / "etc/slot").write_text(slot + "\n")
    (tree / "etc/pyvorin/recovery.toml").write_text(config)
    shutil.copy2(binary, tree / "usr/sbin/pyvorin-recovery")
    if userland:
        shutil.copy2(userland, tree / "sbin/init")


def copy_sparse(source, target):
    run("cp", "--reflink=auto", "--sparse=always", source, target)


def base(cache, arch, binary, userland, config, broken=(), data_mib=SIZES["data"], without=()):
    """The image without its data: table, roots, state and the FAT partitions. Cached by its inputs."""
    digest = hashlib.sha256(repr((arch, sorted(broken), data_mib, sorted(without), config)).encode())
    for file in (binary, userland, Path(__file__)):
        digest.update(file.read_bytes())
    path = cache / f"base-{arch}-{digest.hexdigest()[:16]}.img"
    if path.exists():
        return path
    layout = Layout(data_mib, without)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        scratch = Path(scratch)
        disk = scratch / "disk.img"
        with disk.open("wb") as file:
            file.truncate(layout.total)
        layout.write_table(disk)
        for name in ("boot", "recovery"):
            make_fat(disk, layout, name)
        for slot in ("A", "B"):
            tree = scratch / slot
            root_tree(tree, slot, binary, None if slot in broken else userland, config)
            make_ext4(disk, layout, f"root-{slot.lower()}", tree)
        empty(disk, layout, "state")
        disk.rename(path)
    return path


def wipe(disk, layout, name, seed):
    """Random bytes over both places where an ext4 superblock is looked for first."""
    import random
    offset, _ = layout.parts[name]
    noise = random.Random(seed)
    with open(disk, "r+b") as file:
        file.seek(offset)
        file.write(noise.randbytes(64 * 1024))


def digests(disk, layout):
    """SHA-256 of every partition's bytes."""
    result = {}
    with open(disk, "rb") as file:
        for name, (offset, size) in layout.parts.items():
            file.seek(offset)
            digest = hashlib.sha256()
            left = size
            while left:
                chunk = file.read(min(left, 4 * MIB))
                digest.update(chunk)
                left -= len(chunk)
            result[name] = digest.hexdigest()
    return result


def listing(disk, layout, name):
    """Paths inside an ext4 partition, for a case that asks what was left there."""
    offset, _ = layout.parts[name]
    with tempfile.TemporaryDirectory() as scratch:
        run("debugfs", "-R", f"rdump / {scratch}", f"{disk}?offset={offset}")
        return sorted(str(path.relative_to(scratch)) for path in Path(scratch).rglob("*"))
