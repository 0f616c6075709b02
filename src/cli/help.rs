//! What `--help` prints: for each command what it does, whether it writes, and how it ends.

/// The text of one command; `None` for what has none of its own.
pub(super) fn help(command: &str) -> Option<&'static str> {
    match command {
        "init" => Some(INIT),
        "boot" => Some(BOOT),
        "check" => Some(CHECK),
        "repair" => Some(REPAIR),
        "salvage" => Some(SALVAGE),
        "inspect" => Some(INSPECT),
        "status" => Some(STATUS),
        "audit" => Some(AUDIT),
        "queue" => Some(QUEUE),
        "backup" => Some(BACKUP),
        "restore" => Some(RESTORE),
        "key" => Some(KEY),
        "reset" => Some(RESET),
        "slot" => Some(SLOT),
        _ => None,
    }
}

pub(super) const OVERVIEW: &str = "\
pyvorin-recovery: repairs the SQLite databases of an edge gateway before its OS sees them

usage: pyvorin-recovery [--config FILE] [--root DIR] [--technician ID] [--json] [-q|-v] COMMAND

  init                      be the whole /init of an initramfs
  boot [--plan]             the boot flow as a hook in another initramfs
  check [--quick] [DB...]   verdicts; changes nothing
  repair [--plan] [DB...]   repair what check finds
  salvage DB OUT            everything recoverable out of DB into a new database
  inspect DB                facts about one database; changes nothing
  status [--metrics]        what the last boot did
  audit verify|show|log|fold      the agent's audit chain, and the journal of our own events
  queue stats|export|import|repair    unsent messages
  backup create|list|verify|prune     encrypted backups, each proved before it gets a name
  restore ARCHIVE           a backup in place of what is there
  key init|show             the keys of this device
  reset [--tier queue|data|full]      factory reset, with everything preserved and a receipt
  slot status|mark-good     boot slots
  version, help [COMMAND]

  --config FILE     settings (default /etc/pyvorin/recovery.toml)
  --root DIR        take every configured path below DIR, such as a mounted card
  --technician ID   who is doing this; recorded as claimed
  --json            one JSON document on stdout and nothing else
  -q, -v            log less or more (to stderr)

exit codes are those of fsck(8), added up: 0 nothing wrong, 1 repaired, 2 reboot wanted,
4 damage or loss left, 8 operational error, 16 usage or configuration, 32 cancelled
";
pub(super) const INIT: &str = "\
usage: pyvorin-recovery init        (also when started under the name init)

Is the whole /init of an initramfs without a shell: mounts, loads modules, waits for the devices, runs the
boot flow in a limited child, starts the OS of the chosen slot. Any other argument under the name init is ignored.
Writes: the attempt counter of the slots; the data partition only when there is something to repair.
Exit codes: none, it does not return.
";
pub(super) const BOOT: &str = "\
usage: pyvorin-recovery boot [--plan [--from FILE]]

Runs the boot flow once, as a hook inside another initramfs: looks, judges, plans, acts, reports.
  --plan        print the plan and change nothing
  --from FILE   plan from a stored evidence.json instead of from this machine (needs --plan)
Writes: only when the plan is not empty, and the report in /run/pyvorin-recovery.
Exit codes: 0 nothing wrong, 1 repaired, 2 the hook must reboot, 4 damage or loss left, 8 operational error, 16 usage.
A hook reboots on bit 2 and goes on with the boot otherwise.
";
const CHECK: &str = "\
usage: pyvorin-recovery check [--quick] [DB...]

Gives a verdict on each database: is the structure sound, and is every committed transaction reachable.
Without DB: all databases of the configuration.
  --quick   read headers, the WAL, the schema and the freelist head only
What needs SQL (CHECK constraints, partial and expression indexes) goes to SQLite on a private copy in /var/tmp, /tmp or
/run, which is removed again; where none of them has room, the report says what was not checked.
Writes: nothing else, not even a -shm file.
Exit codes: 0 nothing wrong, 4 damaged, lossy or missing, 8 could not be read, 16 usage.
";
const REPAIR: &str = "\
usage: pyvorin-recovery repair [--plan] [DB...]

Repairs what check finds: preserves the originals, builds candidates in staging, swaps in the best that the
configuration accepts, and counts every loss. Stop whatever uses the databases first.
Without DB: all databases of the configuration.
  --plan   print the plan and change nothing
