#!/usr/bin/env python3
"""The scripts of the layers, run: what they do with every way the program can end, with spaces in paths, with unset
variables, and with each tool that they need missing."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
INITRAMFS = TOP / "initramfs"
META = TOP / "meta-pyvorin"
BOARD = TOP / "buildroot-ext/board/pyvorin"
MODULE = META / "recipes-core/initrdscripts/initramfs-module-pyvorin-recovery/pyvorin"
PTEST = META / "recipes-core/pyvorin-recovery/pyvorin-recovery/run-ptest"
UNITS = META / "recipes-core/pyvorin-recovery/pyvorin-recovery-units"
BINARY = TOP / "target/x86_64-unknown-linux-musl/release/pyvorin-recovery"
# What a busybox or a klibc has anyway.
COREUTILS = ("sh", "cat", "cp", "mv", "rm", "mkdir", "mktemp", "dirname", "basename", "ls", "ln", "touch", "find", "sort",
             "sed", "grep", "awk", "head", "tr", "echo", "printf", "sleep", "sync", "install", "readlink", "env", "true",
             "stat", "chmod", "wc", "test", "[", "python3", "dd", "kill")
CHECKS = []


def check(body):
    CHECKS.append(body)
    return body


class Box:
    """A directory with a space in its name, and a PATH that holds only what it was given."""

    def __init__(self, directory, *tools):
        self.path = directory
        self.bin = directory / "the tools"
        self.bin.mkdir()
        for tool in (*COREUTILS, *tools):
            found = shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
            if found:
                (self.bin / tool).symlink_to(found)

    def program(self, name, body):
        file = self.bin / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def run(self, *command, **environment):
        return subprocess.run(
            [str(word) for word in command], env={"PATH": str(self.bin), **{k: str(v) for k, v in environment.items()}},
            cwd=self.path, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=60)


def hook_ended_with(box, body):
    """Runs the shared hook with a program that ends like this; whether it restarted the machine."""
    log = box.path / "log"
    log.write_text("")
    box.program("pyvorin-recovery", f'echo "called $*" >> "{log}"\n{body}')
    box.program("reboot", f'echo "reboot $*" >> "{log}"; exit "${{REBOOT_FAILS:-0}}"')
    box.program("sleep", f'echo "sleep $*" >> "{log}"')
    box.program("sync", "exit 0")
    done = box.run("sh", INITRAMFS / "hook")
    assert done.returncode == 0, f"the hook ended with {done.returncode}: {done.stdout}"
    said = log.read_text()
    assert "called boot\n" in said, said
    return "reboot -f -f" in said


@check
def hook_restarts_on_bit_2_and_on_nothing_else(box):
    for code in range(64):
        assert hook_ended_with(box, f"exit {code}") == bool(code & 2), code


@check
def hook_takes_no_death_for_a_wish_to_restart(box):
    # 139 is a crash as a shell reports it, and has the reboot bit set; so have 126 and 127.
    for body in ("kill -SEGV $$", "kill -KILL $$", "kill -ABRT $$", *(f"exit {code}" for code in range(64, 256))):
        assert not hook_ended_with(box, body), body


@check
def hook_without_its_program_lets_the_system_start(box):
    done = box.run("sh", INITRAMFS / "hook")
    assert done.returncode == 0, done.stdout


@check
def hook_goes_on_when_the_restart_fails(box):
    log = box.path / "log"
    box.program("pyvorin-recovery", "exit 2")
    box.program("reboot", "exit 1")
    box.program("sleep", f'echo slept >> "{log}"')
    done = box.run("sh", INITRAMFS / "hook")
    assert done.returncode == 0 and not log.exists(), done.stdout


@check
def framework_module_leaves_pid_1_as_it_was(box):
    shells = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]
    assert shells
    harness = """
