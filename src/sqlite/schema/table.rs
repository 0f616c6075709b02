//! CREATE TABLE (sqlite.org/lang_createtable.html): columns, constraints, options, and what they imply.

use std::collections::BTreeMap;

use super::index::{RawPart, key_list, name_of, object_name, part};
use super::literal::{default, skip_group};
use super::token::{Cursor, Kind, Token, unquote};
use super::{
    Affinity, BINARY, ColumnDef, Generated, IndexDef, KeyPart, KeySource, MAX_COLUMNS, MAX_TEXT, NotUnderstood, Origin,
    StandardType, TableDef, affinity_of, same_column,
};

/// Words that end a declared type: SQLite's reserved words that can follow a column name. All others are part of it.
const AFTER_TYPE: [&str; 11] =
    ["CONSTRAINT", "DEFAULT", "NULL", "NOT", "PRIMARY", "UNIQUE", "CHECK", "REFERENCES", "COLLATE", "AS", "DEFERRABLE"];
/// Words that start a constraint of the table; reserved, so no column has one of them as a bare name.
const TABLE_CONSTRAINT: [&str; 5] = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"];

/// Most indexes that constraints of one table may imply here; each new one is compared with those before it.
const MAX_INDEXES: usize = 1000;

/// Reads a CREATE TABLE statement as kept in `sqlite_schema`.
pub fn table(sql: &str) -> Result<TableDef, NotUnderstood> {
    if sql.len() > MAX_TEXT {
        return Err(NotUnderstood::new("its text is too long"));
    }
    let mut cursor = Cursor::new(sql);
    if !cursor.eat("CREATE") {
        return Err(NotUnderstood::new("it does not start with CREATE"));
    }
    let _ = cursor.eat("TEMP") || cursor.eat("TEMPORARY");
    if cursor.eat("VIRTUAL") {
        return Err(NotUnderstood::new("it is a virtual table"));
    }
    if !cursor.eat("TABLE") {
        return Err(NotUnderstood::new("it is not a CREATE TABLE"));
    }
    let name = object_name(&mut cursor)?;
    if !cursor.eat_punct(b'(') {
        return Err(NotUnderstood::new("it has no column list"));
    }
    let table = TableDef {
        name,
        columns: Vec::new(),
        without_rowid: false,
        strict: false,
        rowid_alias: None,
        autoincrement: false,
        primary_key: Vec::new(),
        has_check: false,
        auto_indexes: Vec::new(),
        names: BTreeMap::new(),
    };
    let mut reader = Reader { cursor, table, in_key: Vec::new(), alias_desc: false, has_key: false };
    reader.body()?;
    reader.options()?;
    reader.finish()
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    table: TableDef,
    /// For each column: part of the primary key.
    in_key: Vec<bool>,
    /// Direction of an INTEGER PRIMARY KEY, which only counts when the table turns out to be WITHOUT ROWID.
    alias_desc: bool,
    has_key: bool,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Token<'a>, NotUnderstood> {
        self.cursor.take().ok_or_else(|| NotUnderstood::new("the text ends in the middle"))
    }

    /// Columns, then constraints, up to and with the closing parenthesis.
    fn body(&mut self) -> Result<(), NotUnderstood> {
        loop {
            let token = self.cursor.peek().ok_or_else(|| NotUnderstood::new("its column list is never closed"))?;
            if token.is_punct(b')') {
                self.cursor.take();
                return if self.table.columns.is_empty() {
                    Err(NotUnderstood::new("it has no column"))
                } else {
                    Ok(())
                };
            }
            if token.is_punct(b',') {
                self.cursor.take();
            } else if TABLE_CONSTRAINT.iter().any(|w| token.is(w)) {
                self.table_constraint()?;
            } else {
                self.column()?;
            }
        }
    }

    fn column(&mut self) -> Result<(), NotUnderstood> {
        let first = self.next()?;
        let name = name_of(Some(first))?;
        if self.table.column(&name).is_some() || self.table.columns.len() >= MAX_COLUMNS {
            return Err(NotUnderstood::new(format!("its column {name} stands twice, or there are too many")));
        }
        let declared = self.declared()?;
        let standard = standard_type(&declared);
        let affinity = match standard {
            StandardType::Any => Affinity::Numeric,
            _ => affinity_of(&declared),
        };
        self.table.names.insert(name.to_ascii_lowercase(), self.table.columns.len());
        self.table.columns.push(ColumnDef {
            name,
            declared,
            standard,
            affinity,
            not_null: false,
            collation: BINARY.to_string(),
            default: None,
            generated: Generated::No,
        });
        self.in_key.push(false);
        while let Some(token) = self.cursor.peek() {
            // The comma between constraints of the table may be left out.
            if token.is_punct(b',') || token.is_punct(b')') || token.is("FOREIGN") {
                return Ok(());
            }
            self.cursor.take();
            self.column_constraint(token)?;
        }
        Ok(())
    }

    /// The declared type: the text from its first word to its last, quotes around the whole taken off.
    fn declared(&mut self) -> Result<String, NotUnderstood> {
        let mut span: Option<(usize, usize)> = None;
        while let Some(token) = self.cursor.peek() {
            let word = matches!(token.kind, Kind::Word | Kind::Quoted | Kind::Text);
            if !word || AFTER_TYPE.iter().any(|w| token.is(w)) || self.generated_follows() {
                break;
            }
            self.cursor.take();
            span = Some((span.map_or(token.start, |s| s.0), token.end()));
        }
        let Some((from, mut to)) = span else { return Ok(String::new()) };
        if self.cursor.eat_punct(b'(') {
            // Up to two signed numbers; anything else that balances is taken as well.
            loop {
                let token = self.next()?;
                if token.is_punct(b'(') {
                    return Err(NotUnderstood::new("a declared type with nested parentheses"));
                }
                if token.is_punct(b')') {
                    to = token.end();
                    break;
                }
            }
        } else if self.generated_follows() {
            // SQLite takes these two words for a part of the type and cuts them off again, blanks with them, no comments.
            let (generated, always) = self.two_tokens();
            if !self.cursor.between(generated.end(), always.start).bytes().all(|b| b.is_ascii_whitespace()) {
                return Err(NotUnderstood::new("a comment inside GENERATED ALWAYS"));
            }
            to = from + self.cursor.between(from, generated.start).trim_ascii_end().len();
        }
        let text = self.cursor.between(from, to);
        let one_token = Cursor::new(text).peek().is_some_and(|t| t.text.len() == text.len());
        let quoted = matches!(text.as_bytes().first(), Some(b'"' | b'[' | b'`' | b'\''));
        match (quoted, one_token) {
            (false, _) => Ok(text.to_string()),
            (true, true) => Ok(unquote(text)),
            // SQLite cuts such a type at the first closing quote, after having looked for standard names.
            (true, false) => Err(NotUnderstood::new("a declared type that starts with a quoted word")),
        }
    }

    fn two_tokens(&self) -> (Token<'a>, Token<'a>) {
        let mut ahead = self.cursor;
        let none = Token { kind: Kind::Word, text: "", start: 0 };
        (ahead.take().unwrap_or(none), ahead.take().unwrap_or(none))
    }

    fn generated_follows(&self) -> bool {
        let mut ahead = self.cursor;
        ahead.eat("GENERATED") && ahead.eat("ALWAYS") && ahead.eat("AS")
    }

    fn column_constraint(&mut self, token: Token<'a>) -> Result<(), NotUnderstood> {
        let at = self.table.columns.len().saturating_sub(1);
        let affinity = self.table.columns.get(at).map_or(Affinity::Blob, |c| c.affinity);
        if token.is("CONSTRAINT") {
            name_of(self.cursor.take())?;
        } else if token.is("DEFAULT") {
            let value = default(&mut self.cursor, affinity)?;
            self.edit(at, |c| c.default = Some(value));
        } else if token.is("NULL") {
            self.conflict()?;
        } else if token.is("NOT") {
            if self.cursor.eat("DEFERRABLE") {
                return self.initially();
            }
            if !self.cursor.eat("NULL") {
                return Err(NotUnderstood::new("a NOT without NULL"));
            }
            self.conflict()?;
            self.edit(at, |c| c.not_null = true);
        } else if token.is("PRIMARY") {
            if !self.cursor.eat("KEY") {
                return Err(NotUnderstood::new("a PRIMARY without KEY"));
            }
            let desc = !self.cursor.eat("ASC") && self.cursor.eat("DESC");
            self.conflict()?;
            let autoincrement = self.cursor.eat("AUTOINCREMENT");
            let name = self.table.columns.get(at).map(|c| c.name.clone());
            // Written at the column, DESC makes an ordinary key; written in a list it does not: a bug kept for good.
            self.primary_key(&[RawPart { name, collation: None, desc, autoincrement }], desc)?;
        } else if token.is("UNIQUE") {
            self.conflict()?;
            let name = self.table.columns.get(at).map(|c| c.name.clone());
            self.add_index(&[RawPart { name, collation: None, desc: false, autoincrement: false }], Origin::Unique)?;
        } else if token.is("CHECK") {
            self.group()?;
            self.conflict()?;
            self.table.has_check = true;
        } else if token.is("REFERENCES") {
            self.references()?;
        } else if token.is("DEFERRABLE") {
            self.initially()?;
        } else if token.is("COLLATE") {
            let collation = name_of(self.cursor.take())?;
            // An index that a constraint before this word has made takes the collation too.
            for index in &mut self.table.auto_indexes {
                if let Some(first) = index.parts.first_mut().filter(|p| p.source == KeySource::Column(at)) {
                    first.collation.clone_from(&collation);
                }
            }
            self.edit(at, |c| c.collation = collation);
        } else if token.is("GENERATED") || token.is("AS") {
            if token.is("GENERATED") && !(self.cursor.eat("ALWAYS") && self.cursor.eat("AS")) {
                return Err(NotUnderstood::new("a GENERATED without ALWAYS AS"));
            }
            self.group()?;
            let stored = self.cursor.eat("STORED");
            let _ = stored || self.cursor.eat("VIRTUAL");
            self.edit(at, |c| c.generated = if stored { Generated::Stored } else { Generated::Virtual });
        } else {
            return Err(NotUnderstood::new(format!("{} where a constraint was expected", token.text)));
        }
        Ok(())
    }

    fn table_constraint(&mut self) -> Result<(), NotUnderstood> {
        let token = self.next()?;
        if token.is("CONSTRAINT") {
            name_of(self.cursor.take())?;
        } else if token.is("PRIMARY") {
            if !(self.cursor.eat("KEY") && self.cursor.eat_punct(b'(')) {
                return Err(NotUnderstood::new("a PRIMARY KEY without a list"));
            }
            let parts = key_list(&mut self.cursor)?;
            self.conflict()?;
            self.primary_key(&parts, false)?;
        } else if token.is("UNIQUE") {
            if !self.cursor.eat_punct(b'(') {
                return Err(NotUnderstood::new("a UNIQUE without a list"));
            }
            let parts = key_list(&mut self.cursor)?;
            self.conflict()?;
            self.add_index(&parts, Origin::Unique)?;
        } else if token.is("CHECK") {
            self.group()?;
            self.conflict()?;
            self.table.has_check = true;
        } else if token.is("FOREIGN") {
            if !self.cursor.eat("KEY") {
                return Err(NotUnderstood::new("a FOREIGN without KEY"));
            }
            self.group()?;
            if !self.cursor.eat("REFERENCES") {
                return Err(NotUnderstood::new("a FOREIGN KEY without REFERENCES"));
            }
            self.references()?;
        }
        Ok(())
    }

    fn edit(&mut self, column: usize, change: impl FnOnce(&mut ColumnDef)) {
        if let Some(c) = self.table.columns.get_mut(column) {
            change(c);
        }
    }

    /// A parenthesised expression, skipped.
    fn group(&mut self) -> Result<(), NotUnderstood> {
        if self.cursor.eat_punct(b'(') { skip_group(&mut self.cursor) } else { Err(NotUnderstood::new("a missing (")) }
    }

    /// `ON CONFLICT word`, where it stands.
    fn conflict(&mut self) -> Result<(), NotUnderstood> {
        let mut ahead = self.cursor;
        if ahead.eat("ON") && ahead.eat("CONFLICT") {
            name_of(ahead.take())?;
            self.cursor = ahead;
        }
        Ok(())
    }

    /// Behind REFERENCES: table, columns, actions.
    fn references(&mut self) -> Result<(), NotUnderstood> {
        name_of(self.cursor.take())?;
        if self.cursor.eat_punct(b'(') {
            skip_group(&mut self.cursor)?;
        }
        loop {
            if self.cursor.eat("ON") {
                name_of(self.cursor.take())?;
                // SET NULL, SET DEFAULT, NO ACTION are two words, CASCADE and RESTRICT one.
                let _ = self.cursor.eat("SET") || self.cursor.eat("NO");
                name_of(self.cursor.take())?;
            } else if self.cursor.eat("MATCH") {
                name_of(self.cursor.take())?;
            } else if self.cursor.eat("DEFERRABLE") {
                self.initially()?;
            } else {
                let mut ahead = self.cursor;
                if !(ahead.eat("NOT") && ahead.eat("DEFERRABLE")) {
                    return Ok(());
                }
                self.cursor = ahead;
                self.initially()?;
            }
        }
    }

    fn initially(&mut self) -> Result<(), NotUnderstood> {
        if self.cursor.eat("INITIALLY") { name_of(self.cursor.take()).map(drop) } else { Ok(()) }
    }

    fn primary_key(&mut self, list: &[RawPart], desc_at_column: bool) -> Result<(), NotUnderstood> {
        if self.has_key {
            return Err(NotUnderstood::new("two primary keys"));
        }
        self.has_key = true;
        let parts = self.columns_of(list)?;
        for p in &parts {
            if let KeySource::Column(c) = p.source
                && let Some(k) = self.in_key.get_mut(c)
            {
                *k = true;
            }
        }
        let alias = match parts.as_slice() {
            [KeyPart { source: KeySource::Column(c), .. }] if !desc_at_column => {
                self.table.columns.get(*c).filter(|c| c.standard == StandardType::Integer).map(|_| *c)
            }
            _ => None,
        };
        if let Some(c) = alias {
            self.table.rowid_alias = Some(c);
            self.alias_desc = list.first().is_some_and(|p| p.desc);
            self.table.autoincrement = list.iter().any(|p| p.autoincrement);
            return Ok(());
        }
        self.add_index(list, Origin::PrimaryKey)
    }

    fn columns_of(&self, list: &[RawPart]) -> Result<Vec<KeyPart>, NotUnderstood> {
        let parts: Vec<KeyPart> = list.iter().map(|raw| part(raw, &self.table)).collect();
        if parts.iter().any(|p| p.source == KeySource::Expression) {
            return Err(NotUnderstood::new("a constraint on something that is no column"));
        }
        Ok(parts)
    }

    /// An index implied by a constraint; one that is there already is not made twice, whatever its direction.
    fn add_index(&mut self, list: &[RawPart], origin: Origin) -> Result<(), NotUnderstood> {
        let parts = self.columns_of(list)?;
        let same = |a: &KeyPart, b: &KeyPart| a.source == b.source && a.collation.eq_ignore_ascii_case(&b.collation);
        let twin = self
            .table
            .auto_indexes
            .iter_mut()
            .find(|i| i.parts.len() == parts.len() && i.parts.iter().zip(&parts).all(|(a, b)| same(a, b)));
        if let Some(twin) = twin {
            if origin == Origin::PrimaryKey {
                twin.origin = origin;
            }
            return Ok(());
        }
        if self.table.auto_indexes.len() >= MAX_INDEXES {
            return Err(NotUnderstood::new("too many constraints"));
        }
        let name = format!("sqlite_autoindex_{}_{}", self.table.name, self.table.auto_indexes.len() + 1);
        let table = self.table.name.clone();
        self.table.auto_indexes.push(IndexDef { name, table, unique: true, parts, partial: false, origin });
        Ok(())
    }

    /// Behind the closing parenthesis.
    fn options(&mut self) -> Result<(), NotUnderstood> {
        loop {
            if self.cursor.eat("WITHOUT") {
                if !self.cursor.eat("ROWID") {
                    return Err(NotUnderstood::new("a WITHOUT of something else than ROWID"));
                }
                self.table.without_rowid = true;
            } else if self.cursor.eat("STRICT") {
                self.table.strict = true;
            } else if !self.cursor.eat_punct(b',') {
                self.cursor.eat_punct(b';');
                return match self.cursor.take() {
                    None => Ok(()),
                    Some(t) => Err(NotUnderstood::new(format!("{} behind its column list", t.text))),
                };
            }
        }
    }

    fn finish(mut self) -> Result<TableDef, NotUnderstood> {
        let implied = self.table.strict || self.table.without_rowid;
        let alias = self.table.rowid_alias.filter(|_| !self.table.without_rowid);
        for (i, (column, in_key)) in self.table.columns.iter_mut().zip(&self.in_key).enumerate() {
            column.not_null |= implied && *in_key && alias != Some(i);
            if self.table.strict && column.standard == StandardType::Any {
                column.affinity = Affinity::Blob;
            }
        }
        if self.table.without_rowid {
            if let Some(c) = self.table.rowid_alias.take() {
                let name = self.table.columns.get(c).map(|c| c.name.clone());
                let desc = self.alias_desc;
                let list = [RawPart { name, collation: None, desc, autoincrement: false }];
                self.add_index(&list, Origin::PrimaryKey)?;
            }
            let key = self.table.auto_indexes.iter_mut().find(|i| i.origin == Origin::PrimaryKey);
            let key = key.ok_or_else(|| NotUnderstood::new("WITHOUT ROWID and no primary key"))?;
            let mut parts: Vec<KeyPart> = Vec::new();
            for p in &key.parts {
                if !same_column(&parts, p) {
                    parts.push(p.clone());
                }
            }
            key.parts.clone_from(&parts);
            self.table.primary_key = parts;
        } else if let Some(key) = self.table.auto_indexes.iter().find(|i| i.origin == Origin::PrimaryKey) {
            self.table.primary_key.clone_from(&key.parts);
        } else if let Some(c) = self.table.rowid_alias {
            let collation = BINARY.to_string();
            self.table.primary_key = vec![KeyPart { source: KeySource::Column(c), collation, desc: false }];
        }
        Ok(self.table)
    }
}

fn standard_type(declared: &str) -> StandardType {
    match declared.to_ascii_uppercase().as_str() {
        "ANY" => StandardType::Any,
        "BLOB" => StandardType::Blob,
        "INT" => StandardType::Int,
        "INTEGER" => StandardType::Integer,
        "REAL" => StandardType::Real,
        "TEXT" => StandardType::Text,
        _ => StandardType::Other,
    }
}
