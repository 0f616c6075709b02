#!/usr/bin/env python3
"""What must agree in the layers and with the program, read from the files alone. Each check has a control beside it
where a check could pass for the wrong reason."""

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
META = TOP / "meta-pyvorin"
BUILDROOT = TOP / "buildroot-ext"
RECIPE = next((META / "recipes-core/pyvorin-recovery").glob("pyvorin-recovery_*.bb"))
UNITS = META / "recipes-core/pyvorin-recovery/pyvorin-recovery-units"
PACKAGE = BUILDROOT / "package/pyvorin-recovery"
PARTITIONS = ["boot", "root-a", "root-b", "recovery", "state", "data"]
LABELS = {"state": "PYV-STATE", "data": "PYV-DATA"}
CHECKS = []


def check(body):
    CHECKS.append(body)
    return body


def text(path):
    return path.read_text(encoding="utf-8")


def assigned(path, variable):
    """The value of VARIABLE = "…" in a bitbake file, continuation lines joined."""
    joined = text(path).replace("\\\n", " ")
    found = re.search(rf'^{re.escape(variable)} *\??= *"(.*)"$', joined, re.MULTILINE)
    assert found, f"{path.name} does not set {variable}"
    return found.group(1).split()


@check
def crates_are_those_of_the_lock_file():
    script = META / "scripts/update-crates"
    done = subprocess.run([script, "--check"], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    with tempfile.TemporaryDirectory(prefix="a lock ") as scratch:
        other = Path(scratch) / "Cargo.lock"
        other.write_text(text(TOP / "Cargo.lock").replace('version = "', 'version = "9', 3))
        done = subprocess.run([script, "--check", "--lock", other], text=True, capture_output=True)
        assert done.returncode == 1 and "next:" in done.stderr, "a changed lock file was not noticed"


@check
def licence_checksums_are_right():
    named = assigned(RECIPE, "LIC_FILES_CHKSUM")
    assert len(named) == 3, named
    for word in named:
        file, digest = re.fullmatch(r"file://([^;]+);md5=([0-9a-f]{32})", word).groups()
        assert hashlib.md5((TOP / file).read_bytes()).hexdigest() == digest, f"{file} has another checksum"
    for line in text(PACKAGE / "pyvorin-recovery.hash").splitlines():
        if line.startswith("sha256") and not line.endswith(".tar.gz"):
            _, digest, file = line.split()
            assert hashlib.sha256((TOP / file).read_bytes()).hexdigest() == digest, f"{file} has another checksum"


@check
def versions_agree():
    manifest = tomllib.loads(text(TOP / "Cargo.toml"))["package"]
    assert RECIPE.name == f"pyvorin-recovery_{manifest['version']}.bb", RECIPE.name
    rust = tuple(map(int, manifest["rust-version"].split(".")))
    assert rust <= (1, 94), f"wrynose has Rust 1.94, the program wants {manifest['rust-version']}"


@check
def the_layer_names_wrynose_alone():
    conf = META / "conf/layer.conf"
    assert assigned(conf, "LAYERSERIES_COMPAT_pyvorin") == ["wrynose"]
    assert assigned(conf, "LAYERDEPENDS_pyvorin") == ["core"]


@check
def the_layer_has_what_a_layer_must_have():
    for name in ("README.md", "SECURITY.md", "COPYING.MIT"):
        assert (META / name).stat().st_size > 0, name
    readme = text(META / "README.md")
    for word in ("maintainer", "patch", "@"):
        assert word in readme.lower(), f"README.md has no {word}"
    # yocto-check-layer skips its checks of a page that names another one.
    assert len(re.findall("readme", readme, re.IGNORECASE)) == 0, "README.md mentions another README"
    for patch in META.rglob("*.patch"):
        assert "Upstream-Status:" in text(patch), patch


@check
def bbappends_do_nothing_without_the_feature():
    appends = sorted(META.rglob("*.bbappend"))
    assert appends
    for path in appends:
        lines = [line for line in text(path).splitlines() if line.strip() and not line.startswith("#")]
        for line in lines:
            assert re.fullmatch(r"require \$\{@bb\.utils\.contains\('DISTRO_FEATURES', 'pyvorin-recovery', "
                                r"'[\w.-]+', '', d\)\}", line), f"{path.name}: {line}"
            file = re.search(r"'([\w.-]+\.inc)'", line).group(1)
            assert (path.parent / file).exists(), file


def wks_partitions(path):
    result = {}
    for line in text(path).splitlines():
        if line.startswith("part "):
            name = re.search(r"--part-name (\S+)", line)
            label = re.search(r"--label (\S+)", line)
            result[name.group(1)] = label.group(1) if label else None
    return result


@check
def disks_have_the_six_partitions():
    for path in sorted((META / "files/wic").glob("*.wks.in")):
        found = wks_partitions(path)
        assert list(found) == PARTITIONS, f"{path.name}: {list(found)}"
        for name, label in LABELS.items():
            assert found[name] == label, f"{path.name}: {name} has the label {found[name]}"
    template = text(BUILDROOT / "board/pyvorin/common/genimage.cfg.in")
    disk = template[template.index("image disk.img"):]
    assert re.findall(r"partition (\S+) \{", disk) == PARTITIONS
    for name, label in LABELS.items():
        assert re.search(rf'image {name}\.ext4 \{{\s*ext4 \{{\s*label = "{label}"', template), label


@check
def images_are_called_what_the_disks_copy():
    images = META / "recipes-core/images"
    for name in ("pyvorin-image-initramfs", "pyvorin-image-recovery"):
        # OE-core's default suffix, .rootfs, would be part of the deployed name.
        assert re.search(r'^IMAGE_NAME_SUFFIX = ""$', text(images / f"{name}.bb"), re.MULTILINE), name
    for path in (META / "files/wic").glob("*.wks.in"):
        for wanted in re.findall(r"file=([\w-]+)-\$\{MACHINE\}\.vfat", text(path)):
            assert (images / f"{wanted}.bb").exists(), wanted


@check
def both_layers_ship_the_same_files():
    pairs = [(path, PACKAGE / path.name) for path in sorted(UNITS.iterdir())]
    pairs.append((META / "recipes-core/pyvorin-recovery/pyvorin-recovery-conf/recovery.toml",
                  BUILDROOT / "board/pyvorin/common/recovery.toml"))
    assert len(pairs) > 5
    for left, right in pairs:
        assert left.read_bytes() == right.read_bytes(), f"{left} and {right} differ"


@check
def units_are_shipped_and_named():
    recipe = text(next((META / "recipes-core/pyvorin-recovery").glob("pyvorin-recovery-units_*.bb")))
    package = text(PACKAGE / "pyvorin-recovery.mk")
    for path in UNITS.iterdir():
        assert f"file://{path.name}" in recipe, f"{path.name} is not in SRC_URI"
        assert f"/{path.name} " in package, f"{path.name} is not installed by Buildroot's package"
    for unit in ("var-lib-pyvorin.mount", r"var-lib-pyvorin\x2drecovery.mount"):
        assert unit in recipe and unit in package, unit


@check
def everything_of_a_unit_is_in_a_package():
    recipe = next((META / "recipes-core/pyvorin-recovery").glob("pyvorin-recovery-units_*.bb"))
    joined = text(recipe).replace("\\\n", " ")
    packages = assigned(recipe, "PACKAGES")
    enabled = re.findall(r'^SYSTEMD_SERVICE:(\S+) = "(.*)"$', joined, re.MULTILINE)
    named, wanted = sorted(name for name, _ in enabled), sorted(assigned(recipe, "SYSTEMD_PACKAGES"))
    assert named == wanted, f"SYSTEMD_SERVICE is set for {named}, SYSTEMD_PACKAGES is {wanted}"
    started = {unit for _, units in enabled for unit in units.split()}
    image = text(META / "recipes-core/images/pyvorin-image-gateway.bb")
    for package in packages:
        assert f"SUMMARY:{package} = " in joined, f"{package} does not say what it is"
        assert re.search(rf"^    {package} \\$", image, re.MULTILINE), f"{package} is not in the example image"
    for path in UNITS.glob("pyvorin-*"):
        assert re.search(rf"^    install -m 0644 \$\{{UNPACKDIR\}}/{path.name} ", text(recipe), re.MULTILINE), path.name
        timer = path.with_suffix(".timer")
        if path.suffix == ".service" and timer.exists():
            # systemd.bbclass packages what is enabled, and nobody enables the service of a timer.
            assert f"${{systemd_system_unitdir}}/{path.name}" in joined, f"{path.name} is in no package"
            assert "[Install]" not in text(path), f"{path.name} has a timer and would start at every boot too"
        else:
            assert path.name in started, f"{path.name} is enabled by nothing"


@check
def what_shuts_the_backups_in_lets_them_see():
    """Each of these would not fail: the command would decide wrongly, and say nothing."""
    backup, prune = (text(UNITS / f"pyvorin-recovery-{name}.service") for name in ("backup", "prune"))
    capabilities = re.search(r"^CapabilityBoundingSet=(.*)$", backup, re.MULTILINE).group(1).split()
    for needed in ("CAP_SYS_PTRACE", "CAP_CHOWN", "CAP_DAC_READ_SEARCH"):
        assert needed in capabilities, f"without {needed} a running agent is not seen, or locked out"
    for hides in ("ProtectProc", "ProcSubset", "PrivateUsers", "PrivatePIDs", "User", "DynamicUser"):
        assert not re.search(rf"^{hides}=", backup, re.MULTILINE), f"{hides}= hides who has a database open"
    calls = re.search(r"^SystemCallFilter=(.*)$", prune, re.MULTILINE).group(1).split()
    assert not re.search(r"^ProtectClock=", prune, re.MULTILINE), "ProtectClock= refuses adjtimex"
    assert {"adjtimex", "clock_adjtime", "clock_adjtime64"} <= set(calls), "the clock would count as never set"
    for unit in (backup, prune):
        assert "ConditionPathExists=!/var/lib/pyvorin/.pyvorin-intent" in unit
        assert "SuccessExitStatus" not in unit, "a backup that is not whole would look like one"


@check
def timers_come_round_on_a_root_in_memory_too():
    for name in ("backup", "prune"):
        timer = text(UNITS / f"pyvorin-recovery-{name}.timer")
        for key in ("OnCalendar", "Persistent", "OnBootSec", "RandomizedDelaySec", "AccuracySec"):
            assert re.search(rf"^{key}=\S", timer, re.MULTILINE), f"{name}.timer has no {key}="


@check
def example_configuration_names_the_keys_of_backups():
    example = text(BUILDROOT / "board/pyvorin/common/recovery.toml")
    backup = tomllib.loads(example)["backup"]
    assert set(backup) == {"level", "workers", "rate_mib", "increments"}, backup
    # No recipient by default: one that is anybody's would encrypt to nobody.
    assert "\n# recipients = [\n" in example
    reader = text(TOP / "src/config/inputs.rs")
    for key in (*backup, "recipients"):
        assert f'"{key}", faults' in reader, f"the program knows no [backup] {key}"


@check
def monitoring_is_kept_once_and_installed_by_both():
    recipe = text(META / "recipes-core/pyvorin-recovery/pyvorin-recovery-monitoring_1.0.bb")
    package = text(PACKAGE / "pyvorin-recovery.mk")
    for path in (META / "files/monitoring").iterdir():
        assert f"file://{path.name}" in recipe and f"/{path.name} " in package, path.name
        assert sorted(TOP.glob(f"*/**/{path.name}")) == [path], f"{path.name} is there twice"


@check
def the_agent_waits_for_an_open_intent():
    assert "ConditionPathExists=!/var/lib/pyvorin/.pyvorin-intent" in text(UNITS / "10-pyvorin-recovery.conf")
    assert "Before=boot-complete.target" in text(UNITS / "pyvorin-recovery-mark-good.service")


@check
def buildroot_external_tree_is_complete():
    desc = dict(line.split(": ", 1) for line in text(BUILDROOT / "external.desc").splitlines())
    assert re.fullmatch(r"[A-Za-z0-9_]+", desc["name"]) and len(desc["desc"]) <= 40
    for name in ("Config.in", "external.mk", "README.md"):
        assert (BUILDROOT / name).exists(), name
    boards = sorted(path.name for path in (BUILDROOT / "board/pyvorin").iterdir() if path.name != "common")
    configs = sorted(path.name for path in (BUILDROOT / "configs").iterdir())
    assert configs == [f"pyvorin_{board}_defconfig" for board in boards], (boards, configs)
    keys = None
    for board in boards:
        found = re.findall(r"^([A-Z_]+)=", text(BUILDROOT / "board/pyvorin" / board / "meta"), re.MULTILINE)
        keys = keys or found
        assert found == keys, f"{board}/meta has {found}"
        assert f'"{board}"' in text(BUILDROOT / "configs" / f"pyvorin_{board}_defconfig"), board


@check
def the_pinned_revision_has_its_hash():
    revision = re.search(r"^PYVORIN_RECOVERY_VERSION = ([0-9a-f]{40})$", text(PACKAGE / "pyvorin-recovery.mk"),
                         re.MULTILINE).group(1)
    hashed = re.findall(r"  pyvorin-recovery-([0-9a-f]{40})-git4-cargo\d\.tar\.gz$",
                        text(PACKAGE / "pyvorin-recovery.hash"), re.MULTILINE)
    assert hashed == [revision], f"the package wants {revision}, the hashes are of {hashed}"
    history = subprocess.run(["git", "-C", TOP, "rev-parse", "--is-shallow-repository"], text=True, capture_output=True)
    if history.stdout.strip() == "false":
        found = subprocess.run(["git", "-C", TOP, "merge-base", "--is-ancestor", revision, "HEAD"], capture_output=True)
        assert found.returncode == 0, f"{revision} is not in this history"


@check
def the_shared_hook_is_short():
    assert len(text(TOP / "initramfs/hook").splitlines()) <= 50


@check
def the_framework_module_obeys_its_rules():
    module = META / "recipes-core/initrdscripts/initramfs-module-pyvorin-recovery/pyvorin"
    code = [line for line in text(module).splitlines() if line.strip() and not line.strip().startswith("#")]
    top = [line for line in code if not line.startswith(("\t", " ", "}"))]
    assert top == ["pyvorin_enabled() {", "pyvorin_run() {"], top
    for word in ("exit", "set", "exec", "fatal", "return"):
        assert not any(re.search(rf"\b{word}\b", line) for line in code), word
    recipe = text(next((META / "recipes-core/initrdscripts").glob("*.bb")))
    assert "/init.d/80-pyvorin" in recipe


def main():
    failed = 0
    for body in CHECKS:
        try:
            body()
        except Exception as error:  # one broken check must not hide the others
            failed += 1
            print(f"FAIL {body.__name__.replace('_', ' ')}: {error or type(error).__name__}", file=sys.stderr)
    print(f"structure: {len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
