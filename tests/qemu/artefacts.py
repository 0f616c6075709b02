"""What the boots are made of: the two programs, stock kernels, initramfs images and base disks; cached by content."""

import hashlib
import shutil
import subprocess
import threading
from pathlib import Path

import image

TOP = Path(__file__).resolve().parents[2]
CACHE = TOP / ".cache" / "qemu"
PARTS = TOP / ".cache" / "parts"
TRIPLE = {"arm64": "aarch64-unknown-linux-musl", "amd64": "x86_64-unknown-linux-musl"}
# Two cases that ask for the same artefact must not both make it.
LOCK = threading.Lock()

CONFIG = """\
# The gateway of the boot tests.
[data]
device = "LABEL=PYV-DATA"
[state]
device = "LABEL=PYV-STATE"
[slots]
backend = "file"
a = "PARTLABEL=root-a"
b = "PARTLABEL=root-b"
init = "/sbin/init"
[boot]
device_wait_seconds = 3
"""


def config(**boot):
    """The configuration with further keys of [boot]; words are quoted, numbers are not."""
    lines = [f'{key} = "{value}"\n' if isinstance(value, str) else f"{key} = {value}\n" for key, value in boot.items()]
    return CONFIG + "".join(lines)


def program(arch, name):
    path = TOP / "target" / TRIPLE[arch] / "release" / name
    if not path.exists():
        raise RuntimeError(f"{path} is not there; build it with: make build")
    return path


def binary(arch):
    return program(arch, "pyvorin-recovery")


def userland(arch):
    return program(arch, "examples/userland")


def kernel(arch):
    return PARTS / arch / "vmlinuz"


def release(arch):
    return next((PARTS / arch / "lib/modules").iterdir()).name


def initramfs(arch, text, level=3):
    """The boot image with this configuration baked in. Low compression: it is made often and read once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{arch}\n{text}\n{level}\n{(PARTS / arch / 'versions').read_text()}".encode())
    for file in [binary(arch), *sorted((TOP / "initramfs").iterdir())]:
        if file.is_file():
            digest.update(file.read_bytes())
    path = CACHE / f"initramfs-{arch}-{digest.hexdigest()[:16]}.zst"
    with LOCK:
        if not path.exists():
            source = path.with_suffix(".toml")
            source.write_text(text)
            image.run(
                TOP / "initramfs/build", "--binary", binary(arch), "--e2fsck", PARTS / arch / "e2fsck",
                "--config", source, "--kernel-root", PARTS / arch, "--release", release(arch),
                "--level", level, "--output", path)
    return path


def disk(path, arch, tree=None, broken=(), data_mib=image.SIZES["data"], without=()):
    """A fresh disk whose data partition holds `tree`; returns its layout."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with LOCK:
        source = image.base(CACHE, arch, binary(arch), userland(arch), CONFIG, broken, data_mib, without)
    image.copy_sparse(source, path)
    layout = image.Layout(data_mib, without)
    if "data" not in without:
        if tree is None:
            tree = path.with_suffix(".tree")
            tree.mkdir(exist_ok=True)
        image.make_ext4(path, layout, "data", tree)
    return layout


def forget_old(keep=40):
    """The cache grows with every change of the binary; only the newest artefacts can be asked for again."""
    files = sorted(CACHE.glob("*-*.*"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[keep:]:
        file.unlink()


def fetch():
    """Kernels and e2fsck; silent and quick when they are there."""
    subprocess.run(["sh", TOP / "tests/qemu/fetch.sh"], check=True)


def scratch():
    """A clean directory for the disks of this run."""
    path = CACHE / "run"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
