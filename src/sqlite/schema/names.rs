//! What a text in `sqlite_schema` says that it makes. The engine refuses a schema whose columns say something else.

use super::index::object_name;
use super::token::Cursor;

/// The object of a CREATE statement, as the columns `type`, `name` and `tbl_name` must have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// "table", "index", "view" or "trigger".
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The table it belongs to: itself, for tables and views.
    pub table: String,
}

/// Reads as much of a text as names its object; `None` when that cannot be read.
pub fn described(sql: &str) -> Option<Described> {
    let mut cursor = Cursor::new(sql);
    if !cursor.eat("CREATE") {
        return None;
    }
    let _ = cursor.eat("TEMP") || cursor.eat("TEMPORARY") || cursor.eat("UNIQUE") || cursor.eat("VIRTUAL");
    let kind = if cursor.eat("TABLE") {
        "table"
    } else if cursor.eat("INDEX") {
        "index"
    } else if cursor.eat("VIEW") {
        "view"
    } else if cursor.eat("TRIGGER") {
        "trigger"
    } else {
        return None;
    };
    let name = object_name(&mut cursor).ok()?;
    let table = match kind {
        "table" | "view" => name.clone(),
        _ => {
            // ON is a reserved word: the first bare one stands before the table.
            while !cursor.take()?.is("ON") {}
            object_name(&mut cursor).ok()?
        }
    };
    Some(Described { kind, name, table })
}
