//! Every line that is understood, and every one that is refused.

use super::help::{BOOT, INIT, OVERVIEW, help};
use super::{AuditCommand, Command, Invocation, LATER, QueueCommand, SLOT_LATER, Status, Usage, parse};
use std::ffi::OsString;
use std::path::PathBuf;

fn run(line: &str) -> Result<Invocation, Usage> {
    parse(std::iter::once("pyvorin-recovery").chain(line.split_whitespace()).map(OsString::from))
}

fn command(line: &str) -> Command {
    run(line).expect(line).command
}

#[test]
fn every_command_of_this_version_is_understood() {
    let db = || vec![PathBuf::from("a.db"), PathBuf::from("/b.db")];
    assert_eq!(command("init"), Command::Init);
    assert_eq!(command("boot --plan --from e.json"), Command::Boot { plan: true, from: Some("e.json".into()) });
    assert_eq!(command("check a.db --quick /b.db"), Command::Check { quick: true, databases: db() });
    assert_eq!(command("check"), Command::Check { quick: false, databases: vec![] });
    assert_eq!(command("repair --plan a.db /b.db"), Command::Repair { plan: true, databases: db() });
    assert_eq!(command("repair -- --plan"), Command::Repair { plan: false, databases: vec!["--plan".into()] });
    assert_eq!(command("inspect a.db"), Command::Inspect { database: "a.db".into() });
    let salvage = |schema: Option<&str>, backup: Option<&str>| {
        let (db, out) = ("a.db".into(), "o.db".into());
        Command::Salvage(super::Salvage { db, out, schema: schema.map(Into::into), backup: backup.map(Into::into) })
    };
    assert_eq!(command("salvage a.db o.db"), salvage(None, None));
    assert_eq!(command("salvage --schema s.sql a.db --backup=d o.db"), salvage(Some("s.sql"), Some("d")));
    assert_eq!(command("status --metrics"), Command::Status(Status { metrics: true, to: None }));
    let to = Some("/run/m/p.prom".into());
    assert_eq!(command("status --metrics --to /run/m/p.prom"), Command::Status(Status { metrics: true, to }));
    let anchor = Some(PathBuf::from("a.json"));
    assert_eq!(command("audit verify --anchor a.json"), Command::Audit(AuditCommand::Verify { anchor }));
    assert_eq!(command("audit show --last 5"), Command::Audit(AuditCommand::Show { last: 5 }));
    assert_eq!(command("audit fold"), Command::Audit(AuditCommand::Fold));
    let log = AuditCommand::Log { action: "card_replaced".into(), details: "{\"a\":1}".into() };
    assert_eq!(command("audit log card_replaced --details {\"a\":1}"), Command::Audit(log));
    assert_eq!(command("queue stats --record"), Command::Queue(QueueCommand::Stats { record: true }));
    assert_eq!(command("queue export x"), Command::Queue(QueueCommand::Export { to: "x".into() }));
    let import = QueueCommand::Import { from: "x".into(), plan: true };
    assert_eq!(command("queue import --plan x"), Command::Queue(import));
    assert_eq!(command("queue repair"), Command::Queue(QueueCommand::Repair { plan: false }));
    assert_eq!(command("slot status"), Command::SlotStatus);
    assert_eq!(command("slot mark-good"), Command::SlotMarkGood);
    assert_eq!(command("version"), Command::Version);
    assert_eq!(command("-V"), Command::Version);
}

#[test]
fn global_options_stand_on_either_side_of_the_command() {
    let left = run("--config c --root=/r --technician J.Doe_1-x --json -q check").unwrap();
    assert_eq!(left, run("check --json -q --config=c --root /r --technician J.Doe_1-x").unwrap());
    assert_eq!(left.config, Some("c".into()));
    assert_eq!((left.root, left.technician.as_deref()), (Some("/r".into()), Some("J.Doe_1-x")));
    assert!(left.json && left.quiet && !left.verbose);
}

#[test]
fn under_the_name_init_every_argument_is_ignored() {
    for name in ["init", "/init", "/sbin/init"] {
        let args = [name, "single", "--json", "\u{1}"].map(OsString::from);
        let got = parse(args).unwrap();
        assert_eq!((got.command, got.json), (Command::Init, false));
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_exit_16_and_a_next_step() {
    let lines = [
        "",
        "chek",
        "check --slow",
        "check --plan",
        "boot --quick",
        "repair --metrics",
        "status --to /run/m/p.prom",
        "queue stats --to /run/m/p.prom",
        "status x",
        "boot x",
        "boot --from e.json",
        "inspect",
        "inspect a b",
        "salvage",
        "salvage a",
        "salvage a b c",
        "salvage a b --schema",
        "repair a --schema b",
        "check --backup b",
        "slot",
        "slot mark-god",
        "slot status x",
        "init x",
        "check --config",
        "check --config a --config b",
        "-q -v check",
        "check --technician a/b",
        "help a b",
        "help nothing",
        "check --technician=",
        "check --root=",
        "-x",
        "check --json=yes",
        "audit",
        "audit verfy",
        "audit verify x",
        "audit verify --last 3",
        "audit show --last 0",
        "audit log",
        "audit log a b",
        "audit log Bad-Action",
        "audit fold --details {}",
        "queue",
        "queue export",
        "queue export a b",
        "queue stats --plan",
        "queue import",
        "check --record",
    ];
    for line in lines {
        let usage = run(line).expect_err(line);
        assert_eq!(usage.exit().code(), 16);
        assert!(usage.to_string().contains("; next: "), "{usage}");
    }
    assert!(run(&format!("check --technician {}", "x".repeat(65))).is_err());
}

#[test]
fn commands_of_the_contract_that_are_missing_say_so() {
    for name in LATER.iter().map(ToString::to_string).chain(SLOT_LATER.map(|verb| format!("slot {verb}"))) {
        let usage = run(&format!("{name} --whatever")).or_else(|_| run(&name)).expect_err(&name);
        assert!(usage.message.contains("not part of this version"), "{usage}");
    }
}

#[test]
fn every_command_has_help_that_says_what_it_writes_and_how_it_ends() {
    for name in ["init", "boot", "check", "repair", "salvage", "inspect", "status", "audit", "queue", "slot"] {
        let text = help(name).unwrap();
        assert!(text.contains("Exit codes:") && text.to_lowercase().contains("write"), "{name}");
        assert!(OVERVIEW.contains(&format!("\n  {name} ")), "{name}");
        assert_eq!(command(&format!("help {name}")), Command::Help(text));
        assert_eq!(command(&format!("{name} --help")), Command::Help(text));
    }
    assert_eq!(command("--help"), Command::Help(OVERVIEW));
    assert_eq!(command("help"), Command::Help(OVERVIEW));
    assert_eq!((command("boot x -h"), command("help init")), (Command::Help(BOOT), Command::Help(INIT)));
}
