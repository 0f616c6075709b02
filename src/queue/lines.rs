//! Rows as text: our JSON Lines, and what the documented recovery script leaves behind.
//!
//! ```text
//! {"id":17,"payload":"{\"value\": 21.5}","priority":3,"created_at":1717000000.25,"ttl_seconds":86400,"retry_count":2,"next_retry_at":0.0}
//! ```
//!
//! The payload is a string: the stored text, exactly. Times are written as Python prints them, which reads back as the
//! same double. Columns that the documentation does not know stand under `extra`.
//!
//! The script prints with `.mode json` a *single array* whose elements have one key each, the text of the expression,
//! and hold a row as a string: `[{"json_object('id', id, …)":"{\"id\":17,…}"},` and so on, one element a line. If the
//! database broke off while it was printed the array has no end. Both are read, and plain arrays of rows or of strings.

use super::{COLUMNS, Item, Rejected, item};
use crate::audit::json::{self, Style, Value};
use crate::sqlite::rows::Cell;

const EXPORT: Style = Style { spaced: false, ascii: true, sorted: false };
/// As Python's `json.dumps` writes by default, for payloads that stand as objects in a file.
const PAYLOAD: Style = Style { spaced: true, ascii: true, sorted: false };

/// A row as one line, without its end.
#[must_use]
pub fn line(item: &Item) -> String {
    let mut pairs = vec![
        ("id".into(), item.id.map_or(Value::Null, Value::int)),
        ("payload".into(), Value::text(&item.payload)),
        ("priority".into(), Value::int(item.priority)),
        ("created_at".into(), Value::Float(item.created_at)),
        ("ttl_seconds".into(), Value::int(item.ttl_seconds)),
        ("retry_count".into(), Value::int(item.retry_count)),
        ("next_retry_at".into(), Value::Float(item.next_retry_at)),
    ];
    if !item.extra.is_empty() {
        pairs.push(("extra".into(), Value::Object(cells(&item.extra))));
    }
    text(&Value::Object(pairs))
}

/// A row that cannot be sent as one line, with the reason; of rows that are gone `ids`, the first and the last.
#[must_use]
pub fn rejected_line(rejected: &Rejected) -> String {
    let mut pairs = vec![
        ("reason".into(), Value::text(&rejected.reason)),
        ("place".into(), Value::text(&rejected.place)),
        match rejected.ids {
            None => ("id".into(), rejected.id.map_or(Value::Null, Value::int)),
            Some((first, last)) => {
                ("ids".into(), Value::List(vec![Value::int(first), last.map_or(Value::Null, Value::int)]))
            }
        },
    ];
    if !rejected.values.is_empty() {
        pairs.push(("values".into(), Value::Object(cells(&rejected.values))));
    }
    if !rejected.bytes.is_empty() {
        pairs.push(("bytes".into(), Value::text(&hex(&rejected.bytes))));
    }
    text(&Value::Object(pairs))
}

fn text(value: &Value) -> String {
    // With ASCII escapes everything can be written.
    String::from_utf8(json::dumps(value, EXPORT).unwrap_or_default()).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn cells(named: &[(String, Cell)]) -> Vec<(json::Text, Value)> {
    let one = |cell: &Cell| match cell {
        Cell::Null => Value::Null,
        Cell::Integer(n) => Value::int(*n),
        Cell::Real(x) => Value::Float(*x),
        Cell::Text(t) => match std::str::from_utf8(t) {
            Ok(t) => Value::text(t),
            Err(_) => Value::Object(vec![("text_hex".into(), Value::text(&hex(t)))]),
        },
        Cell::Blob(b) => Value::Object(vec![("hex".into(), Value::text(&hex(b)))]),
    };
    named.iter().map(|(name, cell)| (name.as_str().into(), one(cell))).collect()
}

/// What a file holds, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Rows that can be sent.
    pub items: Vec<Item>,
    /// What cannot.
    pub rejected: Vec<Rejected>,
}

