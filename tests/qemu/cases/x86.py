"""The other architecture: the same three stories on q35."""

import stores
from cases import case, whole


@case("clean boot", arch="amd64")
def clean(it):
    it.make_disk(stores.closed_writer(it.directory / "data"))
    boot = it.boot()
    whole(boot, slot="A")
    it.note(f"init to switch_root {boot.switched_ms} ms, of which the line {boot.report['elapsed_ms']} ms")


@case("seed drill: the WAL's first 512 bytes are random", arch="amd64")
def drill(it):
    tree = stores.killed_writer(it.directory / "data")
    stores.ruin_head(tree, seed=550)
    it.note("seed 550")
    it.make_disk(tree)
    whole(it.boot())


@case("slot A has no init: B", arch="amd64")
def a_broken(it):
    it.make_disk(stores.closed_writer(it.directory / "data"), broken=("A",))
    whole(it.boot(), slot="B")
