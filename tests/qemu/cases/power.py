"""Power cuts during a repair: QEMU is killed, then the same disk boots again. Old or new, never a mix (I4)."""

import random

import stores
from cases import case, whole

CUTS = 24
# Writes are slowed down so that a repair of a small store takes seconds, and a cut can fall anywhere inside it.
THROTTLE = 60
SPAN = 3.0
STARTS = r"act|repair"


def cut(number):
    @case(f"power cut {number:02} during a repair")
    def body(it):
        tree = stores.killed_writer(it.directory / "data", seed=number)
        stores.ruin_head(tree, seed=number)
        it.make_disk(tree)
        # Spread over the repair, jittered: a grid alone would always miss the same moments.
        delay = (number + random.Random(number).random()) * SPAN / CUTS
        first = it.boot(cut=(STARTS, delay), throttle=THROTTLE)
        it.note(f"seed {number}, cut {delay * 1000:.0f} ms into it, "
                + ("before the OS" if first.userland is None else "after the OS was up"))
        whole(it.boot())


for number in range(CUTS):
    cut(number)