/// Reads a file of either shape. Total.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let array = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    if array && let Ok(Value::List(elements)) = json::loads(bytes) {
        for (n, element) in elements.iter().enumerate() {
            parsed.element(&format!("element {}", n + 1), element, &[]);
        }
        return parsed;
    }
    for (n, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let mut line = line.trim_ascii();
        if array {
            // An array that was cut off: its elements stand one a line.
            line = line.strip_prefix(b"[").unwrap_or(line);
            line = line.strip_suffix(b"]").filter(|l| json::loads(l).is_ok() || l.is_empty()).unwrap_or(line);
            line = line.strip_suffix(b",").unwrap_or(line).trim_ascii();
        }
        if line.is_empty() {
            continue;
        }
        let place = format!("line {}", n + 1);
        match json::loads(line) {
            Ok(value) => parsed.element(&place, &value, line),
            Err(why) => parsed.reject(&place, None, format!("it is no JSON: {why}"), line),
        }
    }
    parsed
}

impl Parsed {
    fn reject(&mut self, place: &str, id: Option<i64>, reason: String, bytes: &[u8]) {
        self.rejected.push(Rejected {
            id,
            place: place.to_string(),
            reason,
            bytes: bytes.to_vec(),
            ..Rejected::default()
        });
    }

    fn element(&mut self, place: &str, value: &Value, bytes: &[u8]) {
        // The script's shape: a row as a string, alone or under one key that is the text of the expression.
        let inner = match value {
            Value::Text(text) => text.as_str(),
            Value::Object(pairs) => match pairs.as_slice() {
                [(key, Value::Text(text))] if key.as_str().is_some_and(|k| !COLUMNS.contains(&k)) => text.as_str(),
                _ => None,
            },
            _ => None,
        };
        let row = match inner.map(|text| (text, json::loads(text.as_bytes()))) {
            None => Ok(value.clone()),
            Some((_, Ok(row))) => Ok(row),
            Some((text, Err(why))) => Err((text.to_string(), why)),
        };
        let raw = |value: &Value| if bytes.is_empty() { text(value).into_bytes() } else { bytes.to_vec() };
        match row {
            Err((text, why)) => self.reject(place, None, format!("the row in it is no JSON: {why}"), text.as_bytes()),
            Ok(Value::Object(pairs)) => {
                let id = match pairs.iter().find(|(k, _)| k.as_str() == Some("id")).map(|(_, v)| v) {
                    None | Some(Value::Null) => Ok(None),
                    Some(other) => other.as_i64().map(Some).ok_or("id is no integer"),
                };
                match id.map_err(str::to_string).and_then(|id| columns(&pairs).and_then(|c| item(id, &c))) {
                    Ok(item) => self.items.push(item),
                    Err(why) => self.reject(place, id.ok().flatten(), why, &raw(value)),
                }
            }
            Ok(_) => self.reject(place, None, "it is no row: neither an object nor one as text".into(), &raw(value)),
        }
    }
}

/// The keys of a row as columns. What may be left out gets the default of the documented schema.
fn columns(pairs: &[(json::Text, Value)]) -> Result<Vec<(String, Cell)>, String> {
    let mut columns = Vec::new();
    for (key, value) in pairs {
        let name = key.as_str().ok_or("a key is no text")?;
        match (name, value) {
            ("id", _) => {}
            ("extra", Value::Object(extra)) => {
                for (name, value) in extra {
                    columns.push((name.as_str().ok_or("a key is no text")?.to_string(), cell(value)?));
                }
            }
            ("payload", Value::Object(_)) => {
                let text = json::dumps(value, PAYLOAD).unwrap_or_default();
                columns.push((name.to_string(), Cell::Text(text)));
            }
            _ if COLUMNS.contains(&name) => columns.push((name.to_string(), cell(value)?)),
            _ => return Err(format!("the queue has no column {name:?}")),
        }
    }
    for (name, default) in [("retry_count", Cell::Integer(0)), ("next_retry_at", Cell::Real(0.0))] {
        if !columns.iter().any(|(n, _)| n == name) {
            columns.push((name.to_string(), default));
        }
    }
    Ok(columns)
}

