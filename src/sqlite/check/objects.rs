//! The schema as a list of b-trees, each with what its records must look like and which sums it takes part in.
//!
//! What is not understood keeps its place in the list (its pages are owned and its structure is checked) and carries the
//! reason for which the engine must look at it.

use std::collections::BTreeMap;

use super::{Coverage, ObjectKind, SchemaEntry};
use crate::sqlite::collate::{Collation, KeyOrder};
use crate::sqlite::schema::{
    self, Affinity, Generated, IndexDef, KeyPart, KeySource, Literal, NotUnderstood, Origin, StandardType, TableDef,
};

/// The kinds of value as bits, numbered as the engine's own type check numbers them.
pub(super) const INTEGER: u8 = 0x01;
pub(super) const REAL: u8 = 0x02;
pub(super) const TEXT: u8 = 0x04;
pub(super) const BLOB: u8 = 0x08;
pub(super) const NULL: u8 = 0x10;

/// The schema of `sqlite_schema` itself (fileformat2.html section 2.6).
const SCHEMA_TABLE: &str = "CREATE TABLE sqlite_schema(type text,name text,tbl_name text,rootpage int,sql text)";

/// One b-tree.
#[derive(Debug)]
pub(super) struct TreeSpec {
    pub name: String,
    pub kind: ObjectKind,
    pub root: u32,
    /// True for rowid tables: keys are rowids.
    pub by_rowid: bool,
    /// How its records are judged as rows.
    pub rows: Option<Rows>,
    /// How its records are judged as keys.
    pub keys: Option<Keys>,
    /// The tree of its table, for an index.
    pub table: Option<usize>,
    /// Position of its entry in the schema, where it has one.
    pub entry: Option<usize>,
}

/// Rows of a table.
#[derive(Debug)]
pub(super) struct Rows {
    /// Columns with something to check.
    pub columns: Vec<ColumnCheck>,
    /// Columns stored.
    pub stored: usize,
    /// The entries each row implies.
    pub entries: Vec<EntrySpec>,
    /// Stored columns whose values are looked at: the first so many.
    pub reach: usize,
}

/// What is checked of a stored column.
#[derive(Debug)]
pub(super) struct ColumnCheck {
    pub name: String,
    pub at: usize,
    pub not_null: bool,
    /// Kinds of value allowed.
    pub allowed: u8,
    /// Text that reads as a number does not belong here: affinity would have made it one.
    pub no_numeric_text: bool,
    /// What a record too short for it has here, as a kind; 0 when only the engine knows.
    pub missing: u8,
}

/// How a row gives an entry of one index.
#[derive(Debug)]
pub(super) struct EntrySpec {
    /// The tree of the index.
    pub tree: usize,
    pub parts: Vec<PartFrom>,
}

/// Where a part of an entry comes from.
#[derive(Debug)]
pub(super) enum PartFrom {
    Rowid,
    Stored { at: usize, missing: Literal },
}

/// Keys of an index or of a WITHOUT ROWID table.
#[derive(Debug)]
pub(super) struct Keys {
    /// Order of the parts that make an entry distinct; `None` when a collation or expression is not known here.
    pub order: Option<Vec<KeyOrder>>,
    /// Where the primary key stands in a record, of a WITHOUT ROWID table and its indexes; empty where rows have rowids.
    pub primary: Vec<usize>,
    /// Values in a record; a row may have fewer, an index entry may not.
    pub fields: usize,
    /// The first so many parts may not repeat unless one of them is NULL; 0: not unique.
    pub unique: usize,
    /// True when the last value must be an integer, the rowid.
    pub rowid_last: bool,
    /// True when the sums over table and index must agree.
    pub summed: bool,
    /// True when the index has one entry for each row.
    pub counted: bool,
}

/// The list of trees, and who looks at what.
pub(super) fn plan(entries: &[SchemaEntry], schema_format: u32) -> (Vec<TreeSpec>, Coverage) {
    let mut plan = Plan { trees: Vec::new(), coverage: Coverage::default(), format: schema_format };
    let mut tables: BTreeMap<String, (usize, Result<TableDef, NotUnderstood>)> = BTreeMap::new();
    let own = schema::table(SCHEMA_TABLE);
    plan.table("sqlite_schema", 1, None, &own, SCHEMA_TABLE);
    for (i, entry) in entries.iter().enumerate().filter(|(_, e)| e.kind == "table") {
        if is_virtual(&entry.sql) {
            plan.coverage.delegate(&entry.name, Some(&entry.name), "a virtual table");
            continue;
        }
        let definition = schema::table(&entry.sql).and_then(|t| {
            let same = t.name.eq_ignore_ascii_case(&entry.name);
            if same { Ok(t) } else { Err(NotUnderstood(format!("its text is about {}", t.name))) }
        });
        let tree = plan.table(&entry.name, entry.root, Some(i), &definition, &entry.sql);
        tables.entry(entry.name.to_ascii_lowercase()).or_insert((tree, definition));
    }
    for (i, entry) in entries.iter().enumerate().filter(|(_, e)| e.kind == "index") {
        let table = tables.get(&entry.table.to_ascii_lowercase());
        plan.index(entry, i, table.map(|(tree, t)| (*tree, t)));
    }
    if !entries.is_empty() {
        plan.coverage.delegate("sqlite_schema", None, "the grammar of the texts of the schema");
    }
    (plan.trees, plan.coverage)
}

