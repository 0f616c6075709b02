"""One boot of a virtual gateway: QEMU without KVM, its serial port read line by line.

/dev/kvm may exist and still not run a stock kernel, so emulation is what every machine can repeat.
"""

import json
import os
import re
import selectors
import subprocess
import time

MACHINES = {
    "arm64": (["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57"], "ttyAMA0", 30),
    "amd64": (["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "qemu64"], "ttyS0", 60),
}
# A PC's firmware clears the screen; a serial log has no screen.
CONTROL = re.compile(r"\x1b(c|\[[?0-9;=]*[A-Za-z])")


class Boot:
    """What one boot said, and how it ended: off, killed (by `until` or `cut`) or timeout."""

    def __init__(self):
        self.lines = []
        self.ended = "off"
        self.seconds = 0.0

    @property
    def text(self):
        return "\n".join(line for _, line in self.lines)

    def says(self, pattern):
        return re.search(pattern, self.text, re.IGNORECASE) is not None

    def when(self, pattern):
        """Seconds from power-on to the first line that matches."""
        return next((at for at, line in self.lines if re.search(pattern, line)), None)

    @property
    def switched_ms(self):
        """Milliseconds from the first instruction of /init to switch_root, as the gateway itself says."""
        found = re.search(r"starting slot \w after (\d+) ms", self.text)
        return int(found.group(1)) if found else None

    @property
    def userland(self):
        """The words of the last USERLAND line, or None where no OS was reached."""
        found = [line for _, line in self.lines if line.startswith("USERLAND ")]
        if not found:
            return None
        return dict(word.split("=", 1) for word in found[-1].split()[1:])

    @property
    def report(self):
        """The boot report that the OS was handed."""
        found = [line for _, line in self.lines if line.startswith("REPORT ")]
        try:
            return json.loads(found[-1][7:]) if found else None
        except ValueError:
            return None


def command(arch, kernel, initramfs, disk, words, throttle, memory=256):
    start, console, _ = MACHINES[arch]
    # A loaded host can starve the emulated timer; the kernel's check of it would then panic.
    timer = ["no_timer_check"] if arch == "amd64" else []
    # In QEMU's option syntax a comma ends a value unless doubled.
    drive = f"file={str(disk).replace(',', ',,')},format=raw,if=none,id=disk"
    if throttle:
        drive += f",throttling.iops-write={throttle}"
    return start + [
        "-m", str(memory), "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", " ".join([f"console={console}", "panic=-1", "quiet", *timer, *words]),
        "-drive", drive, "-device", "virtio-blk-pci,drive=disk",
        "-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot"]


def boot(arch, kernel, initramfs, disk, words=(), limit=None, until=None, cut=None, throttle=None, memory=256,
         start=None):
    """Boots until power-off, reset, the time limit, a line matching `until`, or a power cut.

    `start` is a whole command in place of QEMU with a kernel: a machine that starts from its firmware.

    `cut` is (pattern, seconds): the machine is killed that long after the first line that matches.
    """
    result = Boot()
    limit = limit or MACHINES[arch][2]
    process = subprocess.Popen(
        start or command(arch, kernel, initramfs, disk, words, throttle, memory), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    started = time.monotonic()
    deadline, on_deadline = started + limit, "timeout"
    pending = b""
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                result.ended = on_deadline
                process.kill()
                break
            if not ready.select(left):
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            *whole, pending = (pending + chunk).split(b"\n")
            for raw in whole:
                line = CONTROL.sub("", raw.decode("utf-8", "replace")).rstrip("\r")
                result.lines.append((time.monotonic() - started, line))
                if until and re.search(until, line, re.IGNORECASE):
                    deadline, on_deadline = time.monotonic(), "killed"
                if cut and on_deadline == "timeout" and re.search(cut[0], line):
                    deadline, on_deadline = time.monotonic() + cut[1], "killed"
    process.wait()
    process.stdout.close()
    if pending:
        result.lines.append((time.monotonic() - started, pending.decode("utf-8", "replace")))
    result.seconds = time.monotonic() - started
    return result