before=$(set | grep -v -e ^_= -e ^BASH -e ^PIPESTATUS -e ^LINENO -e ^after= -e ^before= | sort)
. "$1"
pyvorin_enabled && echo enabled
pyvorin_run; echo "run $?"
bootparam_pyvorin_off=true
pyvorin_enabled || echo off
unset bootparam_pyvorin_off
case $- in *e* | *u*) echo "options changed: $-";; esac
echo alive
"""
    for shell in shells:
        path = shutil.which(shell[0])
        done = box.run(path, *shell[1:], "-c", harness, "sh", MODULE)
        lines = done.stdout.split("\n")
        for word in ("enabled", "run 0", "off", "alive"):
            assert word in lines, f"{shell}: {done.stdout}"
        assert "options changed" not in done.stdout
        # Under set -u too, although the framework does not use it.
        done = box.run(path, *shell[1:], "-u", "-c", '. "$1"; pyvorin_enabled; pyvorin_run; echo alive', "sh", MODULE)
        assert done.stdout.rstrip().endswith("alive"), f"{shell}: {done.stdout}"


@check
def framework_module_is_named_as_the_framework_cuts_names(box):
    # OE-core's init: module=`basename $m | cut -d'-' -f 2`
    done = subprocess.run(["sh", "-c", "basename /init.d/80-pyvorin | cut -d- -f 2"], text=True, capture_output=True)
    name = done.stdout.strip()
    for function in (f"{name}_enabled()", f"{name}_run()"):
        assert function in MODULE.read_text(), function


@check
def generators_scripts_let_the_system_start(box):
    """Where the hook is not, as in an image that was built wrongly, and with unset variables being errors."""
    premount = INITRAMFS / "initramfs-tools/scripts/local-premount/pyvorin-recovery"
    for command in (("sh", "-u", premount), ("sh", "-eu", "-c", '. "$1"', "sh", INITRAMFS / "dracut/95pyvorin-recovery/pre-mount.sh")):
        done = box.run(*command)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout}"
    for script in (premount, INITRAMFS / "initramfs-tools/hooks/pyvorin-recovery"):
        done = box.run("sh", "-u", script, "prereqs")
        assert done.returncode == 0 and done.stdout == "\n", f"{script}: {done.returncode} {done.stdout}"
    # dracut sources its modules: defining the functions must do nothing, with every option of bash set.
    done = box.run(shutil.which("bash"), "-euc", '. "$1"; check() { :; }; depends; echo fine', "bash",
                   INITRAMFS / "dracut/95pyvorin-recovery/module-setup.sh")
    assert done.stdout == "fine\n", done.stdout


@check
def debian_hook_says_which_variable_is_not_set(box):
    done = box.run("sh", "-u", TOP / "tests/layers/debian-hook.sh", box.path)
    assert done.returncode == 8 and "GENERATOR is not set" in done.stdout, done.stdout
    done = box.run("sh", "-u", TOP / "tests/layers/debian-hook.sh")
    assert done.returncode != 0, done.stdout


@check
def install_puts_files_below_a_root_with_spaces(box):
    root = box.path / "a root"
    root.mkdir()
    program, config = box.path / "the program", box.path / "my config"
    program.write_text("binary")
    config.write_text("# mine\n")
    for generator, wanted in (
            ("initramfs-tools", ["usr/share/initramfs-tools/hooks/pyvorin-recovery",
                                 "usr/share/initramfs-tools/scripts/local-premount/pyvorin-recovery"]),
            ("dracut", ["usr/lib/dracut/modules.d/95pyvorin-recovery/module-setup.sh",
                        "usr/lib/dracut/modules.d/95pyvorin-recovery/pyvorin-recovery-boot.service"])):
        done = box.run("sh", "-u", INITRAMFS / "install", "--for", generator, "--binary", program, "--config", config,
                       "--root", root)
        assert done.returncode == 0, done.stdout
        for path in [*wanted, "usr/sbin/pyvorin-recovery", "usr/lib/pyvorin-recovery/hook"]:
            assert (root / path).exists(), path
    assert "was kept" in done.stdout, "the second run must say that it kept the configuration"
    assert (root / "etc/pyvorin/recovery.toml").read_text() == "# mine\n"


@check
def install_says_what_is_wrong(box):
    for words, said in (
            ((), "usage:"),
            (("--for",), "usage:"),
            (("--for", "mkinitcpio", "--binary", TOP / "Cargo.toml", "--config", TOP / "Cargo.toml"), "usage:"),
            (("--for", "dracut", "--binary", "/no/such", "--config", TOP / "Cargo.toml"), "/no/such is not there"),
            (("--for", "dracut", "--binary", TOP / "Cargo.toml", "--config", "/no/such"), "/no/such is not there"),
            (("--for", "dracut", "--binary", TOP / "Cargo.toml", "--config", TOP / "Cargo.toml", "--root", "/no/such"),
             "/no/such is not a directory")):
        done = box.run("sh", INITRAMFS / "install", *words)
        assert done.returncode in (8, 16) and said in done.stdout, f"{words}: {done.returncode} {done.stdout}"


def target_tree(box):
    """A Buildroot target with the files that the scripts look for; e2fsck is this machine's, libraries and all."""
    target = box.path / "the target"
    for path in ("usr/sbin", "sbin", "etc/pyvorin", "usr/lib", "lib"):
        (target / path).mkdir(parents=True)
    (target / "lib64").symlink_to("lib")
    shutil.copy(BINARY if BINARY.exists() else "/bin/true", target / "usr/sbin/pyvorin-recovery")
    e2fsck = shutil.which("e2fsck", path="/usr/sbin:/sbin")
    shutil.copy(e2fsck, target / "sbin/e2fsck")
    (target / "etc/pyvorin/recovery.toml").write_text("# defaults\n")
    listed = subprocess.run(["ldd", e2fsck], text=True, capture_output=True).stdout
    for library in re.findall(r"(/\S+) \(0x", listed):
        shutil.copy(library, target / "lib")
    return target