fn cell(value: &Value) -> Result<Cell, String> {
    match value {
        Value::Null => Ok(Cell::Null),
        Value::Bool(_) | Value::List(_) => Err("a value is neither a number nor text".to_string()),
        Value::Int(_) => value.as_i64().map(Cell::Integer).ok_or_else(|| "an integer is too large".to_string()),
        Value::Float(x) => Ok(Cell::Real(*x)),
        Value::Text(text) => match text.as_str() {
            Some(text) => Ok(Cell::Text(text.as_bytes().to_vec())),
            None => Err("a text holds half a character".to_string()),
        },
        Value::Object(pairs) => match pairs.as_slice() {
            [(key, Value::Text(text))] if key.as_str() == Some("hex") => {
                unhex(text.as_str().unwrap_or("")).map(Cell::Blob).ok_or_else(|| "a blob is not hex".to_string())
            }
            _ => Err("a value is neither a number nor text".to_string()),
        },
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|d| d.len().is_multiple_of(2))?;
    digits.chunks_exact(2).map(|pair| if let [a, b] = pair { u8::try_from(a << 4 | b).ok() } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Cell, Item, line, parse};

    fn sample() -> Item {
        Item {
            id: Some(17),
            payload: "{\"unit\": \"°C\",  \"value\": 1e-5}".to_string(),
            priority: 3,
            created_at: 1_717_000_000.123_456,
            ttl_seconds: 86_400,
            retry_count: 2,
            next_retry_at: 0.1,
            extra: Vec::new(),
        }
    }

    #[test]
    fn a_row_comes_back_exactly() {
        let extra = vec![("site".to_string(), Cell::Text("é".into())), ("raw".to_string(), Cell::Blob(vec![0, 255]))];
        for item in [sample(), Item { id: None, extra, ..sample() }] {
            let parsed = parse(line(&item).as_bytes());
            assert_eq!(parsed.items, [item]);
        }
    }

    #[test]
    fn the_shapes_of_the_documented_script_are_read() {
        let row = line(&sample());
        let quoted = serde_json::to_string(&row).unwrap();
        let key = serde_json::to_string("json_object(\n'id', id,\n'payload', payload\n)").unwrap();
        let one = format!("{{{key}:{quoted}}}");
        for text in [
            format!("[{one}]\n"),
            format!("[{one},\n{}]\n", one.replacen("\\\"id\\\":17", "\\\"id\\\":18", 1)),
            format!("[{one},\n{{\"json_obj"),
            format!("[{one},\n"),
            format!("[{quoted}]"),
            format!("[{row}]"),
            format!("\n{row}\n\n"),
        ] {
            let parsed = parse(text.as_bytes());
            assert_eq!(parsed.items.first(), Some(&sample()), "{text} {:?}", parsed.rejected);
            assert_eq!(parsed.rejected.len(), usize::from(text.ends_with("json_obj")), "{text}");
        }
    }

    #[test]
    fn what_is_no_row_is_kept_with_the_reason() {
        let good = line(&sample());
        let cases = [
            ("not json".to_string(), "no JSON"),
            ("[1,2".to_string(), "no JSON"),
            ("7".to_string(), "no row"),
            (good.replace("\"priority\":3", "\"priority\":9"), "priority 9"),
            (good.replace("\"priority\":3", "\"priority\":\"3\""), "priority is no integer"),
            (good.replace("\"priority\":3,", ""), "priority is missing"),
            (good.replace("\"id\":17", "\"id\":-4"), "never given"),
            (good.replace("\"id\":17", "\"id\":9223372036854775807"), "never given"),
            (good.replace("\"id\":17", "\"id\":\"x\""), "id is no integer"),
            (good.replace("\"id\":17", "\"id\":17,\"colour\":\"red\""), "no column"),
            (good.replace("\"created_at\":1717000000.123456", "\"created_at\":NaN"), "no finite number"),
            (good.replace("{\\\"unit", "[\\\"unit"), "payload is no JSON"),
            (good.replace("\"retry_count\":2", "\"retry_count\":-2"), "negative"),
        ];
        for (text, reason) in cases {
            let parsed = parse(text.as_bytes());
            assert_eq!((parsed.items.len(), parsed.rejected.len()), (0, 1), "{text}");
            assert!(parsed.rejected[0].reason.contains(reason), "{text}: {}", parsed.rejected[0].reason);
            assert!(!parsed.rejected[0].bytes.is_empty(), "{text}");
        }
        assert!(parse(b"").items.is_empty() && parse(b"[]").rejected.is_empty());
    }
}
