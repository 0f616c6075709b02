//! Rows of a backup into the ranges of rowids that a salvage could not fill.
//!
//! Only rowids that the salvage lost are asked for: a row that is missing where its page is whole was deleted after the
//! backup, and stays deleted. Where an index is whole, only the rowids it names are lost. What comes from a backup may
//! have been changed since; the report says how many rows that are.

use std::io;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, params_from_iter};

use super::super::TableGain;
use super::append::{columns, ready};
use super::{damage, failed, ordinary_tables, quoted};
use crate::sqlite::salvage::loss::TableLoss;

/// Ranges asked for in one table at most; the rest is one range.
const MAX_RANGES: usize = 50_000;

/// Fills the losses of `db` from `donor`, in one transaction.
pub(super) fn merge(db: &mut Connection, donor: &Connection, losses: &[TableLoss]) -> io::Result<Vec<TableGain>> {
    merge_sql(db, donor, losses).map_err(failed)
}

fn merge_sql(db: &mut Connection, donor: &Connection, losses: &[TableLoss]) -> rusqlite::Result<Vec<TableGain>> {
    ready(db, donor)?;
    let transaction = db.transaction()?;
    let theirs = ordinary_tables(donor, "main")?;
    let mut gains = Vec::new();
    for table in ordinary_tables(&transaction, "main")? {
        let same = |name: &str| name.eq_ignore_ascii_case(&table.name);
        let Some(loss) = losses.iter().find(|l| same(&l.table) && l.lost != Some(0)) else { continue };
        let Some(source) = theirs.iter().find(|t| same(&t.name) && t.without_rowid == table.without_rowid) else {
            continue;
        };
        let ours = columns(&transaction, &table.name)?;
        let other = columns(donor, &source.name)?;
        let free = |name: &&str| !ours.iter().chain(&other).any(|c| c.name.eq_ignore_ascii_case(name));
        let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(free).filter(|_| !table.without_rowid);
        let mut names: Vec<String> = rowid.iter().map(ToString::to_string).collect();
        let common = ours.iter().filter(|c| !c.generated && other.iter().any(|o| o.name.eq_ignore_ascii_case(&c.name)));
        names.extend(common.map(|c| quoted(&c.name)));
        let names = names.join(", ");
        let select = format!("SELECT {names} FROM main.{}", quoted(&source.name));
        let marks = vec!["?"; names.split(", ").count()].join(", ");
        let insert = format!("INSERT OR IGNORE INTO main.{} ({names}) VALUES ({marks})", quoted(&table.name));
        let mut inserted = 0;
        match rowid {
            Some(rowid) => {
                let wanted = [loss.named.intervals(), loss.possible.intervals()].concat();
                let wanted = crate::sqlite::salvage::spans::Spans::from(wanted).at_most(MAX_RANGES);
                let select = format!("{select} WHERE {rowid} BETWEEN ?1 AND ?2 ORDER BY {rowid}");
                for (low, high) in wanted.intervals() {
                    inserted += copy(&transaction, donor, &select, &insert, &[*low, *high])?;
                }
            }
            None => inserted += copy(&transaction, donor, &select, &insert, &[])?,
        }
        if inserted > 0 {
            gains.push(TableGain { table: table.name.clone(), inserted });
        }
    }
    transaction.commit()?;
    Ok(gains)
}

/// Copies what a query gives. A backup that turns out to be damaged gives what it can.
fn copy(db: &Connection, donor: &Connection, select: &str, insert: &str, range: &[i64]) -> rusqlite::Result<u64> {
    let mut reader = donor.prepare(select)?;
    let mut writer = db.prepare(insert)?;
    let columns = reader.column_count();
    let mut rows = reader.query(params_from_iter(range))?;
    let mut inserted = 0;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(inserted),
            Err(e) if damage(&e).is_some() => {
                log::warn!("rows of the backup end at damage: {e}");
                return Ok(inserted);
            }
            Err(e) => return Err(e),
        };
        let value = |i| row.get_ref(i).map(ToSqlOutput::Borrowed);
        let values: Vec<ToSqlOutput<'_>> = (0..columns).map(value).collect::<rusqlite::Result<_>>()?;
        inserted += u64::try_from(writer.execute(params_from_iter(values))?).unwrap_or(0);
    }
}