@check
def buildroot_initramfs_carries_what_e2fsck_needs_and_is_reproducible(box):
    box.program("fakeroot", 'exec "$@"')
    for tool in ("readelf", "cpio", "gzip"):
        (box.bin / tool).symlink_to(shutil.which(tool))
    # Where this is not run by root, a device node cannot be made; what it is for is tested by the boots.
    box.program("mknod", "exit 0")
    target = target_tree(box)
    outputs = []
    for n in (1, 2):
        output = box.path / f"out {n}.cpio.gz"
        done = box.run("sh", "-u", BOARD / "common/make-initramfs.sh", target, output)
        assert done.returncode == 0, done.stdout
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1], "two archives of the same target differ"
    listed = subprocess.run(f"gzip -dc '{output}' | cpio -t --quiet", shell=True, text=True, capture_output=True).stdout
    for name in ("init", "sbin/e2fsck", "etc/pyvorin/recovery.toml", "lib/libext2fs.so.2", "lib/libc.so.6",
                 "lib/ld-linux-x86-64.so.2"):
        assert name in listed.split(), f"{name} is not in the initramfs: {listed}"
    # The control: a library that is not in the target must not be passed over.
    (target / "lib/libext2fs.so.2").unlink()
    done = box.run("sh", BOARD / "common/make-initramfs.sh", target, output)
    assert done.returncode != 0 and "libext2fs" in done.stdout, done.stdout


@check
def buildroot_scripts_name_the_tool_that_is_missing(box):
    target = target_tree(box)
    for tool in ("readelf", "cpio", "gzip", "fakeroot"):
        for other in ("readelf", "cpio", "gzip", "fakeroot"):
            (box.bin / other).unlink(missing_ok=True)
            if other != tool:
                box.program(other, "exit 0")
        done = box.run("sh", BOARD / "common/make-initramfs.sh", target, box.path / "out")
        assert done.returncode != 0 and f"{tool} is missing" in done.stdout, f"{tool}: {done.stdout}"
    done = box.run("sh", "-u", BOARD / "common/post-image.sh", box.path, "qemu_x86_64")
    assert done.returncode != 0 and "BINARIES_DIR is not set" in done.stdout, done.stdout
    places = {name: box.path for name in ("BINARIES_DIR", "BUILD_DIR", "HOST_DIR", "TARGET_DIR")}
    done = box.run("sh", "-u", BOARD / "common/post-image.sh", box.path, "toaster", **places)
    assert done.returncode != 0 and "no board is called toaster" in done.stdout, done.stdout
    done = box.run("sh", "-u", BOARD / "common/post-image.sh", box.path, "rpi5", **places)
    assert done.returncode != 0 and "genimage is missing" in done.stdout, done.stdout
    done = box.run("sh", "-u", BOARD / "common/post-image.sh")
    assert done.returncode != 0 and "called as" in done.stdout, done.stdout


@check
def disks_of_all_boards_are_described(box):
    """genimage is replaced by one that keeps what it was told; the boots try the real one."""
    for tool in ("genimage", "mcopy", "mkfs.vfat", "mke2fs", "cpio", "gzip", "readelf"):
        box.program(tool, "exit 0")
    box.program("fakeroot", "exit 0")
    images = box.path / "images dir"
    (images / "efi-part/EFI/BOOT").mkdir(parents=True)
    (images / "rpi-firmware").mkdir()
    for name in ("Image", "bzImage", "boot.scr", "bcm2712-rpi-5-b.dtb", "rpi-firmware/start4.elf", "rpi-firmware/cmdline.txt"):
        (images / name).write_text("x")
    target = target_tree(box)
    for board in ("qemu_x86_64", "qemu_aarch64", "rpi5"):
        done = box.run("sh", "-u", BOARD / "common/post-image.sh", images, board, BINARIES_DIR=images,
                       BUILD_DIR=box.path, HOST_DIR=box.path, TARGET_DIR=target)
        assert done.returncode == 0, f"{board}: {done.stdout}"
        made = (images / "genimage.cfg").read_text()
        assert "@" not in re.sub(r"^#.*", "", made, flags=re.MULTILINE), f"{board}: {made}"
        assert "\\" not in made, f"{board}: {made}"
        assert made.count("{") == made.count("}"), board
        for name in ("initramfs", "bzImage" if board == "qemu_x86_64" else "Image"):
            assert made.count(f"file {name} {{") == 2, f"{board}: {name} belongs in boot and recovery:\n{made}"
    assert "cmdline-recovery.txt" in made and made.count("file start4.elf {") == 2, made