pub(super) fn is_virtual(sql: &str) -> bool {
    let mut cursor = schema::Cursor::new(sql);
    cursor.eat("CREATE") && cursor.eat("VIRTUAL")
}

struct Plan {
    trees: Vec<TreeSpec>,
    coverage: Coverage,
    format: u32,
}

impl Plan {
    fn table(
        &mut self,
        name: &str,
        root: u32,
        entry: Option<usize>,
        definition: &Result<TableDef, NotUnderstood>,
        sql: &str,
    ) -> usize {
        let kind = if root == 1 { ObjectKind::Schema } else { ObjectKind::Table };
        let mut spec =
            TreeSpec { name: name.to_string(), kind, root, by_rowid: true, rows: None, keys: None, table: None, entry };
        match definition {
            Err(NotUnderstood(why)) => {
                self.coverage.delegate(name, Some(name), why);
                // Without its definition the pages of a WITHOUT ROWID table would look foreign.
                let tail = sql.rsplit(')').next().unwrap_or("").to_ascii_uppercase();
                spec.by_rowid = !tail.contains("WITHOUT");
            }
            Ok(t) => {
                spec.by_rowid = !t.without_rowid;
                spec.rows = Some(rows(t));
                if t.without_rowid {
                    let order = order_of(&t.primary_key, self.format);
                    if order.is_none() {
                        self.coverage.delegate(name, Some(name), "a collation that is not built in");
                    }
                    let fields = t.stored_columns().len();
                    let unique = t.primary_key.len();
                    let primary = (0..unique).collect();
                    spec.keys =
                        Some(Keys { order, primary, fields, unique, rowid_last: false, summed: false, counted: false });
                }
                self.reasons(name, t);
                self.coverage.natively.push(name.to_string());
            }
        }
        self.trees.push(spec);
        self.trees.len() - 1
    }

    /// What of an understood table is left to the engine.
    fn reasons(&mut self, name: &str, t: &TableDef) {
        if t.has_check {
            self.coverage.delegate(name, Some(name), "CHECK constraints");
        }
        let virtual_checked = |c: &schema::ColumnDef| {
            c.generated == Generated::Virtual
                && (c.not_null || allowed(c, t.strict).0 != ALL || c.affinity != Affinity::Blob)
        };
        if t.columns.iter().any(virtual_checked) {
            self.coverage.delegate(name, Some(name), "generated columns");
        }
    }

    fn index(&mut self, entry: &SchemaEntry, at: usize, table: Option<(usize, &Result<TableDef, NotUnderstood>)>) {
        let mut spec = TreeSpec {
            name: entry.name.clone(),
            kind: ObjectKind::Index,
            root: entry.root,
            by_rowid: false,
            rows: None,
            keys: None,
            table: table.map(|(tree, _)| tree),
            entry: Some(at),
        };
        let tree = self.trees.len();
        let found = match table {
            None => Err(NotUnderstood(format!("its table {} is not in the schema", entry.table))),
            Some((_, Err(_))) => Err(NotUnderstood("its table's text is not understood".to_string())),
            Some((home, Ok(t))) => {
                let index = match entry.sql.is_empty() {
                    // The primary key of a WITHOUT ROWID table is the table and has no entry of its own.
                    true => t
                        .auto_index(&entry.name)
                        .filter(|i| !(t.without_rowid && i.origin == Origin::PrimaryKey))
                        .cloned()
                        .ok_or_else(|| NotUnderstood("no constraint of its table implies it".to_string())),
                    false => schema::index(&entry.sql, t),
                };
                index.map(|i| (home, t, i))
            }
        };
        match found {
            Err(NotUnderstood(why)) => self.coverage.delegate(&entry.name, Some(&entry.table), &why),
            Ok((home, t, index)) => {
                let layout = index.layout(t, self.format);
                let (keys, parts, why) = keys(&index, &layout, t, self.format);
                match why {
                    Some(why) => self.coverage.delegate(&entry.name, Some(&entry.table), why),
                    None => self.coverage.natively.push(entry.name.clone()),
                }
                if let Some(parts) = parts
                    && let Some(rows) = self.trees.get_mut(home).and_then(|s| s.rows.as_mut())
                {
                    let reach = parts.iter().map(|p| if let PartFrom::Stored { at, .. } = p { at + 1 } else { 0 });
                    rows.reach = rows.reach.max(reach.max().unwrap_or(0));
                    rows.entries.push(EntrySpec { tree, parts });
                }
                spec.keys = Some(keys);
            }
        }
        self.trees.push(spec);
    }
}

