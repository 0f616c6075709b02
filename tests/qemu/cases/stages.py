"""I9: our own failure never stops a boot that would have worked. Each stage is killed, and hung."""

import artefacts
import stores
from cases import case, found

CONFIG = artefacts.config(stage_deadline_seconds=4)


def fault(stage, how):
    @case(f"{stage}: {how}")
    def body(it):
        tree = stores.killed_writer(it.directory / "data")
        stores.ruin_head(tree, seed=540)
        it.note("seed 540")
        it.make_disk(tree)
        boot = it.boot(f"pyvorin.fault={stage}:{how}", config=CONFIG)
        found(boot, slot="A", data="mounted")
        said = "died" if how == "kill" else "made no progress"
        assert boot.says(f"stage {stage} {said}"), f"the boot does not say that {stage} failed"


for stage in ("sense", "assess", "plan", "act", "report"):
    for how in ("kill", "hang"):
        fault(stage, how)
