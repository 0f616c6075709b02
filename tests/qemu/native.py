"""One boot on this machine's own processor: the real /init as PID 1 of its own namespaces, over a real disk image.

Emulation is ten to twenty times slower than a processor, and unevenly so; a time of /init means something only where
it runs natively. The disk is a loop device with its six partitions, `/` a tmpfs as an initramfs is, and the OS that is
switched to ends the namespace instead of the machine. Kernel and firmware are left out: what is timed is ours.
"""

import os
import pty
import re
import shutil
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

# The namespace's view: its own /proc and the words of "its" kernel, the console of this boot, the machine's disks.
INSIDE = r"""
set -eu
mount -t tmpfs none "$ROOT"
mkdir -p "$ROOT/proc" "$ROOT/sys" "$ROOT/dev" "$ROOT/run" "$ROOT/mnt" "$ROOT/etc/pyvorin" "$ROOT/sbin" "$ROOT/lib/modules"
cp "$BINARY" "$ROOT/init"
cp "$CONFIG" "$ROOT/etc/pyvorin/recovery.toml"
mount -t proc none "$ROOT/proc"
mount --bind "$WORDS" "$ROOT/proc/cmdline"
mount -t sysfs none "$ROOT/sys"
mount --bind "$CONSOLE" "$ROOT/sys/class/tty/console/active"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs none "$ROOT/run"
exec chroot "$ROOT" /init
"""


# Without a partition table there are no PARTLABELs; the file systems' own labels name the slots.
SLOTS = (('"PARTLABEL=root-a"', '"LABEL=PYV-ROOT-A"'), ('"PARTLABEL=root-b"', '"LABEL=PYV-ROOT-B"'))


def possible(scratch):
    """None where native boots can be made, else why not."""
    if os.geteuid() != 0:
        return "it needs root (loop devices and namespaces)"
    for tool in ("losetup", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is missing (Debian: util-linux)"
    image = Path(scratch) / "loop-probe"
    image.write_bytes(bytes(1 << 20))
    try:
        with attached(image, {"probe": (0, 1 << 20)}):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a loop device cannot be had: {error}"
    finally:
        image.unlink()


@contextmanager
def attached(disk, parts):
    """Each partition of the disk as a loop device of its own: not every kernel reads partition tables."""
    loops = []
    try:
        for offset, size in parts.values():
            loops.append(subprocess.run(
                ["losetup", "--find", "--show", "--offset", str(offset), "--sizelimit", str(size), str(disk)],
                check=True, text=True, capture_output=True).stdout.strip())
        yield loops
    finally:
        for loop in loops:
            subprocess.run(["losetup", "--detach", loop], check=False)


def boot(binary, config, disk, layout, words, limit=60):
    """Text of one native boot."""
    for partition, file_system in SLOTS:
        config = config.replace(partition, file_system)
    main, console = pty.openpty()
    said = []

    def listen():
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:
                return
            if not chunk:
                return
            said.append(chunk)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        (scratch / "root").mkdir()
        (scratch / "recovery.toml").write_text(config)
        (scratch / "words").write_text(" ".join(words) + "\n")
        # The kernel lists consoles by their names below /dev; this boot's only one is the terminal opened above.
        (scratch / "console").write_text(os.ttyname(console).removeprefix("/dev/") + "\n")
        settings = {"ROOT": scratch / "root", "BINARY": binary, "CONFIG": scratch / "recovery.toml",
                    "WORDS": scratch / "words", "CONSOLE": scratch / "console"}
        with attached(disk, layout.parts):
            subprocess.run(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
                 "sh", "-c", INSIDE],
                env={**os.environ, **{key: str(value) for key, value in settings.items()}},
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=limit, check=False)
    os.close(console)
    listener.join(5)
    os.close(main)
    return b"".join(said).decode("utf-8", "replace")


def switched_ms(text):
    """Milliseconds from the first instruction of /init to switch_root, as /init itself says."""
    found = re.search(r"starting slot \w after (\d+) ms", text)
    return int(found.group(1)) if found else None
