//! The kernel command line as a request to us. Pure: text in, [`Request`] out; the reading of `/proc/cmdline` is the
//! business of `init`.
//!
//! Words follow the kernel's own rules (`lib/cmdline.c`, `next_arg`): separated by white space, double quotes protect
//! white space and may stand around the whole word or around the value, the last of two equal words wins, and
//! everything behind `--` belongs to the program started as init. Words of others (`rauc.slot=`, `root=`) are ignored.
//! A `pyvorin.` word that we do not understand changes nothing, but is kept in [`Request::refused`], so that a
//! technician's typing error shows up in the report instead of vanishing.

use serde::{Deserialize, Serialize};

use crate::reset;

/// The five stages, as a rehearsed failure names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultStage {
    /// Reading the machine.
    Sense,
    /// Judging what was read.
    Assess,
    /// Deciding the steps.
    Plan,
    /// Taking them.
    Act,
    /// Telling.
    Report,
}

/// How a rehearsed failure looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The stage dies.
    Kill,
    /// The stage never ends.
    Hang,
}

/// A rehearsal of our own failure: proves on the device that the boot goes on without us (invariant I9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where.
    pub stage: FaultStage,
    /// How.
    pub kind: FaultKind,
}

/// A root slot asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotWord {
    /// Root A.
    A,
    /// Root B.
    B,
}

/// What the command line asks of us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `pyvorin.fault=STAGE:kill|hang`.
    pub fault: Option<Fault>,
    /// `pyvorin.recovery`: stay in the recovery system.
    pub recovery: bool,
    /// `pyvorin.slot=A|B`: boot this slot, once.
    pub slot: Option<SlotWord>,
    /// `pyvorin.reset=TIER,TECHNICIAN,NUMBER[,accept-loss]`: a factory reset, once.
    #[serde(default)]
    pub reset: Option<reset::Request>,
    /// `pyvorin.hold`: stop after the report.
    pub hold: bool,
    /// `pyvorin.off`: touch nothing, boot the slot.
    pub off: bool,
    /// `quiet`: no sentences on the console unless something is wrong.
    pub quiet: bool,
    /// `pyvorin.` words that were not understood.
    pub refused: Vec<String>,
}

/// Parses the text of `/proc/cmdline`.
#[must_use]
pub fn parse(text: &str) -> Request {
    let mut request = Request::default();
    for word in words(text) {
        if word == "--" {
            break;
        }
        take(&mut request, &word);
    }
    request
}

/// The value of `key=` as the last word gives it, such as `root=` or `console=`.
#[must_use]
pub fn value(text: &str, key: &str) -> Option<String> {
    words(text)
        .into_iter()
        .take_while(|word| word != "--")
        .filter_map(|word| word.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v.to_owned()))
        .last()
}

fn take(request: &mut Request, word: &str) {
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    };
    let understood = match (key, value) {
        ("quiet", None) => set(&mut request.quiet),
        ("pyvorin.recovery", None) => set(&mut request.recovery),
        ("pyvorin.hold", None) => set(&mut request.hold),
        ("pyvorin.off", None) => set(&mut request.off),
        ("pyvorin.slot", Some(value)) => put(&mut request.slot, slot(value)),
        ("pyvorin.reset", Some(value)) => put(&mut request.reset, reset::word(value)),
        ("pyvorin.fault", Some(value)) => put(&mut request.fault, fault(value)),
        _ => !key.starts_with("pyvorin."),
    };
    if !understood {
        request.refused.push(word.to_owned());
    }
}

fn set(flag: &mut bool) -> bool {
    *flag = true;
    true
}

fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let understood = value.is_some();
    if understood {
        *place = value;
    }
    understood
}

fn slot(value: &str) -> Option<SlotWord> {
    match value {
        "A" => Some(SlotWord::A),
        "B" => Some(SlotWord::B),
        _ => None,
    }
}

fn fault(value: &str) -> Option<Fault> {
    let (stage, kind) = value.split_once(':')?;
    let stage = match stage {
        "sense" => FaultStage::Sense,
        "assess" => FaultStage::Assess,
        "plan" => FaultStage::Plan,
        "act" => FaultStage::Act,
        "report" => FaultStage::Report,
        _ => return None,
    };
    let kind = match kind {
        "kill" => FaultKind::Kill,
        "hang" => FaultKind::Hang,
        _ => return None,
    };
    Some(Fault { stage, kind })
}

