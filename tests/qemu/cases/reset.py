"""A factory reset asked for on the kernel command line: QEMU is killed inside it, then the same disk boots again with the
same word. It ends complete, with one receipt, and the word does nothing at the boot after that."""

import random
import threading

import image
import stores
from cases import case, found

CUTS = 10
WORD = "pyvorin.reset=data,T-042,1"
# As in a cut repair: writes slowed down, steps on the serial port.
THROTTLE = 60
LOUD = "loglevel=7"
BEGINS = r"pyvorin.*\bstep reset"
OVER = r"step count-attempt|starting slot"

LOCK = threading.Lock()
REFERENCE = {}


def filled(it, seed):
    it.make_disk(stores.killed_writer(it.directory / f"data-{len(it.boots)}", seed=seed))


def complete(it, boot, *states):
    """An empty store, sound by SQLite's own word; a report that says so; one receipt; the originals in quarantine."""
    found(boot, rows=0, max_id=0, integrity="ok")
    said = (boot.report or {}).get("reset") or {}
    assert said.get("state") in states, f"the report says {said}"
    names = image.listing(it.disk, it.layout, "state")
    receipts = [name for name in names if "receipts/" in name and name.endswith(".json")]
    assert len(receipts) == 1, f"{receipts} in {names}"
    assert "intent" not in names, "the operation is left open"
    kept = image.listing(it.disk, it.layout, "data")
    assert any("-reset-" in name and name.endswith("edge_store.db") for name in kept), f"no original in {kept}"
    assert ".pyvorin-intent" not in kept, "the agent would stay stopped"


def span(it):
    """Seconds that a whole, uncut reset takes on this machine; measured once."""
    with LOCK:
        if not REFERENCE:
            filled(it, 0)
            boot = it.boot(LOUD, WORD, throttle=THROTTLE)
            complete(it, boot, "done")
            begins, over = boot.when(BEGINS), boot.when(OVER)
            assert begins and over, "the serial log does not show the steps of the reset"
            REFERENCE["span"] = over - begins
        return REFERENCE["span"]


def cut(number):
    @case(f"power cut {number:02} during a factory reset", full=number % 4 != 1)
    def body(it):
        delay = (number + random.Random(number).random()) * span(it) / CUTS
        for _ in range(4):
            filled(it, number)
            first = it.boot(LOUD, WORD, cut=(BEGINS, delay), throttle=THROTTLE)
            if first.ended == "killed" and first.when(OVER) is None:
                break
            delay *= 0.8
        else:
            raise AssertionError("no cut fell inside the reset")
        steps = [line.split("step ", 1)[1] for _, line in first.lines if "step " in line]
        it.note(f"seed {number}, {delay * 1000:.0f} ms after its first step, during: {steps[-1] if steps else '?'}")
        complete(it, it.boot(WORD), "done", "used")
        image.run("e2fsck", "-fn", f"{it.disk}?offset={it.layout.parts['data'][0]}")


for one in range(CUTS):
    cut(one)


@case("factory reset on the kernel command line, once")
def once(it):
    filled(it, 1)
    complete(it, it.boot(WORD), "done")
    complete(it, it.boot(WORD), "used")