fn order_of(parts: &[KeyPart], format: u32) -> Option<Vec<KeyOrder>> {
    let one = |p: &KeyPart| {
        let collation = Collation::named(&p.collation).filter(|_| p.source != KeySource::Expression)?;
        Some(KeyOrder { collation, desc: p.desc && format >= 4 })
    };
    parts.iter().map(one).collect()
}

/// Keys of an index, how rows give its entries (`None` when only SQL can say), and why the engine must look too.
fn keys(
    index: &IndexDef,
    layout: &[KeyPart],
    t: &TableDef,
    format: u32,
) -> (Keys, Option<Vec<PartFrom>>, Option<&'static str>) {
    let order = order_of(layout, format);
    // The first place of each column in the record.
    let mut places = vec![None; t.columns.len()];
    for (at, column) in t.stored_columns().into_iter().enumerate() {
        if let Some(place @ None) = places.get_mut(column) {
            *place = Some(at);
        }
    }
    let part = |p: &KeyPart| match p.source {
        KeySource::Rowid => Some(PartFrom::Rowid),
        KeySource::Column(c) if t.rowid_alias == Some(c) => Some(PartFrom::Rowid),
        KeySource::Column(c) => {
            let at = places.get(c).copied().flatten()?;
            let missing = t.columns.get(c)?.default.clone().unwrap_or(Literal::Null);
            Some(PartFrom::Stored { at, missing })
        }
        KeySource::Expression => None,
    };
    let parts: Option<Vec<PartFrom>> = if index.partial { None } else { layout.iter().map(part).collect() };
    let why = if index.partial {
        Some("a partial index")
    } else if layout.iter().any(|p| p.source == KeySource::Expression) {
        Some("an index on an expression")
    } else if parts.is_none() {
        Some("an index on a generated column")
    } else if order.is_none() {
        Some("a collation that is not built in")
    } else {
        None
    };
    let place = |p: &KeyPart| layout.iter().position(|l| l.source == p.source);
    let primary = t.primary_key.iter().filter(|_| t.without_rowid).filter_map(place).collect();
    let keys = Keys {
        order,
        primary,
        fields: layout.len(),
        unique: if index.unique { index.parts.len() } else { 0 },
        rowid_last: !t.without_rowid,
        summed: parts.is_some(),
        counted: !index.partial,
    };
    (keys, parts, why)
}

const ALL: u8 = INTEGER | REAL | TEXT | BLOB | NULL;

/// Kinds of value a column may hold, and whether text in it may not read as a number.
fn allowed(c: &schema::ColumnDef, strict: bool) -> (u8, bool) {
    if strict {
        let mask = match c.standard {
            StandardType::Any | StandardType::Other => ALL,
            StandardType::Blob => BLOB | NULL,
            StandardType::Int | StandardType::Integer => INTEGER | NULL,
            StandardType::Real => INTEGER | REAL | NULL,
            StandardType::Text => TEXT | NULL,
        };
        return (mask, false);
    }
    match c.affinity {
        Affinity::Blob => (ALL, false),
        Affinity::Text => (NULL | TEXT | BLOB, false),
        Affinity::Numeric | Affinity::Integer | Affinity::Real => (ALL, true),
    }
}

fn rows(t: &TableDef) -> Rows {
    let stored = t.stored_columns();
    let mut columns: Vec<ColumnCheck> = Vec::new();
    for (at, c) in stored.iter().enumerate() {
        let Some(column) = t.columns.get(*c).filter(|_| t.rowid_alias != Some(*c)) else { continue };
        let (mask, no_numeric_text) = allowed(column, t.strict);
        if mask == ALL && !no_numeric_text && !column.not_null {
            continue;
        }
        let missing = match column.default.as_ref().unwrap_or(&Literal::Null) {
            Literal::Null => NULL,
            Literal::Integer(_) => INTEGER,
            Literal::Real(_) => REAL,
            Literal::Text(_) => TEXT,
            Literal::Blob(_) => BLOB,
            Literal::Expression => 0,
        };
        let name = column.name.clone();
        columns.push(ColumnCheck { name, at, not_null: column.not_null, allowed: mask, no_numeric_text, missing });
    }
    Rows { columns, stored: stored.len(), entries: Vec::new(), reach: 0 }
}