/// Splits at white space outside quotes. A quote at the very start of a word or of its value is removed together with
/// the one at its end, as the kernel does; any other stays. An unclosed quote reaches to the end of the text.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        if c == '"' {
            quoted = !quoted;
        }
        if c.is_ascii_whitespace() && !quoted {
            finish(&mut words, &mut word);
        } else {
            word.push(c);
        }
    }
    finish(&mut words, &mut word);
    words
}

fn finish(words: &mut Vec<String>, word: &mut String) {
    if word.is_empty() {
        return;
    }
    let raw = std::mem::take(word);
    let plain = match (raw.strip_prefix('"'), raw.split_once('=')) {
        (Some(inner), _) => inner.strip_suffix('"').unwrap_or(inner).to_owned(),
        (None, Some((key, value))) => match value.strip_prefix('"') {
            Some(inner) => format!("{key}={}", inner.strip_suffix('"').unwrap_or(inner)),
            None => raw,
        },
        (None, None) => raw,
    };
    words.push(plain);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_asks_one_thing() {
        let none = Request::default();
        let fault = |stage, kind| Request { fault: Some(Fault { stage, kind }), ..Request::default() };
        let refused = |word: &str| Request { refused: vec![word.to_owned()], ..Request::default() };
        let table = [
            ("", none.clone()),
            ("  \t\n ", none.clone()),
            ("root=/dev/sda2 ro rauc.slot=A console=ttyS0,115200", none.clone()),
            ("ro quiet\n", Request { quiet: true, ..none.clone() }),
            ("pyvorin.recovery", Request { recovery: true, ..none.clone() }),
            ("pyvorin.hold pyvorin.off", Request { hold: true, off: true, ..none.clone() }),
            ("pyvorin.slot=A", Request { slot: Some(SlotWord::A), ..none.clone() }),
            ("pyvorin.slot=A pyvorin.slot=B", Request { slot: Some(SlotWord::B), ..none.clone() }),
            ("pyvorin.slot=\"B\"", Request { slot: Some(SlotWord::B), ..none.clone() }),
            ("\"pyvorin.slot=B\"", Request { slot: Some(SlotWord::B), ..none.clone() }),
            ("x=\"a pyvorin.off b\"", none.clone()),
            ("x=\"unclosed pyvorin.off", none.clone()),
            ("pyvorin.fault=sense:kill", fault(FaultStage::Sense, FaultKind::Kill)),
            ("pyvorin.fault=assess:hang", fault(FaultStage::Assess, FaultKind::Hang)),
            ("pyvorin.fault=plan:kill", fault(FaultStage::Plan, FaultKind::Kill)),
            ("pyvorin.fault=act:hang", fault(FaultStage::Act, FaultKind::Hang)),
            ("pyvorin.fault=report:kill", fault(FaultStage::Report, FaultKind::Kill)),
            ("pyvorin.reset=data,T-042,7", Request { reset: reset::word("data,T-042,7"), ..none.clone() }),
            ("pyvorin.reset=data", refused("pyvorin.reset=data")),
            ("pyvorin.reset", refused("pyvorin.reset")),
            ("-- pyvorin.off", none.clone()),
            ("pyvorin.slot=C", refused("pyvorin.slot=C")),
            ("pyvorin.slot", refused("pyvorin.slot")),
            ("pyvorin.off=no", refused("pyvorin.off=no")),
            ("pyvorin.fault=act", refused("pyvorin.fault=act")),
            ("pyvorin.fault=act:explode", refused("pyvorin.fault=act:explode")),
            ("pyvorin.fsck", refused("pyvorin.fsck")),
            ("pyvorinx.off quiet=1", none),
        ];
        for (text, wanted) in table {
            assert_eq!(parse(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_refused_value_leaves_an_earlier_one() {
        let request = parse("pyvorin.slot=A pyvorin.slot=Z");
        assert_eq!((request.slot, request.refused.len()), (Some(SlotWord::A), 1));
    }

    #[test]
    fn values_of_others() {
        assert_eq!(value("root=/dev/a root=\"LABEL=b c\" x", "root").as_deref(), Some("LABEL=b c"));
        assert_eq!(value("rootwait root", "root"), None);
        assert_eq!(value("-- root=x", "root"), None);
    }

    #[test]
    fn any_text_gives_a_request() {
        for text in
            ["\"", "\"\"", "=\"", "\"=\"", "pyvorin.", "pyvorin.=\"\"", "\u{0}\u{feff}é=\"ü\" ", "-- --", "= = ="]
        {
            let _ = parse(text);
        }
    }
}
