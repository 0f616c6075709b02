"""The data partition itself: in use when the power failed, missing, or no file system any more."""

import artefacts
import image
import stores
from cases import case, found, whole


@case("unclean ext4 journal: it is replayed before anything is read")
def unclean(it):
    it.make_disk(stores.closed_writer(it.directory / "data"))
    first = it.boot("userland.insert=100", "userland.crash")
    whole(first, rows=1100)
    boot = it.boot()
    whole(boot, rows=1100)
    assert boot.says("data file system was not clean"), "the boot does not say what it did"
    assert boot.report["cause"] == "power", f"cause {boot.report['cause']}: {boot.report}"


@case("seed drill on an unclean ext4")
def unclean_drill(it):
    tree = stores.killed_writer(it.directory / "data")
    stores.ruin_head(tree, seed=520)
    it.note("seed 520")
    it.make_disk(tree)
    # Power is lost before the agent opens its store: SQLite would throw the damaged WAL away.
    found(it.boot("userland.nodb", "userland.crash", config=artefacts.config(on_damage_left="continue")))
    whole(it.boot())


def lost_partition(it, how, **boot):
    it.make_disk(stores.closed_writer(it.directory / "data"), without=("data",) if how == "missing" else ())
    if how == "wiped":
        image.wipe(it.disk, it.layout, "data", seed=521)
        it.note("seed 521")
    hold = boot.get("on_data_missing") == "hold"
    return it.boot(config=artefacts.config(**boot), until="the machine waits" if hold else None)


@case("data partition missing, on_data_missing = continue")
def missing(it):
    boot = lost_partition(it, "missing", on_data_missing="continue")
    found(boot, slot="A", data="absent")
    assert boot.says("the data partition cannot be used"), "the boot does not name the missing partition"


@case("data partition is not ext4, on_data_missing = continue")
def wiped(it):
    boot = lost_partition(it, "wiped", on_data_missing="continue")
    found(boot, slot="A")
    assert boot.says("the data partition cannot be used"), "the boot does not name the missing partition"


@case("data partition missing, on_data_missing = hold")
def missing_hold(it):
    boot = lost_partition(it, "missing", on_data_missing="hold", hold_minutes=1)
    assert boot.ended == "killed" and boot.userland is None, f"it did not hold: {boot.ended}"


@case("data partition is not ext4, on_data_missing = hold, then the boot goes on")
def wiped_hold(it):
    it.make_disk(stores.closed_writer(it.directory / "data"))
    image.wipe(it.disk, it.layout, "data", seed=522)
    it.note("seed 522")
    boot = it.boot(config=artefacts.config(on_data_missing="hold", hold_minutes=1), limit=100)
    assert boot.says("the machine waits"), "it did not say that it holds"
    found(boot, slot="A")
    assert boot.seconds > 60, f"it went on after {boot.seconds:.0f} s"
