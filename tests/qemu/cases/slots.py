"""Which system is started, and when the other one gets its chance."""

import random

import stores
from cases import case, found, whole


@case("slot A has no init: B")
def a_broken(it):
    it.make_disk(stores.closed_writer(it.directory / "data"), broken=("A",))
    whole(it.boot(), slot="B")


@case("no slot has an init: the recovery system stays")
def both_broken(it):
    it.make_disk(stores.closed_writer(it.directory / "data"), broken=("A", "B"))
    boot = it.boot(until="recovery: this system stays up")
    assert boot.userland is None, "an OS was started"
    assert boot.ended == "killed", f"it does not say that it stays in recovery: {boot.ended}"


@case("three boots that are never marked good: B")
def attempts(it):
    it.make_disk(stores.closed_writer(it.directory / "data"))
    slots = [found(it.boot())["slot"] for _ in range(4)]
    assert slots == ["A", "A", "A", "B"], slots


@case("marked good: A stays for as many boots as it likes")
def marked_good(it):
    it.make_disk(stores.closed_writer(it.directory / "data"))
    for _ in range(5):
        boot = it.boot("userland.markgood")
        found(boot, slot="A")
        assert boot.says("MARKGOOD exit=0"), "mark-good failed"


@case("data beyond repair never costs a slot")
def data_is_no_reason(it):
    tree = stores.closed_writer(it.directory / "data")
    stores.overwrite(tree / stores.STORE, 0, random.Random(530).randbytes(64 * 1024))
    it.note("seed 530")
    it.make_disk(tree)
    for _ in range(4):
        boot = it.boot("userland.markgood")
        found(boot, slot="A")
        assert boot.says("MARKGOOD exit=0"), "mark-good was refused"
