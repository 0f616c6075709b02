//! Every fact compared with the engine's own: `table_xinfo`, `table_list`, `index_list`, `index_xinfo`.

use rusqlite::Connection;

use super::*;

/// The stored text of every table and index, as (kind, name, table, sql).
fn stored(db: &Connection) -> Vec<(String, String, String, Option<String>)> {
    let mut statement = db.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema").unwrap();
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn lines(db: &Connection, sql: &str, argument: &str) -> Vec<String> {
    let mut statement = db.prepare(sql).unwrap();
    let n = statement.column_count();
    let rows = statement
        .query_map([argument], |r| {
            let cell = |i| r.get_ref(i).map(|v| format!("{v:?}"));
            (0..n).map(cell).collect::<Result<Vec<_>, _>>().map(|cells| cells.join(" "))
        })
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// What the engine says of a table's columns.
fn engine_columns(db: &Connection, table: &str) -> Vec<String> {
    let sql = "SELECT name || '|' || \"notnull\" || '|' || pk || '|' || hidden || '|' || upper(type) \
               FROM pragma_table_xinfo(?1)";
    lines(db, sql, table)
}

fn our_columns(t: &TableDef) -> Vec<String> {
    let line = |(i, c): (usize, &ColumnDef)| {
        let pk = t.primary_key.iter().position(|p| p.source == KeySource::Column(i)).map_or(0, |n| n + 1);
        let hidden = match c.generated {
            Generated::No => 0,
            Generated::Virtual => 2,
            Generated::Stored => 3,
        };
        let text = format!("{}|{}|{pk}|{hidden}|{}", c.name, u8::from(c.not_null), c.declared.to_ascii_uppercase());
        format!("{:?}", rusqlite::types::ValueRef::Text(text.as_bytes()))
    };
    t.columns.iter().enumerate().map(line).collect()
}

fn engine_index(db: &Connection, index: &str) -> Vec<String> {
    lines(db, "SELECT cid || '|' || \"desc\" || '|' || upper(coll) FROM pragma_index_xinfo(?1)", index)
}

fn our_index(parts: &[KeyPart]) -> Vec<String> {
    let line = |p: &KeyPart| {
        let cid = match p.source {
            KeySource::Column(c) => i64::try_from(c).unwrap(),
            KeySource::Rowid => -1,
            KeySource::Expression => -2,
        };
        let text = format!("{cid}|{}|{}", u8::from(p.desc), p.collation.to_ascii_uppercase());
        format!("{:?}", rusqlite::types::ValueRef::Text(text.as_bytes()))
    };
    parts.iter().map(line).collect()
}

/// Compares everything in a database; returns how many tables and indexes were understood.
fn compare(db: &Connection, context: &str) -> (usize, usize) {
    let entries = stored(db);
    let mut counts = (0, 0);
    for (_, name, _, sql) in entries.iter().filter(|e| e.0 == "table") {
        let Some(Ok(t)) = sql.as_deref().map(table) else { continue };
        counts.0 += 1;
        assert_eq!(t.name, *name, "{context}");
        assert_eq!(our_columns(&t), engine_columns(db, name), "{context}: {sql:?}");
        let flags: (bool, bool) = db
            .query_row("SELECT wr, strict FROM pragma_table_list WHERE name = ?1", [name], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .unwrap();
        assert_eq!((t.without_rowid, t.strict), flags, "{context}");
        let autos = "SELECT name FROM pragma_index_list(?1) WHERE origin <> 'c' ORDER BY name";
        let mut ours: Vec<_> = t
            .auto_indexes
            .iter()
            .map(|i| format!("{:?}", rusqlite::types::ValueRef::Text(i.name.as_bytes())))
            .collect();
        ours.sort();
        assert_eq!(ours, lines(db, autos, name), "{context}: {sql:?}");
        for index in &t.auto_indexes {
            let ours = if t.without_rowid && index.origin == Origin::PrimaryKey {
                let stored = t.stored_columns();
                let key = &t.primary_key;
                let part = |(i, c): (usize, &usize)| match key.get(i) {
                    Some(p) => p.clone(),
                    None => {
                        let collation = t.columns[*c].collation.clone();
                        KeyPart { source: KeySource::Column(*c), collation, desc: false }
                    }
                };
                stored.iter().enumerate().map(part).collect()
            } else {
                index.layout(&t, 4)
            };
            assert_eq!(our_index(&ours), engine_index(db, &index.name), "{context}: {} {sql:?}", index.name);
        }
        for (_, name, _, sql) in entries.iter().filter(|e| e.0 == "index" && e.2 == *name) {
            let Some(Ok(i)) = sql.as_deref().map(|s| super::index(s, &t)) else { continue };
            counts.1 += 1;
            let facts: (bool, bool) = db
                .query_row(
                    "SELECT \"unique\", partial FROM pragma_index_list(?1) WHERE name = ?2",
                    [&t.name, name],
                    |r| Ok((r.get(0)?, r.get(1)?)),
                )
                .unwrap();
            assert_eq!((i.unique, i.partial), facts, "{context}: {sql:?}");
            if i.parts.iter().all(|p| p.source != KeySource::Expression) {
                assert_eq!(our_index(&i.layout(&t, 4)), engine_index(db, name), "{context}: {sql:?}");
            }
        }
    }
    counts
}

const ODD: &[&str] = &[
    "CREATE TABLE t(a)",
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
    "CREATE TABLE t(a INTEGER PRIMARY KEY DESC, b)",
    "CREATE TABLE t(a INTEGER, b, PRIMARY KEY(a DESC))",
    "CREATE TABLE t(a INTEGER, b, PRIMARY KEY(a COLLATE NOCASE))",
    "CREATE TABLE t(a INT PRIMARY KEY, b)",
    "CREATE TABLE t(a \"INTEGER\" PRIMARY KEY, b)",
    "CREATE TABLE t(a integer primary key autoincrement, b text not null default 'x''y')",
    "CREATE TABLE t(a, b, PRIMARY KEY(a, b, a)) WITHOUT ROWID",
    "CREATE TABLE t(a, b, c, PRIMARY KEY(b DESC, a COLLATE nocase)) WITHOUT ROWID",
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c) WITHOUT ROWID",
    "CREATE TABLE t(a INTEGER PRIMARY KEY DESC, b UNIQUE, c) WITHOUT ROWID",
    "CREATE TABLE t(a, b, c, PRIMARY KEY(a, a COLLATE nocase, b)) WITHOUT ROWID",
    "CREATE TABLE t(a INTEGER, b UNIQUE, c, PRIMARY KEY(a DESC)) WITHOUT ROWID; CREATE INDEX i ON t(c)",
    "CREATE TABLE t(a UNIQUE UNIQUE, b UNIQUE, UNIQUE(a), UNIQUE(a, b), UNIQUE(b, a), PRIMARY KEY(b))",
    "CREATE TABLE t(a UNIQUE COLLATE NOCASE, b COLLATE RTRIM UNIQUE, UNIQUE(a COLLATE BINARY))",
    "CREATE TABLE t(a INTEGER PRIMARY KEY UNIQUE, b)",
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b, UNIQUE(a, b), UNIQUE(a))",
    "CREATE TABLE [t](\"select\" [weird type (1)] , `b``c` VARCHAR(10, 20) , 'd' /* x */ DOUBLE -- y\n PRECISION)",
    "CREATE TABLE \"t u\"(a b c d e INTEGER, f CHARINT, g STRING, h BLOBTEXT, i FLOATING POINT, j NUMERIC(5))",
    "CREATE TABLE t(a INTEGER NOT NULL ON CONFLICT REPLACE DEFAULT -5, b DEFAULT (1 + 2), c DEFAULT CURRENT_TIME, \
       d DEFAULT +1.5e3, e DEFAULT x'00ff', f DEFAULT NULL, g DEFAULT \"dq\", h DEFAULT true)",
    "CREATE TABLE t(a, b AS (a + 1), c GENERATED ALWAYS AS (a || ')' || '(') STORED UNIQUE, d INT AS (1) VIRTUAL)",
    "CREATE TABLE t(a INTEGER, b TEXT NOT NULL, c ANY, d REAL PRIMARY KEY) STRICT",
    "CREATE TABLE t(a INTEGER, b TEXT, c ANY, d BLOB, PRIMARY KEY(a, b)) STRICT, WITHOUT ROWID",
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b ANY) WITHOUT ROWID, STRICT",
    "CREATE TABLE p(x PRIMARY KEY); CREATE TABLE t(a REFERENCES p ON DELETE SET NULL ON UPDATE NO ACTION DEFERRABLE \
       INITIALLY DEFERRED NOT NULL, b CONSTRAINT n CHECK (b > 0) CONSTRAINT u UNIQUE, CONSTRAINT f FOREIGN KEY (b) \
       REFERENCES p(x) ON DELETE CASCADE MATCH FULL NOT DEFERRABLE CONSTRAINT q UNIQUE (a, b) CHECK (a <> b))",
    "CREATE TABLE t(key, value, action, rowid, begin, 'end', replace, [index], date timestamp default (now()), \
       generated, always, strict, without)",
    "CREATE TABLE t(a, b, c); CREATE INDEX i ON t(a, b DESC, c COLLATE NOCASE DESC); CREATE UNIQUE INDEX j ON t(b)",
    "CREATE TABLE t(a, b COLLATE NOCASE); CREATE INDEX i ON t(b, b COLLATE BINARY); CREATE INDEX \"i 2\" ON t(\"b\")",
    "CREATE TABLE t(a, b); CREATE INDEX i ON t(a) WHERE b IS NOT NULL; CREATE INDEX j ON t(a + b, lower(a))",
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b, a); CREATE INDEX j ON t((b)); CREATE INDEX k ON t(a)",
    "CREATE TABLE t(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID; CREATE INDEX i ON t(a DESC); CREATE INDEX j ON t(a, b, a)",
    "CREATE TABLE t(a, b, PRIMARY KEY(b DESC)) WITHOUT ROWID; CREATE INDEX i ON t(a); CREATE UNIQUE INDEX j ON t(a DESC)",
    "CREATE TABLE x(a, b); CREATE TABLE t AS SELECT a AS \"q q\", b + 1, 'txt' FROM x",
    "CREATE TABLE t(a); ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'z'; ALTER TABLE t ADD COLUMN c NOT NULL DEFAULT 7; \
       ALTER TABLE t RENAME COLUMN a TO \"a b\"; ALTER TABLE t RENAME TO [u]",
    "CREATE TABLE IF NOT EXISTS main.t(a,b); CREATE INDEX IF NOT EXISTS main.i ON t(b)",
    "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY COLLATE RTRIM, b) WITHOUT ROWID",
    "CREATE TABLE t(größe, 名前 TEXT UNIQUE)",
    "CREATE TABLE t(a,b,UNIQUE(a DESC),PRIMARY KEY(a)) WITHOUT ROWID",
    "CREATE TABLE t(a INTEGER, b, UNIQUE(a), PRIMARY KEY(a)) WITHOUT ROWID",
    "CREATE TABLE t(a INTEGER, b, PRIMARY KEY('a'), UNIQUE(\"b\"))",
];

