#
# SPDX-License-Identifier: MIT
#

from oeqa.core.decorator.data import skipIfNotFeature
from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

PROGRAM = "/usr/sbin/pyvorin-recovery"


class PyvorinRecoveryTest(OERuntimeTestCase):
    """The image on the machine: program, configuration, units, and the drill where ptest and sqlite3 are installed."""

    def succeeds(self, command, accept=(0,)):
        status, output = self.target.run(command)
        self.assertIn(status, accept, msg=f"{command} ended with {status}: {output}")
        return output

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["pyvorin-recovery"])
    def test_program_starts(self):
        self.assertIn("pyvorin-recovery", self.succeeds(f"{PROGRAM} version"))

    @OETestDepends(["pyvorin_recovery.PyvorinRecoveryTest.test_program_starts"])
    @OEHasPackage(["pyvorin-recovery-conf"])
    def test_configuration_is_understood(self):
        # 4: databases that are not there yet; 16 would be a configuration that cannot be understood.
        self.succeeds(f"{PROGRAM} check", accept=(0, 4))

    @OETestDepends(["pyvorin_recovery.PyvorinRecoveryTest.test_program_starts"])
    @skipIfNotFeature("systemd", "the units need systemd")
    @OEHasPackage(["pyvorin-recovery-mounts"])
    def test_volumes_are_mounted(self):
        for path in ("/var/lib/pyvorin", "/var/lib/pyvorin-recovery"):
            self.succeeds(f"mountpoint -q {path}")

    @OETestDepends(["pyvorin_recovery.PyvorinRecoveryTest.test_volumes_are_mounted"])
    @OEHasPackage(["pyvorin-recovery-mark-good"])
    def test_slot_is_marked_good(self):
        self.succeeds("systemctl is-active pyvorin-recovery-mark-good.service")
        self.assertIn("good", self.succeeds(f"{PROGRAM} slot status"))

    @OETestDepends(["pyvorin_recovery.PyvorinRecoveryTest.test_program_starts"])
    @OEHasPackage(["pyvorin-recovery-status"])
    def test_boot_left_its_report(self):
        self.succeeds("test -s /run/pyvorin-recovery/report.json")
        self.succeeds(f"{PROGRAM} status", accept=(0, 4))

    @OETestDepends(["pyvorin_recovery.PyvorinRecoveryTest.test_program_starts"])
    @OEHasPackage(["pyvorin-recovery-ptest"])
    def test_drill(self):
        output = self.succeeds("/usr/lib/pyvorin-recovery/ptest/run-ptest")
        self.assertNotIn("FAIL", output)
        self.assertNotIn("SKIP", output)
