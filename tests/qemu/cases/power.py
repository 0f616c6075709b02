"""Power cuts during a repair: QEMU is killed, then the same disk boots again. Old or new, never a mix (I4)."""

import random
import threading

import image
import stores
from cases import case, whole

CUTS = 20
# Writes are slowed down, so that a repair takes seconds and a cut can fall anywhere inside it.
THROTTLE = 60
# Steps go to the kernel log; `quiet` would keep them off the serial port.
LOUD = "loglevel=7"
BEGINS = r"pyvorin.*\bstep "
# The last thing that touches data is behind us when the start of the slot is counted.
OVER = r"step count-attempt|starting slot"

LOCK = threading.Lock()
REFERENCE = {}


def ruined(it, name, seed):
    tree = stores.killed_writer(it.directory / name, seed=seed)
    stores.ruin_head(tree, seed=seed)
    it.make_disk(tree)


def span(it):
    """Seconds that a whole, uncut repair takes on this machine; measured once."""
    with LOCK:
        if not REFERENCE:
            ruined(it, "reference", 0)
            boot = it.boot(LOUD, throttle=THROTTLE)
            whole(boot)
            begins, over = boot.when(BEGINS), boot.when(OVER)
            assert begins and over, "the serial log does not show the steps of the repair"
            REFERENCE["span"] = over - begins
        return REFERENCE["span"]


def cut(number):
    @case(f"power cut {number:02} during a repair")
    def body(it):
        # Spread over the repair, jittered: a grid alone would always miss the same moments.
        delay = (number + random.Random(number).random()) * span(it) / CUTS
        for _ in range(4):
            ruined(it, f"data-{len(it.boots)}", number)
            first = it.boot(LOUD, cut=(BEGINS, delay), throttle=THROTTLE)
            if first.ended == "killed" and first.when(OVER) is None:
                break
            # The repair was quicker than the reference: this cut came too late to be one.
            delay *= 0.8
        else:
            raise AssertionError("no cut fell inside the repair")
        steps = [line.split("step ", 1)[1] for _, line in first.lines if "step " in line]
        it.note(f"seed {number}, {delay * 1000:.0f} ms after the first step, during: {steps[-1] if steps else '?'}")
        whole(it.boot())
        image.run("e2fsck", "-fn", f"{it.disk}?offset={it.layout.parts['data'][0]}")


for number in range(CUTS):
    cut(number)
