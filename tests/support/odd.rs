//! Databases with odd schemas, made by the real engine and a random workload: page sizes, encodings, auto-vacuum,
//! reserved bytes, schema format 1, WITHOUT ROWID, STRICT, generated columns, every kind of index, added columns, wide
//! tables, overflow, virtual tables, views and triggers; folded or with frames waiting in the log.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::rng::Rng;
use super::site::Scratch;

/// A sound database.
pub struct Odd {
    pub db: Vec<u8>,
    pub wal: Option<Vec<u8>>,
    pub about: String,
}

/// A table: how it is made, the columns that an INSERT names, and indexes to choose from.
struct Shape {
    create: &'static str,
    columns: &'static [&'static str],
    indexes: &'static [&'static str],
}

const SHAPES: &[Shape] = &[
    Shape {
        create: "CREATE TABLE t(id INTEGER PRIMARY KEY, sensor TEXT NOT NULL, at REAL NOT NULL, value REAL, meta TEXT)",
        columns: &["sensor", "at", "value", "meta"],
        indexes: &[
            "CREATE INDEX t_i ON t(sensor, at)",
            "CREATE INDEX t_j ON t(at DESC)",
            "CREATE INDEX t_k ON t(value, id)",
        ],
    },
    Shape {
        create: "CREATE TABLE u(a, b COLLATE NOCASE, c COLLATE RTRIM, d BLOB UNIQUE, UNIQUE(b, c, a))",
        columns: &["a", "b", "c", "d"],
        indexes: &[
            "CREATE INDEX u_i ON u(b)",
            "CREATE INDEX u_j ON u(c DESC, b COLLATE BINARY)",
            "CREATE UNIQUE INDEX u_k ON u(a, d, b)",
        ],
    },
    Shape {
        create: "CREATE TABLE v(k TEXT, n INTEGER, x, y NUMERIC, PRIMARY KEY(k DESC, n)) WITHOUT ROWID",
        columns: &["k", "n", "x", "y"],
        indexes: &[
            "CREATE INDEX v_i ON v(x)",
            "CREATE INDEX v_j ON v(y DESC, k)",
            "CREATE UNIQUE INDEX v_k ON v(x, y, n, k)",
        ],
    },
    Shape {
        create: "CREATE TABLE w(a INT PRIMARY KEY, b TEXT, c ANY, d REAL, e BLOB) STRICT",
        columns: &["#a", "'b", "c", ".d", "~e"],
        indexes: &["CREATE INDEX w_i ON w(d)", "CREATE INDEX w_j ON w(c, b)"],
    },
    Shape {
        create: "CREATE TABLE x(a, b INTEGER, c AS (b * 2) STORED, d AS (a || 'z'), CHECK (b IS NULL OR typeof(b) <> 'blob'))",
        columns: &["a", "#b"],
        indexes: &[
            "CREATE INDEX x_i ON x(c)",
            "CREATE INDEX x_j ON x(d)",
            "CREATE INDEX x_k ON x(a) WHERE b > 5",
            "CREATE INDEX x_l ON x(length(a), b)",
        ],
    },
    Shape {
        create: "CREATE TABLE y(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b REAL, c NUMERIC, d TEXT)",
        columns: &["a", "b", "c", "d"],
        indexes: &[
            "CREATE INDEX y_i ON y(a)",
            "CREATE INDEX y_j ON y(b, c)",
            "CREATE INDEX y_k ON y(d COLLATE NOCASE, b DESC)",
        ],
    },
    Shape {
        create: "CREATE TABLE z(a INTEGER PRIMARY KEY, b TEXT COLLATE NOCASE, c ANY, UNIQUE(b DESC)) WITHOUT ROWID, STRICT",
        columns: &["#a", "'b", "c"],
        indexes: &["CREATE INDEX z_i ON z(c DESC, a)"],
    },
    Shape {
        create: "CREATE TABLE \"odd name\"(\"from\" TEXT PRIMARY KEY COLLATE NOCASE, [to] REAL, `x y`) WITHOUT ROWID",
        columns: &["\"from\"", "[to]", "`x y`"],
        indexes: &["CREATE INDEX \"o i\" ON \"odd name\"([to] DESC, `x y`)"],
    },
];

