//! CREATE INDEX (sqlite.org/lang_createindex.html), and the column lists that it shares with table constraints.

use super::literal::skip_group;
use super::token::{Cursor, Kind, Token};
use super::{BINARY, IndexDef, KeyPart, KeySource, MAX_COLUMNS, MAX_TEXT, NotUnderstood, Origin, TableDef};

/// Reads a CREATE INDEX statement on `table`.
pub fn index(sql: &str, table: &TableDef) -> Result<IndexDef, NotUnderstood> {
    if sql.len() > MAX_TEXT {
        return Err(NotUnderstood::new("its text is too long"));
    }
    let mut cursor = Cursor::new(sql);
    if !cursor.eat("CREATE") {
        return Err(NotUnderstood::new("it does not start with CREATE"));
    }
    let unique = cursor.eat("UNIQUE");
    if !cursor.eat("INDEX") {
        return Err(NotUnderstood::new("it is not a CREATE INDEX"));
    }
    let name = object_name(&mut cursor)?;
    if !cursor.eat("ON") {
        return Err(NotUnderstood::new("it does not say ON which table"));
    }
    let on = name_of(cursor.take())?;
    if !on.eq_ignore_ascii_case(&table.name) {
        return Err(NotUnderstood::new(format!("it is on {on}, not on {}", table.name)));
    }
    if !cursor.eat_punct(b'(') {
        return Err(NotUnderstood::new("it has no column list"));
    }
    let parts = key_list(&mut cursor)?.into_iter().map(|raw| part(&raw, table)).collect();
    let partial = cursor.eat("WHERE");
    if !partial {
        cursor.eat_punct(b';');
        if cursor.take().is_some() {
            return Err(NotUnderstood::new("something stands behind its column list"));
        }
    }
    Ok(IndexDef { name, table: table.name.clone(), unique, parts, partial, origin: Origin::Create })
}

/// `[IF NOT EXISTS] [schema.]name`.
pub(super) fn object_name(cursor: &mut Cursor<'_>) -> Result<String, NotUnderstood> {
    let mut ahead = *cursor;
    if ahead.eat("IF") && ahead.eat("NOT") && ahead.eat("EXISTS") {
        *cursor = ahead;
    }
    let mut name = name_of(cursor.take())?;
    if cursor.eat_punct(b'.') {
        name = name_of(cursor.take())?;
    }
    Ok(name)
}

pub(super) fn name_of(token: Option<Token<'_>>) -> Result<String, NotUnderstood> {
    token.and_then(|t| t.name()).ok_or_else(|| NotUnderstood::new("a name is missing"))
}

/// One item of a column list, before its name is looked up.
#[derive(Clone, Debug)]
pub(super) struct RawPart {
    /// Name of a column; `None`: an expression.
    pub name: Option<String>,
    pub collation: Option<String>,
    pub desc: bool,
    /// AUTOINCREMENT may stand inside the list of a PRIMARY KEY.
    pub autoincrement: bool,
}

/// The items up to and with the closing parenthesis; the opening one is taken already.
pub(super) fn key_list(cursor: &mut Cursor<'_>) -> Result<Vec<RawPart>, NotUnderstood> {
    let mut parts = Vec::new();
    loop {
        let (part, closed) = raw_part(cursor)?;
        parts.push(part);
        if parts.len() > MAX_COLUMNS {
            return Err(NotUnderstood::new("a list with too many columns"));
        }
        if closed {
            return Ok(parts);
        }
    }
}

/// One item, and whether the list ended behind it.
fn raw_part(cursor: &mut Cursor<'_>) -> Result<(RawPart, bool), NotUnderstood> {
    let first = cursor.take().ok_or_else(|| NotUnderstood::new("a column list that is never closed"))?;
    let mut part = RawPart { name: first.name(), collation: None, desc: false, autoincrement: false };
    if first.is_punct(b'(') {
        skip_group(cursor)?;
    } else if first.is_punct(b')') || first.is_punct(b',') {
        return Err(NotUnderstood::new("an empty place in a column list"));
    }
    loop {
        let token = cursor.take().ok_or_else(|| NotUnderstood::new("a column list that is never closed"))?;
        match token.kind {
            Kind::Punct(b',') => return Ok((part, false)),
            Kind::Punct(b')') => return Ok((part, true)),
            Kind::Punct(b'(') => {
                part.name = None;
                skip_group(cursor)?;
            }
            Kind::Word if token.is("COLLATE") => part.collation = Some(name_of(cursor.take())?),
            Kind::Word if token.is("ASC") => part.desc = false,
            Kind::Word if token.is("DESC") => part.desc = true,
            Kind::Word if token.is("AUTOINCREMENT") => part.autoincrement = true,
            Kind::Word if token.is("NULLS") => return Err(NotUnderstood::new("NULLS FIRST or LAST in a key")),
            // An operator, a point, a second word: it computes something.
            _ => part.name = None,
        }
    }
}

/// Looks an item up in its table.
pub(super) fn part(raw: &RawPart, table: &TableDef) -> KeyPart {
    let column = raw.name.as_deref().and_then(|n| table.column(n));
    let source = column.map_or(KeySource::Expression, KeySource::Column);
    let own = column.and_then(|c| table.columns.get(c)).map(|c| c.collation.clone());
    let collation = raw.collation.clone().or(own).unwrap_or_else(|| BINARY.to_string());
    KeyPart { source, collation, desc: raw.desc }
}