Writes: the databases, their quarantine and the state directory; nothing when there is nothing to repair.
A cut of power at any point leaves the old database or the new one after the next boot.
On a terminal --technician ID is required, except with --plan.
Exit codes: 0 nothing wrong, 1 repaired, 4 damage or loss left, 8 operational error, 16 usage, 32 cancelled.
";
const SALVAGE: &str = "\
usage: pyvorin-recovery salvage [--schema FILE] [--backup DIR] DB OUT

Takes everything recoverable out of any SQLite database, with its -wal or -journal, into the new database OUT: rows
into their named tables with their ids, indexes built anew, rows without a table into lost_and_found. Works without
a header, without page 1 and without the inner pages of the trees. DB and what stands beside it are only read.
What is missing is listed by id in OUT.loss.json: ids that an index still names with the span of its columns, and the
ranges in which nothing tells.
  --schema FILE   where DB has lost its schema: CREATE statements, a schema record of a gateway, or a database
  --backup DIR    a directory of decrypted backups: rows that were lost are taken from the newest sound copy
Writes: OUT and OUT.loss.json, neither of which may exist; nothing else. The free space is checked first.
-v shows the progress on stderr.
Exit codes: 0 everything is there, 4 rows are lost, in doubt or in lost_and_found, 8 operational error, 16 usage.
";
const INSPECT: &str = "\
usage: pyvorin-recovery inspect DB

Prints the facts of one database: header, schema, WAL, rows.
Writes: nothing, not even a -shm file.
Exit codes: 0 looked, 4 looked, and it is damaged, 8 could not look, 16 usage.
";
const STATUS: &str = "\
usage: pyvorin-recovery status [--metrics [--to FILE]]

Says in plain words what the last boot found and did.
  --metrics   the boot, the databases, the queue, the audit chain and the quarantine as
              Prometheus text, for the textfile collector of node_exporter
  --to FILE   into FILE, replaced as a whole (its directory in memory spares the flash)
Writes: nothing, or FILE.
Exit codes: 4 when the boot left damage or loss, 8 when there is no report, 16 usage;
with --metrics 0, since a missing report is a figure, or 8 when FILE cannot be written.
";
const RESET: &str = "\
usage: pyvorin-recovery reset [--tier queue|data|full] [--accept-loss] --technician ID
       pyvorin-recovery reset [--tier queue|data|full] --plan

Empties the databases of a gateway. What is taken away is preserved in quarantine first; a receipt, as JSON and as text,
says what was done. A cut of power at any point leaves the gateway as it was or reset, after the next boot.
  --tier queue    unsent messages only
  --tier data     every database (default). Configuration, certificates, device keys, backups, counters and our journal
                  stay. The audit chain goes on with an entry that cites the end of the old one.
  --tier full     also the configuration of the agent ([backup] config) on the data partition, certificates apart
  --accept-loss   go on where something cannot be preserved; the receipt names it
  --plan          print the plan and change nothing
New databases have the schema of the last good ones; `databases = 'leave'` in [reset] leaves them to the agent instead.
The agent is stopped through its service manager and started again. Before the OS, the same is asked for on the kernel
command line with pyvorin.reset=TIER,TECHNICIAN,NUMBER[,accept-loss]; each NUMBER is executed once.
Writes: the databases, quarantine and the state directory.
Exit codes: 0 done, 4 done, with something that was not preserved or not reset, 8 refused or failed, 16 usage.
";
const SLOT: &str = "\
usage: pyvorin-recovery slot status
       pyvorin-recovery slot mark-good

status prints the boot slots: order, tries left, boot state. It writes nothing.
mark-good records that the booted slot proved itself and gives it its tries back. It judges the OS alone, never the
data. It writes once, and only if that changes anything; called from a unit before boot-complete.target.
Exit codes: 0 done, 8 the slot state could not be read or written, 16 usage.
";
const AUDIT: &str = "\
usage: pyvorin-recovery audit verify [--anchor FILE]
       pyvorin-recovery audit show [--last N]
       pyvorin-recovery audit log ACTION [--details JSON] --technician ID
       pyvorin-recovery audit fold

verify reads the agent's chain (privacy_audit) and the journal of our own events, and names the first break.
  --anchor FILE   an earlier `audit verify --json`, kept elsewhere: only that shows an end that was cut off, or a chain
                  that was hashed anew. Its age is reported.