fn text(rng: &mut Rng) -> String {
    let words = [
        "",
        " ",
        "a",
        "A",
        "abc",
        "ABC ",
        "abc  ",
        "temp.warehouse.1",
        "7",
        " 12 ",
        "1e3",
        "é",
        "É",
        "日本",
        "😀x",
        "z\u{7f}",
    ];
    let mut t = String::from(rng.pick(&words));
    match rng.below(12) {
        0 => t += &"long ".repeat(rng.below(400)),
        1 => t += &"x".repeat(rng.below(5000)),
        2..=5 => t += &rng.below(1000).to_string(),
        6 => t.push(' '),
        _ => {}
    }
    t
}

fn number(rng: &mut Rng) -> i64 {
    match rng.below(8) {
        0 => rng.pick(&[i64::MAX, i64::MIN, 0, 1, -1, 127, 128, -129, 32768, 8388607, 1 << 31, 1 << 47, 1 << 53]),
        1 => rng.next() as i64,
        _ => rng.below(2000) as i64 - 500,
    }
}

fn real(rng: &mut Rng) -> f64 {
    match rng.below(6) {
        0 => rng.below(100) as f64,
        1 => rng.pick(&[0.0, -0.0, 1e300, -1e-300, 9.2e18, -9.3e18, 4503599627370496.5, f64::INFINITY]),
        _ => (rng.next() % 1_000_000) as f64 / 64.0 - 500.0,
    }
}

fn blob(rng: &mut Rng) -> Vec<u8> {
    let longest = rng.pick(&[0, 3, 20, 900, 9000]);
    let mut b = vec![0; rng.below(longest + 1)];
    rng.fill(&mut b);
    b
}

/// A value for a column; the first character of its name may ask for a type.
fn value(rng: &mut Rng, column: &str) -> Value {
    match column.as_bytes()[0] {
        b'#' => Value::Integer(number(rng)),
        b'\'' => Value::Text(text(rng)),
        b'.' => Value::Real(real(rng)),
        b'~' => Value::Blob(blob(rng)),
        _ => match rng.below(8) {
            0 => Value::Null,
            1 | 2 => Value::Integer(number(rng)),
            3 => Value::Real(real(rng)),
            4 => Value::Blob(blob(rng)),
            _ => Value::Text(text(rng)),
        },
    }
}

fn plain(column: &str) -> &str {
    column.trim_start_matches(['#', '\'', '.', '~'])
}

/// Reserved bytes per page can only be set through a file control, which has no safe wrapper.
#[allow(unsafe_code)]
fn reserve(db: &Connection, bytes: i32) {
    let mut n = bytes;
    // SAFETY: the connection is open, "main" is a C string, the argument is the int the opcode wants.
    unsafe {
        rusqlite::ffi::sqlite3_file_control(
            db.handle(),
            c"main".as_ptr(),
            rusqlite::ffi::SQLITE_FCNTL_RESERVE_BYTES,
            std::ptr::from_mut(&mut n).cast(),
        );
    }
}

