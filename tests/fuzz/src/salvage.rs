//! Salvage: everything recoverable, from whatever is left of the files.

use std::io;

use pyvorin_recovery::sqlite::salvage::catalog::Entry;
use pyvorin_recovery::sqlite::salvage::extract::{Rows, StrayRow};
use pyvorin_recovery::sqlite::salvage::fields::Field;
use pyvorin_recovery::sqlite::salvage::objects::Object;
use pyvorin_recovery::sqlite::salvage::{self, Facts, Input, LostAndFound, Sink};

use super::log;
use super::meter::Metered;

/// Takes rows and keeps their sizes alone.
#[derive(Default)]
struct Counter {
    begun: usize,
    ended: usize,
    tables: usize,
    rows: u64,
    strays: u64,
    payload: u64,
}

impl Rows for Counter {
    fn row(&mut self, table: usize, _: i64, fields: &[Field], payload: &[u8]) -> io::Result<bool> {
        assert!(self.begun == 1 && self.ended == 0 && table < self.tables);
        assert!(fields.iter().all(|f| f.value(payload) == f.value(payload) || fields.len() < 4000));
        self.rows += 1;
        self.payload += payload.len() as u64;
        // A table refuses a row now and then.
        Ok(!self.rows.is_multiple_of(7))
    }
    fn stray(&mut self, stray: &StrayRow<'_>) -> io::Result<()> {
        self.strays += 1;
        self.payload += stray.payload.len() as u64;
        Ok(())
    }
}

impl Sink for Counter {
    fn begin(&mut self, facts: &Facts, objects: &[Object]) -> io::Result<Vec<String>> {
        assert!(facts.page_size.is_power_of_two() && (1..=3).contains(&facts.encoding), "{facts:?}");
        self.begun += 1;
        self.tables = objects.len();
        Ok(Vec::new())
    }
    fn end(&mut self, _: &[Entry], _: &[(String, i64)]) -> io::Result<(Vec<String>, LostAndFound)> {
        self.ended += 1;
        Ok((Vec::new(), LostAndFound::default()))
    }
}

/// A database with or without a log beside it: the first byte says which; behind it an input of the target `wal` or a
/// database file.
pub fn run(data: &[u8]) {
    let [how, rest @ ..] = data else { return };
    let (db, wal) = match (how & 1, log::Input::read(rest)) {
        (1, Some(input)) => (input.db.unwrap_or_default(), Some(input.wal)),
        _ => (rest.to_vec(), None),
    };
    let (db, wal) = (Metered::new(&db), wal.as_deref().map(Metered::new));
    let input = Input { db: Some(&db), wal: wal.as_ref().map(|w| w as _), ..Input::default() };
    let mut sink = Counter::default();
    let report = salvage::run(&input, &mut sink, &mut |_| ()).unwrap();
    assert!(sink.begun == 1 && sink.ended == 1);
    let bytes = rest.len() as u64;
    let read = db.read() + wal.as_ref().map_or(0, Metered::read);
    assert!(read <= 64 * bytes + (4 << 20), "{read} bytes read of {bytes}");
    // Rows come from bytes: no row for less than a cell, no byte counted out many times over.
    assert!(sink.rows + sink.strays <= bytes, "{} rows of {bytes} bytes", sink.rows + sink.strays);
    assert!(sink.payload <= 8 * bytes + 4096, "{} bytes of rows from {bytes}", sink.payload);
    // A log may claim any number of pages.
    assert!(u64::from(report.pages) <= bytes);
}