@check
def initramfs_builder_names_what_is_missing(box):
    done = box.run("sh", "-u", INITRAMFS / "build")
    assert done.returncode == 16 and "usage:" in done.stdout
    box.program("zstd", "exit 0")
    done = box.run("sh", "-u", INITRAMFS / "build", "--binary", box.path / "no such", "--e2fsck", TOP / "Cargo.toml",
                   "--config", TOP / "Cargo.toml", "--output", box.path / "out")
    assert done.returncode != 0 and "no such" in done.stdout, done.stdout
    (box.bin / "zstd").unlink()
    done = box.run("sh", "-u", INITRAMFS / "build", "--binary", TOP / "Cargo.toml", "--e2fsck", TOP / "Cargo.toml",
                   "--config", TOP / "Cargo.toml", "--output", box.path / "out")
    assert done.returncode != 0 and "zstd is missing" in done.stdout, done.stdout


@check
def ptest_finds_every_row_and_notices_a_program_that_does_nothing(box):
    if not BINARY.exists() or not shutil.which("sqlite3"):
        print("SKIP the drill of ptest: it needs make build and sqlite3", file=sys.stderr)
        return
    for tool in ("sqlite3", "mkfifo"):
        (box.bin / tool).symlink_to(shutil.which(tool))
    done = box.run("sh", PTEST, PYVORIN_RECOVERY=BINARY)
    assert done.returncode == 0 and done.stdout.count("PASS:") == 6, done.stdout
    done = box.run("sh", PTEST, PYVORIN_RECOVERY="true")
    assert done.returncode != 0 and "FAIL: every row came back" in done.stdout, done.stdout


@check
def example_configuration_is_understood(box):
    if not BINARY.exists():
        print("SKIP the example configuration: it needs make build", file=sys.stderr)
        return
    example = BOARD / "common/recovery.toml"
    done = box.run(BINARY, "--config", example, "--root", box.path, "check")
    assert done.returncode != 16, done.stdout
    wrong = box.path / "recovery.toml"
    wrong.write_text(example.read_text() + "\nhold_minute = 3\n")
    done = box.run(BINARY, "--config", wrong, "--root", box.path, "check")
    assert done.returncode == 16, f"a misspelt key was taken: {done.stdout}"


@check
def sysv_script_makes_keys_once_and_only_on_the_state_partition(box):
    script = (TOP / "buildroot-ext/package/pyvorin-recovery/S98pyvorin-keys").read_text()
    for word, by in (('"/var/lib/pyvorin-recovery"', '"state"'), ("/proc/mounts", "mounts"), ("/usr/sbin/pyvorin-recovery", "program")):
        assert script.count(word) == 1, word
        script = script.replace(word, by)
    log, keys, mounts = box.path / "log", box.path / "state/keys/restore", box.path / "mounts"
    keys.parent.mkdir(parents=True)
    for shell in (shell for shell in (["dash"], ["busybox", "sh"]) if shutil.which(shell[0])):
        for there, mounted, code, runs, said in (
                (True, True, 0, False, ""), (True, False, 0, False, ""), (False, False, 0, False, "is not mounted"),
                (False, True, 0, True, "OK"), (False, True, 8, True, "FAIL")):
            log.write_text("")
            keys.unlink(missing_ok=True)
            if there:
                keys.write_text("")
            mounts.write_text("/dev/x /other ext4 rw 0 0\n" + ("/dev/y state ext4 rw 0 0\n" if mounted else "/dev/y state2 ext4 rw 0 0\n"))
            box.program("program", f'echo "$*" >> log; exit {code}')
            done = box.run(shutil.which(shell[0]), *shell[1:], "-uc", script, "S98", "start")
            case = f"{shell}: {there} {mounted} {code}: {done.returncode} {done.stdout}"
            assert done.returncode == 0 and said in done.stdout and bool(done.stdout) == bool(said), case
            assert log.read_text() == ("key init\n" if runs else ""), case


