//! The order compared with the engine's own ORDER BY.

use rusqlite::Connection;
use rusqlite::types::Value as Sql;

use super::*;

fn values(encoding: u32) -> Vec<Sql> {
    let texts = [
        "", "a", "A", "a ", "A  ", "b", "ab", "aB", "a\0b", "a\0B", "A\0c", "é", "É", "ß", "😀", "\u{ffff}", "z", " ",
        "a\u{80}",
    ];
    let reals =
        [0.0, -0.0, 1.5, -1.5, 1e300, -1e300, 9.223372036854775e18, -9.223372036854776e18, 4503599627370497.5, 1.0];
    let ints = [0, 1, -1, i64::MAX, i64::MIN, 4503599627370497, 9007199254740993, 2];
    let mut all: Vec<Sql> = vec![Sql::Null];
    all.extend(texts.map(|t| Sql::Text(t.to_string())));
    all.extend(reals.map(Sql::Real));
    all.extend(ints.map(Sql::Integer));
    all.extend([vec![], vec![0], vec![0, 1], vec![255]].map(Sql::Blob));
    let _ = encoding;
    all
}

fn stored(v: &Sql, encoding: u32) -> Vec<u8> {
    match (v, encoding) {
        (Sql::Text(t), 2) => t.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        (Sql::Text(t), 3) => t.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        (Sql::Text(t), _) => t.as_bytes().to_vec(),
        (Sql::Blob(b), _) => b.clone(),
        _ => Vec::new(),
    }
}

fn ours<'a>(v: &Sql, bytes: &'a [u8]) -> Value<'a> {
    match v {
        Sql::Null => Value::Null,
        Sql::Integer(i) => Value::Integer(*i),
        Sql::Real(r) => Value::Real(*r),
        Sql::Text(_) => Value::Text(bytes),
        Sql::Blob(_) => Value::Blob(bytes),
    }
}

#[test]
fn every_pair_is_ordered_as_the_engine_orders_it() {
    for (encoding, name) in [(1, "UTF-8"), (2, "UTF-16le"), (3, "UTF-16be")] {
        for collation in ["BINARY", "NOCASE", "RTRIM"] {
            let db = Connection::open_in_memory().unwrap();
            db.execute_batch(&format!(
                "PRAGMA encoding = '{name}'; CREATE TABLE t(id INTEGER PRIMARY KEY, v COLLATE {collation})"
            ))
            .unwrap();
            let all = values(encoding);
            for (i, v) in all.iter().enumerate() {
                db.execute("INSERT INTO t VALUES (?1, ?2)", rusqlite::params![i as i64, v]).unwrap();
            }
            // Dense ranks say which values are equal and which come first.
            let mut statement = db.prepare("SELECT id, dense_rank() OVER (ORDER BY v) FROM t").unwrap();
            let ranks: std::collections::BTreeMap<i64, i64> =
                statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap();
            let order = KeyOrder { collation: Collation::named(collation).unwrap(), desc: false };
            for (i, a) in all.iter().enumerate() {
                for (j, b) in all.iter().enumerate() {
                    let (x, y) = (stored(a, encoding), stored(b, encoding));
                    let got = compare(ours(a, &x), ours(b, &y), order, encoding);
                    assert_eq!(got, ranks[&(i as i64)].cmp(&ranks[&(j as i64)]), "{name} {collation}: {a:?} and {b:?}");
                }
            }
        }
    }
}