/// Makes one; `rows` bounds the rows inserted per table.
pub fn odd(seed: u64, rows: usize) -> Odd {
    let rng = &mut Rng::new(seed);
    let scratch = Scratch::new("odd");
    let path = scratch.path().join("odd.db");
    let page_size = rng.pick(&[512, 512, 1024, 1024, 4096, 4096, 8192, 65536]);
    let encoding = rng.pick(&["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"]);
    let vacuum = rng.pick(&[0, 0, 1, 2]);
    let db = Connection::open(&path).unwrap();
    let legacy = rng.chance(15);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_LEGACY_FILE_FORMAT, legacy).unwrap();
    let reserved = if rng.chance(25) { rng.pick(&[4, 8, 32]) } else { 0 };
    db.execute_batch(&format!(
        "PRAGMA page_size={page_size}; PRAGMA encoding='{encoding}'; PRAGMA auto_vacuum={vacuum};"
    ))
    .unwrap();
    if reserved > 0 {
        reserve(&db, reserved);
    }
    let wal = rng.chance(50);
    db.execute_batch(if wal {
        "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF"
    } else {
        "PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY"
    })
    .unwrap();
    let mut chosen = Vec::new();
    for shape in SHAPES {
        if rng.chance(40) {
            db.execute_batch(shape.create).unwrap();
            chosen.push(shape);
        }
    }
    if chosen.is_empty() {
        db.execute_batch(SHAPES[0].create).unwrap();
        chosen.push(&SHAPES[0]);
    }
    let wide = rng.chance(15);
    if wide {
        let columns: Vec<String> =
            (0..300).map(|i| format!("c{i}{}", if i % 7 == 0 { " INTEGER" } else { "" })).collect();
        db.execute_batch(&format!(
            "CREATE TABLE wide({}); CREATE INDEX wide_i ON wide(c299, c3, c100 DESC)",
            columns.join(",")
        ))
        .unwrap();
    }
    if rng.chance(20) {
        let first = plain(chosen[0].columns.first().unwrap_or(&"a")).to_string();
        let table = name(chosen[0]);
        db.execute_batch(&format!(
            "CREATE VIEW view_1 AS SELECT {first} FROM {table}; \
             CREATE TRIGGER trigger_1 AFTER DELETE ON {table} BEGIN SELECT 1; END; CREATE VIEW \"v 2\"(q) AS SELECT 1"
        ))
        .unwrap();
    }
    let fts = rng.chance(10) && db.execute_batch("CREATE VIRTUAL TABLE words USING fts5(body)").is_ok();
    let mut early: Vec<&str> = Vec::new();
    let mut late: Vec<&str> = Vec::new();
    for shape in &chosen {
        for index in shape.indexes {
            match rng.below(3) {
                0 => early.push(index),
                1 => late.push(index),
                _ => {}
            }
        }
    }
    for index in early {
        db.execute_batch(index).unwrap();
    }
    db.execute_batch("BEGIN").unwrap();
    let total = 1 + rng.below(rows);
    for n in 0..total {
        for shape in &chosen {
            insert(&db, rng, shape);
        }
        if wide && n % 8 == 0 {
            let marks: Vec<String> = (0..300).map(|_| "?".to_string()).collect();
            let values: Vec<Value> =
                (0..300).map(|_| if rng.chance(60) { Value::Null } else { value(rng, "a") }).collect();
            let _ = db.execute(&format!("INSERT INTO wide VALUES ({})", marks.join(",")), params_from_iter(values));
        }
        if fts {
            db.execute("INSERT INTO words VALUES (?1)", [text(rng)]).unwrap();
        }
        if rng.chance(3) {
            commit(&db);
            db.execute_batch("BEGIN").unwrap();
        }
        if rng.chance(8) {
            change(&db, rng, &chosen);
        }
    }
    commit(&db);
    for index in late {
        // A unique index may not fit what is there by now.
        let _ = db.execute_batch(index);
    }
    if rng.chance(40) {
        let table = name(chosen[rng.below(chosen.len())]).to_string();
        let column = rng.pick(&[
            "added",
            "added DEFAULT 'dflt'",
            "added INTEGER NOT NULL DEFAULT 7",
            "added REAL DEFAULT 3",
            "added TEXT DEFAULT 5",
            "added DEFAULT x'0102'",
            "added REAL DEFAULT 2.5",
        ]);
        if db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column}")).is_ok() {
            db.execute_batch(&format!("CREATE INDEX added_i ON {table}(added)")).unwrap();
            for _ in 0..rng.below(30) {
                for shape in &chosen {
                    insert(&db, rng, shape);
                }
            }
        }
    }
    if rng.chance(25) {
        for shape in &chosen {
            let key = if shape.create.contains("WITHOUT ROWID") { plain(shape.columns[0]) } else { "rowid" };
            let _ = db.execute_batch(&format!("DELETE FROM {} WHERE length(quote({key})) % 3 <> 0", name(shape)));
        }
    }
    match rng.below(8) {
        0 => db.execute_batch("VACUUM").unwrap(),
        1 if vacuum == 2 => {
            let mut statement = db.prepare("PRAGMA incremental_vacuum(5)").unwrap();
            let mut rows = statement.query([]).unwrap();
            while rows.next().unwrap().is_some() {}
        }
        2 => {
            let _ = db.execute_batch(&format!("DROP TABLE {}", name(chosen[0])));
        }
        3 => drop(db.execute_batch("REINDEX")),
        4 => drop(db.execute_batch("ANALYZE")),
        _ => {}
    }
    for _ in 0..rng.below(40) {
        change(&db, rng, &chosen);
    }
    if wal && rng.chance(50) {
        let _ = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| r.get::<_, i64>(0));
        for _ in 0..rng.below(20) {
            change(&db, rng, &chosen);
        }
    }
    let bytes = std::fs::read(&path).unwrap();
    let log = std::fs::read(Path::new(&format!("{}-wal", path.display()))).ok().filter(|w| !w.is_empty());
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(verdict, "ok", "seed {seed} did not make a sound database");
    let names: Vec<&str> = chosen.iter().map(|s| name(s)).collect();
    let about = format!(
        "seed {seed}: {page_size} {encoding} auto_vacuum={vacuum} reserved={reserved} legacy={legacy} wal={} wide={wide} {names:?}",
        log.is_some()
    );
    Odd { db: bytes, wal: log, about }
}