#[test]
fn odd_schemas_are_read_as_the_engine_reads_them() {
    for sql in ODD {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let (tables, _) = compare(&db, sql);
        assert!(tables > 0, "not understood: {sql}: {:?}", stored(&db)[0].3.as_deref().map(table));
    }
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

fn random_schema(rng: &mut Rng) -> String {
    const TYPES: &[&str] = &[
        "",
        "INTEGER",
        "INT",
        "TEXT",
        "REAL",
        "BLOB",
        "ANY",
        "VARCHAR(9)",
        "DOUBLE PRECISION",
        "\"INTEGER\"",
        "key no",
        "CHAR(3) INT",
        "[x y]",
    ];
    const CONSTRAINTS: &[&str] = &[
        "",
        "",
        "",
        "NOT NULL",
        "UNIQUE",
        "PRIMARY KEY",
        "PRIMARY KEY DESC",
        "COLLATE NOCASE",
        "COLLATE rtrim",
        "NULL",
        "DEFAULT 5",
        "DEFAULT (a)",
        "CHECK (1)",
        "UNIQUE ON CONFLICT IGNORE",
        "AS (1)",
        "GENERATED ALWAYS AS (2) STORED",
        "REFERENCES t(a) ON DELETE CASCADE",
        "CONSTRAINT x",
        "/* c */",
        "PRIMARY KEY AUTOINCREMENT",
    ];
    let n = 1 + rng.below(5);
    let names = ["a", "b", "c", "d", "e"];
    let mut items = Vec::new();
    for name in &names[..n] {
        let mut item = format!("{name} {}", rng.pick(TYPES));
        for _ in 0..rng.below(4) {
            item = format!("{item} {}", rng.pick(CONSTRAINTS));
        }
        items.push(item);
    }
    let list = |rng: &mut Rng| {
        let part = |rng: &mut Rng| {
            format!(
                "{}{}{}",
                names[rng.below(n)],
                rng.pick(&["", "", " COLLATE nocase", " COLLATE BINARY"]),
                rng.pick(&["", " DESC", " ASC"])
            )
        };
        (0..1 + rng.below(3)).map(|_| part(rng)).collect::<Vec<_>>().join(",")
    };
    for _ in 0..rng.below(3) {
        let keyword = rng.pick(&["UNIQUE", "PRIMARY KEY", "CONSTRAINT z UNIQUE", "CHECK"]);
        items.push(format!("{keyword} ({})", if keyword == "CHECK" { "a>1".into() } else { list(rng) }));
    }
    let options = rng.pick(&["", "", "WITHOUT ROWID", "STRICT", "WITHOUT ROWID, STRICT"]);
    let mut sql = format!("CREATE TABLE t({}) {options};", items.join(", "));
    for i in 0..rng.below(3) {
        let filter = rng.pick(&["", "", " WHERE a > 3"]);
        sql += &format!("CREATE {} INDEX i{i} ON t({}){filter};", rng.pick(&["", "UNIQUE"]), list(rng));
    }
    sql
}

#[test]
fn random_schemas_are_read_as_the_engine_reads_them() {
    let (mut tables, mut indexes, mut accepted) = (0, 0, 0);
    for seed in 0..6000 {
        let sql = random_schema(&mut Rng(seed));
        let db = Connection::open_in_memory().unwrap();
        if db.execute_batch(&sql).is_err() {
            continue;
        }
        accepted += 1;
        let (t, i) = compare(&db, &format!("seed {seed}: {sql}"));
        tables += t;
        indexes += i;
    }
    assert!(tables > 500 && indexes > 200, "{accepted} accepted, {tables} tables and {indexes} indexes understood");
    assert!(tables * 20 >= accepted * 19, "{accepted} accepted, only {tables} tables understood");
}

#[test]
fn defaults_of_added_columns_have_the_value_the_engine_gives_them() {
    let types = ["", "INTEGER", "TEXT", "REAL", "NUMERIC", "BLOB"];
    let values = [
        "1",
        "-1",
        "'1'",
        "'1.5'",
        "1.5",
        "-1.5e2",
        "'abc'",
        "x'6162'",
        "NULL",
        "true",
        "abc",
        "\"q\"",
        "(3)",
        "('p')",
        "0x10",
        "' 7 '",
        "9223372036854775807",
        "-9223372036854775808",
        "1e400",
        "'1e3'",
        "+2",
        "(-4)",
        "2.0",
    ];
    let mut known = 0;
    for declared in types {
        for value in values {
            let db = Connection::open_in_memory().unwrap();
            db.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (0)").unwrap();
            if db.execute_batch(&format!("ALTER TABLE t ADD COLUMN b {declared} DEFAULT {value}")).is_err() {
                continue;
            }
            let sql = stored(&db)[0].3.clone().unwrap();
            let ours = table(&sql).unwrap().columns[1].default.clone().unwrap();
            let theirs: rusqlite::types::Value = db.query_row("SELECT b FROM t", [], |r| r.get(0)).unwrap();
            use rusqlite::types::Value as V;
            let same = match (&ours, &theirs) {
                (Literal::Expression, _) => continue,
                (Literal::Null, V::Null) => true,
                (Literal::Integer(a), V::Integer(b)) => a == b,
                // In a record the two are one value; a column of affinity REAL gives it back as a real.
                (Literal::Integer(a), V::Real(b)) => *a as f64 == *b && declared == "REAL",
                (Literal::Real(a), V::Real(b)) => a == b,
                (Literal::Real(a), V::Integer(b)) => *a == *b as f64,
                (Literal::Text(a), V::Text(b)) => a == b,
                (Literal::Blob(a), V::Blob(b)) => a == b,
                _ => false,
            };
            known += 1;
            assert!(same, "{declared} DEFAULT {value}: ours {ours:?}, the engine's {theirs:?}");
        }
    }
    assert!(known > 60, "only {known} understood");
}

#[test]
fn affinities_follow_the_rules_of_the_documentation() {
    // datatype3.html, section 3.1.1, and its three warnings.
    for (declared, expected) in [
        ("INT", Affinity::Integer),
        ("UNSIGNED BIG INT", Affinity::Integer),
        ("VARYING CHARACTER(255)", Affinity::Text),
        ("CLOB", Affinity::Text),
        ("BLOB", Affinity::Blob),
        ("", Affinity::Blob),
        ("DOUBLE PRECISION", Affinity::Real),
        ("DECIMAL(10,5)", Affinity::Numeric),
        ("BOOLEAN", Affinity::Numeric),
        ("FLOATING POINT", Affinity::Integer),
        ("STRING", Affinity::Numeric),
        ("CHARINT", Affinity::Integer),
    ] {
        assert_eq!(affinity_of(declared), expected, "{declared}");
    }
}

#[test]
fn cut_and_garbled_texts_end_in_an_answer() {
    let mut rng = Rng(7);
    for sql in ODD {
        for cut in 0..sql.len() {
            if let Some(head) = sql.get(..cut) {
                let _ = table(head);
            }
        }
        for _ in 0..50 {
            let mut bytes = sql.as_bytes().to_vec();
            let at = rng.below(bytes.len());
            bytes[at] = u8::try_from(rng.below(256)).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Ok(t) = table(&text) {
                let _ = index(&text, &t);
            }
        }
    }
    let deep = format!("CREATE TABLE t(a CHECK {}", "(".repeat(100_000));
    assert!(table(&deep).is_err());
}
