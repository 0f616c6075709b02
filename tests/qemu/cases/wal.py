"""What can happen to a database and its WAL while the power fails."""

import stores
from cases import case, database, found, whole
import image


@case("clean boot")
def clean(it):
    it.make_disk(stores.closed_writer(it.directory / "data"))
    boot = it.boot()
    whole(boot, slot="A", wal="absent")
    assert boot.report and boot.report["ending"] == "continue" and boot.report["cause"] == "none", boot.report
    it.note(f"init to switch_root {boot.switched_ms} ms, of which the line {boot.report['elapsed_ms']} ms")


@case("a killed writer's sound WAL is left to the agent")
def sound_wal(it):
    it.make_disk(stores.killed_writer(it.directory / "data"))
    boot = it.boot()
    said = whole(boot)
    assert said["wal"] not in ("absent", "0"), f"the WAL was touched: {said}"
    assert database(boot)["wal"]["state"] == "sound", database(boot)


@case("a clean boot writes to the state partition only")
def writes_nothing(it):
    it.make_disk(stores.killed_writer(it.directory / "data"))
    before = image.digests(it.disk, it.layout)
    boot = it.boot("userland.dry")
    found(boot, dry="yes")
    after = image.digests(it.disk, it.layout)
    changed = [name for name in before if before[name] != after[name]]
    assert set(changed) <= {"state"}, f"a clean boot wrote to: {changed}"
    it.note(f"changed: {', '.join(changed) or 'nothing'}")


@case("seed drill: the WAL's first 512 bytes are random")
def drill(it):
    tree = stores.killed_writer(it.directory / "data")
    stores.ruin_head(tree, seed=512)
    it.note("seed 512")
    it.make_disk(tree)
    boot = it.boot()
    whole(boot)
    it.note(f"init to switch_root {boot.switched_ms} ms, of which the line {boot.report['elapsed_ms']} ms")
    again = it.boot()
    whole(again)
    assert not any(step for step in again.report.get("steps", []) if "swap" in str(step).lower()), again.report


@case("seed drill without the -shm file")
def drill_without_shm(it):
    tree = stores.killed_writer(it.directory / "data")
    stores.ruin_head(tree, seed=513)
    (tree / "edge_store.db-shm").unlink()
    it.note("seed 513")
    it.make_disk(tree)
    whole(it.boot())


@case("a frame is damaged in the middle of the WAL")
def mid_frame(it):
    tree = stores.killed_writer(it.directory / "data")
    stores.ruin_frame(tree, stores.frames(tree) // 2, seed=514)
    it.note("seed 514")
    it.make_disk(tree)
    whole(it.boot())


@case("torn tail: the last frame is half there")
def torn(it):
    tree = stores.killed_writer(it.directory / "data")
    stores.tear_tail(tree)
    it.make_disk(tree)
    boot = it.boot()
    whole(boot, rows=999)
    assert "torn-tail" in boot.text or "999" in boot.text, "the torn commit is not reported"


@case("the WAL is missing but -shm names its frames")
def wal_missing(it):
    tree = stores.killed_writer(it.directory / "data", rows=600, folded=400)
    (tree / "edge_store.db-wal").unlink()
    it.make_disk(tree)
    boot = it.boot()
    whole(boot, rows=400)
    assert database(boot)["completeness"] == "lossy", database(boot)


@case("the database file is empty, the WAL intact")
def empty_database(it):
    tree = stores.killed_writer(it.directory / "data")
    (tree / "edge_store.db").write_bytes(b"")
    it.make_disk(tree)
    whole(it.boot())


@case("the originals are kept in quarantine")
def quarantine(it):
    tree = stores.killed_writer(it.directory / "data")
    stores.ruin_head(tree, seed=515)
    it.note("seed 515")
    it.make_disk(tree)
    whole(it.boot())
    kept = [path for path in image.listing(it.disk, it.layout, "data") if path.startswith("quarantine/")]
    assert any("-wal" in path for path in kept), f"no WAL is in quarantine: {kept}"