/// Running out of rowids rolls the transaction back.
fn commit(db: &Connection) {
    if !db.is_autocommit() {
        db.execute_batch("COMMIT").unwrap();
    }
}

fn name(shape: &Shape) -> &'static str {
    let rest = shape.create.strip_prefix("CREATE TABLE ").unwrap();
    &rest[..rest.find('(').unwrap()]
}

fn insert(db: &Connection, rng: &mut Rng, shape: &Shape) {
    if shape.columns.is_empty() {
        return;
    }
    let mut columns: Vec<&str> = shape.columns.iter().map(|c| plain(c)).collect();
    let mut values: Vec<Value> = shape.columns.iter().map(|c| value(rng, c)).collect();
    if !shape.create.contains("WITHOUT ROWID") && rng.chance(10) {
        columns.push("rowid");
        // Behind the highest rowid there is, the engine draws the next one by chance: far below it, or the seed would not
        // make the same database again.
        values.push(Value::Integer(number(rng).min(i64::MAX - (1 << 40))));
    }
    let marks = vec!["?"; columns.len()].join(",");
    let sql = format!("INSERT OR IGNORE INTO {}({}) VALUES ({marks})", name(shape), columns.join(","));
    // Constraints refuse some of what is drawn, and the table may have been dropped.
    let _ = db.execute(&sql, params_from_iter(values));
}

fn change(db: &Connection, rng: &mut Rng, chosen: &[&Shape]) {
    let shape = chosen[rng.below(chosen.len())];
    let Some(column) = shape.columns.first().map(|_| shape.columns[rng.below(shape.columns.len())]) else { return };
    let table = name(shape);
    let key = if shape.create.contains("WITHOUT ROWID") { plain(shape.columns[0]) } else { "rowid" };
    // Not by random() of SQL: a seed must make the same database again.
    let pick = format!("(SELECT {key} FROM {table} LIMIT 1 OFFSET {})", rng.below(60));
    let _ = match rng.below(3) {
        0 => db.execute(&format!("DELETE FROM {table} WHERE {key} = {pick}"), []),
        1 => db.execute(
            &format!("UPDATE OR IGNORE {table} SET {} = ?1 WHERE {key} = {pick}", plain(column)),
            [value(rng, column)],
        ),
        _ => {
            insert(db, rng, shape);
            Ok(0)
        }
    };
}