show prints the last N (20) records of both.
log records ACTION with a JSON object of facts: in our journal, and in the agent's chain at once if the agent is stopped.
fold puts the events that wait into the agent's chain, in one transaction. Run it before the agent starts.
Writes: verify and show nothing; log and fold the journal in the state directory and, with the agent stopped, the
chain in edge_store.db.
Exit codes: 0 done (or waiting for the agent to stop), 4 looked, and it is bad, 8 could not look or write, 16 usage.
";
const QUEUE: &str = "\
usage: pyvorin-recovery queue stats [--record]
       pyvorin-recovery queue export FILE
       pyvorin-recovery queue import [--plan] FILE
       pyvorin-recovery queue repair [--plan]

stats prints depth, oldest item, retries, priorities, expired and invalid rows, and whether the queue grows.
  --record   note the depth in the history from which growth is judged; at most one note an hour is written
export writes every valid row to FILE as JSON Lines, from a damaged database too; all others, with the reason, to
FILE.rejected. An existing file is never written over.
import puts rows back with their ids, times and retries: JSON Lines, or the array that `.mode json` prints. Rows that
are there already, and invalid ones, go to FILE.rejected with the reason.
repair exports, rebuilds and re-injects in one operation that a cut of power cannot break. The original stays in
quarantine as sync_queue.db.corrupt.<epoch>. Stop the agent first.
  --plan   say what would be done and change nothing
Writes: stats nothing, or the history in the state directory; export FILE; import and repair the queue and quarantine.
On a terminal --technician ID is required for import and repair, except with --plan.
Exit codes: 0 nothing wrong, 1 repaired, 4 rows were rejected or lost, or damage is left, 8 operational error, 16 usage.
";
pub(super) const BACKUP: &str = "\
usage: pyvorin-recovery backup create [--full]
       pyvorin-recovery backup list
       pyvorin-recovery backup verify [--identity FILE]... [--base ARCHIVE] ARCHIVE
       pyvorin-recovery backup prune [--plan]

create takes the state of every database at one moment, beside a running agent too, and the files of [backup] config. It
encrypts them to every recipient of [backup] recipients (two or more, whose keys are elsewhere) and signs the archive. Before
it gets its name it is read back, decrypted with a key that exists for this alone, unpacked and checked in full.
  --full       a full backup, also where the pages that changed would do
list prints what there is, the newest last.
verify checks the signature and, with an identity, everything inside: digests, rows, and integrity_check by the engine.
  --identity   a file with age secret keys (age-keygen), of operations, of escrow or of the device; may be given again
  --base       the full backup of an increment, where it does not lie beside it
prune takes away what is older than keep_days, never one of the keep_verified newest verified ones, never a full backup
that a kept increment builds on, and nothing while the clock cannot be right.
  --plan       say what would go
Without this program: age -d -i KEY ARCHIVE | zstd -d | tar x; minisign -V -p DEVICE.pub -m ARCHIVE.
Writes: create and prune the directory of backups and the catalogue in the state directory; verify a scratch directory there.
Exit codes: 0 nothing wrong, 4 something was left out or does not verify, 8 operational error, 16 usage or configuration.
";
pub(super) const RESTORE: &str = "\
usage: pyvorin-recovery restore [--plan] [--identity FILE]... [--base ARCHIVE] [--queue all|keep|DAYS]
                                [--config-files] [--any-device] ARCHIVE

Checks the signature (ARCHIVE.minisig), unpacks ARCHIVE beside the databases, proves it (digests, schema, rows,
integrity_check), keeps what is there below .restored, and swaps it in by one operation that a cut of power cannot break. The agent is stopped meanwhile.
  --identity      a file with age secret keys; without one the device's own is tried ([backup] local_restore)
  --base          the full backup of an increment, where it does not lie beside it
  --queue         what becomes of old messages, which may have been sent since: all come back (the default), the queue that is
                  there stays (keep), or those of the last DAYS days come back
  --config-files  restore files of the configuration too; keys, certificates and recovery.toml never
  --any-device    also an archive that this device did not sign: of another one, or of this one before its card was replaced
  --plan          unpack and prove it in a scratch directory, say what would be replaced, change nothing else
On a terminal --technician ID is required, except with --plan.
Exit codes: 0 restored, 4 something of it was left out, 8 refused or operational error, 16 usage or configuration.
";
pub(super) const KEY: &str = "\
usage: pyvorin-recovery key init
       pyvorin-recovery key show

init makes the keys of this device where they are missing: one that opens what is meant for it, and one that signs its
backups and reports. They stay in the state directory (mode 0600) and survive every reset.
show prints what operations needs to know of them: device id, recipient, public signing key. No secret is printed.
Exit codes: 0 nothing wrong, 8 operational error.
";
