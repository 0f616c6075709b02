//! Factory reset: what is asked for, and the receipt for what was done. No effects.
//!
//! | tier | emptied | kept |
//! |---|---|---|
//! | `queue` | the databases of kind `queue` | everything else |
//! | `data` | every supervised database | configuration, certificates, device keys, backups, counters, our journal |
//! | `full` | the same, and the configuration of the agent on the data volume (`[backup] config`, less `exclude`) | certificates, device keys, backups, counters, our journal |
//!
//! Nothing is deleted: whatever goes is preserved in quarantine first. A request is executed once: its number is recorded
//! before the operation is forgotten, so a word that stays on the kernel command line does not empty a gateway at every start.

use serde::{Deserialize, Serialize};

use crate::config::is_label;

/// Schema of the receipt.
pub const RECEIPT: &str = "pyvorin-recovery/reset-receipt/1";
/// Kind of the operation, and of the event that tells it.
pub const KIND: &str = "reset";
/// Kind and file name of the record of requests that were executed.
pub const USED: &str = "resets-used";
/// Directory of receipts in the state directory.
pub const RECEIPTS: &str = "receipts";
/// Executed requests that are remembered, the newest last.
pub const REMEMBERED: usize = 256;
/// Receipts kept.
pub const KEPT: usize = 32;
/// Stands for a database in the outcomes of a reset: no name that can be configured.
pub const SUBJECT: &str = "(reset)";

/// How far a reset goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Unsent messages.
    Queue,
    /// Every database.
    Data,
    /// Every database and the agent's configuration.
    Full,
}

impl Tier {
    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Data => "data",
            Self::Full => "full",
        }
    }

    /// The tier of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Tier> {
        [Self::Queue, Self::Data, Self::Full].into_iter().find(|tier| tier.name() == word)
    }
}

/// A reset that a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// How far.
    pub tier: Tier,
    /// The technician, as claimed.
    pub by: String,
    /// Names this request among all of the device: a second one of the same number is not executed.
    pub id: String,
    /// Go on where something cannot be preserved. It is then named in the receipt.
    pub accept_loss: bool,
}

/// `TIER,TECHNICIAN,NUMBER[,accept-loss]`: the value of the word `pyvorin.reset=` on the kernel command line. NUMBER is
/// any label that this device has not seen yet.
#[must_use]
pub fn word(value: &str) -> Option<Request> {
    let mut parts = value.split(',');
    let tier = Tier::of(parts.next()?)?;
    let by = parts.next().filter(|by| is_label(by, 64))?;
    let number = parts.next().filter(|n| is_label(n, 64))?;
    let accept_loss = match (parts.next(), parts.next()) {
        (None, _) => false,
        (Some("accept-loss"), None) => true,
        _ => return None,
    };
    Some(Request { tier, by: by.to_string(), id: format!("kernel-{}-{by}-{number}", tier.name()), accept_loss })
}

/// One preserved file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name beside the database.
    pub name: String,
    /// SHA-256, lower-case hex; `null` where it could not be read.
    pub sha256: Option<String>,
}

/// What became of one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emptied {
    /// Its name.
    pub name: String,
    /// Its path as the OS names it.
    pub path: String,
    /// The files that were preserved.
    pub originals: Vec<Kept>,
    /// Why a file of it was not preserved, under `--accept-loss`.
    pub lost: Vec<String>,
    /// Where the schema of the new one came from; `null`: the agent creates the database.
    pub schema_from: Option<String>,
}

/// The end of the audit chain before the reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldChain {
    /// Id and hash of its last record, and the id of its first.
    pub head: Option<(i64, String)>,
    /// Id of the first record.
    pub first_id: Option<i64>,
    /// Records read.
    pub records: u64,
    /// The form in which it was hashed, where it is known.
    pub dialect: Option<String>,
    /// What its first record stood behind; `null` where that was NULL or is not known.
    pub genesis: Option<String>,
    /// What was wrong with it, in words; `null`: nothing.
    pub trouble: Option<String>,
}

/// The receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// [`RECEIPT`].
    pub schema: String,
    /// Name of the operation, also of its directory under quarantine.
    pub op: String,
    /// How far.
    pub tier: Tier,
    /// The technician, as claimed.
    pub technician: String,
    /// The request.
    pub request: String,
    /// Seconds since the epoch by the clock of the device when it began.
    pub at: u64,
    /// What was emptied.
    pub databases: Vec<Emptied>,
    /// Configuration files that were taken away.
    pub configuration: Vec<Kept>,
    /// Configuration that a reset of this tier would take away and could not, with the reason.
    pub left: Vec<String>,
    /// What was kept.
    pub kept: Vec<String>,
    /// True when something is gone that was not preserved.
    pub loss: bool,
    /// Where the originals are.
    pub quarantine: String,
    /// The audit chain before, where the store was emptied.
    pub old_chain: Option<OldChain>,
}

impl Receipt {
    /// The receipt as a person reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!("FACTORY RESET, tier {}", self.tier.name()),
            format!("operation   {}", self.op),
            format!("technician  {} (as claimed)", self.technician),
            format!("request     {}", self.request),
            format!("begun at    {} (seconds since 1970 by the clock of the device)", self.at),
            String::new(),
        ];
        for d in &self.databases {
            lines.push(match &d.schema_from {
                Some(from) => format!("{} is empty; its schema is that of the {from}", d.path),
                None => format!("{} is gone; the agent creates it when it starts", d.path),
            });
            lines.extend(d.originals.iter().map(kept));
            lines.extend(d.lost.iter().map(|why| format!("    LOST: {why}")));
        }
        if !self.configuration.is_empty() {
            lines.push("configuration taken away:".to_string());
            lines.extend(self.configuration.iter().map(kept));
        }
        lines.extend(self.left.iter().map(|why| format!("not reset: {why}")));
        lines.push(String::new());
        lines.push(format!("The originals are in {}", self.quarantine));
        lines.extend(self.kept.iter().map(|what| format!("kept: {what}")));
        if let Some(chain) = &self.old_chain {
            lines.push(match &chain.head {
                Some((id, hash)) => {
                    format!("the audit chain ended with record {id}, hash {hash}; the next one cites it")
                }
                None => "the audit chain had no record that could be read".to_string(),
            });
            lines.extend(chain.trouble.iter().map(|why| format!("the audit chain before: {why}")));
        }
        lines.push(match self.loss {
            true => "NOT everything was preserved; see LOST above.".to_string(),
            false => "Everything that was taken away is preserved.".to_string(),
        });
        lines.join("\n") + "\n"
    }
}

fn kept(file: &Kept) -> String {
    match &file.sha256 {
        Some(sha256) => format!("    {}  SHA-256 {sha256}", file.name),
        None => format!("    {}  (could not be read in full)", file.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_whole_or_nothing() {
        let data = word("data,T-042,1").unwrap();
        assert_eq!((data.tier, data.by.as_str(), data.accept_loss), (Tier::Data, "T-042", false));
        assert_ne!(data.id, word("data,T-042,2").unwrap().id);
        assert_ne!(data.id, word("queue,T-042,1").unwrap().id);
        assert!(word("full,x,y,accept-loss").unwrap().accept_loss);
        for bad in [
            "",
            "data",
            "data,T-042",
            "data,,1",
            "all,T-042,1",
            "data,T-042,1,",
            "data,T-042,1,accept-loss,x",
            "data,T 42,1",
            "Data,T,1",
        ] {
            assert_eq!(word(bad), None, "{bad}");
        }
    }
}