@check
def units_are_sound(box):
    if not shutil.which("systemd-analyze"):
        print("SKIP the units: systemd-analyze is missing", file=sys.stderr)
        return
    # systemd-analyze wants the programs to be there and the names to be those of the installed units.
    names = {"data.mount": "var-lib-pyvorin.mount", "state.mount": "var-lib-pyvorin\\x2drecovery.mount"}
    folder = box.path / "units"
    folder.mkdir()
    for path in [*UNITS.glob("*.service"), *UNITS.glob("*.mount"), *UNITS.glob("*.timer"), *INITRAMFS.rglob("*.service")]:
        body = path.read_text()
        for program in ("/usr/sbin/pyvorin-recovery", "/usr/lib/pyvorin-recovery/hook"):
            body = body.replace(f"={program}", "=/bin/true")
        (folder / names.get(path.name, path.name)).write_text(body)
    files = sorted(map(str, folder.iterdir()))
    assert len(files) == 15, files
    def verify():
        return subprocess.run(["systemd-analyze", "verify", "--man=no", *files], text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    done = verify()
    mine = [line for line in done.stdout.splitlines() if str(folder) in line or "pyvorin" in line]
    assert done.returncode == 0 and not mine, done.stdout
    with open(files[-1], "a", encoding="utf-8") as unit:
        unit.write("\n[Unit]\nBefroe=x.target\n")
    assert "Befroe" in verify().stdout, "a misspelt key was not noticed"


@check
def units_of_backups_are_shut_in(box):
    if not shutil.which("systemd-analyze"):
        print("SKIP the exposure of the units: systemd-analyze is missing", file=sys.stderr)
        return
    def exposed(path):
        # In tenths; everything from 50 on is what systemd calls MEDIUM and worse.
        done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", path],
                              text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=60)
        assert "Overall exposure level" in done.stdout, done.stdout
        return done.returncode != 0
    for name in ("keys", "backup", "prune"):
        path = UNITS / f"pyvorin-recovery-{name}.service"
        assert not exposed(path), f"{path.name} may do more than it needs; next: systemd-analyze security {path}"
        loose = box.path / path.name
        loose.write_text(re.sub(r"^(SystemCallFilter|CapabilityBoundingSet)=.*\n", "", path.read_text(), flags=re.MULTILINE))
        assert exposed(loose), f"{path.name} without its filter was found tight"


@check
def backup_is_skipped_only_where_nobody_is_configured(box):
    """What the unit asks before it begins, as systemd would start it: 0 goes on, 1 to 254 skip it."""
    unit = (UNITS / "pyvorin-recovery-backup.service").read_text()
    words = shlex.split(re.search(r"^ExecCondition=(.*)$", unit, re.MULTILINE).group(1))
    config = box.path / "recovery.toml"
    assert words[:2] == ["/bin/sh", "-c"] and words[2].count("/etc/pyvorin/recovery.toml") == 2, words
    assert not re.search(r"[%$]", words[2]), "systemd would replace it"
    script = words[2].replace("/etc/pyvorin/recovery.toml", config.name)
    # Where somebody named anything, however wrong, the program runs and its refusal is seen.
    runs = ('recipients = ["age1qx", "age1qy"]', "recipients=['age1qx','age1qy']", 'recipients = [\n"age1qx",\n"age1qy"\n]',
            '  recipients = [ # two\n\t"age1qx", # operations\n]', 'recipients = ["age1qx"]', 'recipients = ["age1..."]')
    skipped = ((BOARD / "common/recovery.toml").read_text().split("[backup]")[1], "", "recipients = []",
               '# recipients = ["age1qx", "age1qy"]', '# recipients = [\n#    "age1qx",\n# ]', 'level = 3 # "age1qx"', None)
    for shell in (shell for shell in (["dash"], ["busybox", "sh"]) if shutil.which(shell[0])):
        for case in (*runs, *skipped):
            config.unlink(missing_ok=True)
            if case is not None:
                config.write_text(f"[backup]\n{case}\n")
            done = box.run(shutil.which(shell[0]), *shell[1:], "-c", script)
            assert (done.returncode == 0) == (case in runs), f"{shell}: {case!r}: {done.returncode} {done.stdout}"
            assert done.returncode in (0, 1) and ("next:" in done.stdout) == (done.returncode == 1), done.stdout


def main():
    failed = 0
    for body in CHECKS:
        with tempfile.TemporaryDirectory(prefix="a place ") as scratch:
            try:
                body(Box(Path(scratch)))
            except Exception as error:  # one broken check must not hide the others
                failed += 1
                print(f"FAIL {body.__name__.replace('_', ' ')}: {error or type(error).__name__}", file=sys.stderr)
    print(f"behaviour: {len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
