#!/usr/bin/env python3
"""oelint-adv over meta-pyvorin for wrynose, with every exception justified, and a control that a defect is found."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LINTER = TOP / ".cache/layers/venv/bin/oelint-adv"
LAYER = TOP / "meta-pyvorin"

# Rules that do not apply, each with its reason. What holds for one line only stands at that line as `nooelint`.
EXCEPTIONS = {
    "oelint.vars.homepageping": "asks the network",
    "oelint.var.licenseremotefile": "scripts and units carry the licence text of OE-core, as OE-core's own do",
    "oelint.var.suggestedvar.BUGTRACKER": "the project has no public tracker to name",
    "oelint.var.suggestedvar.CVE_PRODUCT": "nobody has assigned one to scripts, units and images",
    "oelint.var.bbclassextend": "nothing here runs on the build machine",
    "oelint.vars.mispell": "the linter does not know IMAGE_EFI_BOOT_FILES, which image_types_wic.bbclass documents",
    "oelint.vars.mispell.unknown": "our own variables, and the task do_image_wic",
    "oelint.vars.inconspaces": "the form in which bitbake's update_crates writes the include file",
    "oelint.vars.notneededspace": "likewise",
}
PLANTED = 'SUMMARY = "planted"\nLICENSE = "MIT"\nSRC_URI = "file://x"\nDEPENDS_append = "planted"\n'


def lint(files):
    """The findings, one a line."""
    words = [word for rule in EXCEPTIONS for word in ("--suppress", rule)]
    done = subprocess.run(
        [LINTER, "--quiet", "--jobs", "1", "--release", "wrynose", *words, *map(str, files)],
        text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    findings = [line for line in done.stdout.splitlines() if ":oelint." in line]
    if done.returncode != 0 and not findings:
        sys.exit(f"oelint.py: the linter failed with {done.returncode}:\n{done.stdout}")
    return findings


def main():
    if not LINTER.exists():
        sys.exit("oelint.py: oelint-adv is missing; next: sh tests/setup.sh")
    with tempfile.TemporaryDirectory() as scratch:
        planted = Path(scratch) / "planted_1.0.bb"
        planted.write_text(PLANTED)
        found = lint([planted])
        for rule in ("oelint.var.mandatoryvar", "oelint.vars.overrideappend", "oelint.append.protvars"):
            if any(rule in line for line in found):
                break
        else:
            sys.exit("oelint.py: the planted defects were not found:\n" + "\n".join(found))
    files = sorted(path for path in LAYER.rglob("*") if path.suffix in (".bb", ".bbappend", ".inc"))
    found = lint(files)
    for line in found:
        print(line.replace(f"{TOP}/", ""), file=sys.stderr)
    print(f"oelint: {len(files)} files, {len(found)} findings, {len(EXCEPTIONS)} justified exceptions; "
          "planted defects found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
