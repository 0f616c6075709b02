//! Fixed formats: database header, b-tree page, record, superblock.

use pyvorin_recovery::ext4::{FileSystem, Superblock};
use pyvorin_recovery::sqlite::page::{Page, PageKind, shape};
use pyvorin_recovery::sqlite::record::{Field, Value, split, values};
use pyvorin_recovery::sqlite::{bytes, header, wal};

/// The database header, and the log's.
pub fn header(data: &[u8]) {
    let parsed = header::parse(data);
    assert_eq!(parsed, header::parse(data));
    match &parsed {
        Ok(h) => {
            assert!(data.len() >= header::LEN && data.starts_with(header::MAGIC));
            assert!(header::valid_page_size(h.page_size));
            // Everything behind the header divides by this and subtracts from it.
            assert!(h.page_size - u32::from(h.reserved) >= 480);
            assert!(h.encoding <= 3);
        }
        Err(fault) => assert!(!fault.describe().is_empty()),
    }
    if let Ok(h) = wal::parse_header(data) {
        assert!(header::valid_page_size(h.page_size));
        assert_eq!(wal::sum(h.big_endian, [0, 0], &data[..24]), h.sum);
        assert_eq!(wal::unsum(h.big_endian, h.sum, &data[..24]), [0, 0]);
    }
}

/// One b-tree page. The first two bytes choose its number and the reserved bytes.
pub fn page(data: &[u8]) {
    let [number, reserved, image @ ..] = data else { return };
    let number = if number & 1 == 1 { 1 } else { 2 };
    let size = u32::try_from(image.len()).unwrap_or(0);
    let usable = size.saturating_sub(u32::from(*reserved & 31));
    let pages = 100;
    assert_eq!(shape(image, number, usable, pages), shape(image, number, usable, pages));
    let Some(page) = Page::parse(image, number, usable) else { return };
    let limit = usable as usize;
    assert!(page.content <= limit && page.cells * 2 <= limit);
    let _ = (page.first_freeblock(), page.fragments(), page.max_rowid());
    assert_eq!(page.right().is_some(), !page.kind.is_leaf());
    let mut whole = 0;
    for i in 0..page.cells {
        let Some(cell) = page.cell(i) else { continue };
        whole += 1;
        assert!(cell.at >= page.content && cell.at + cell.raw.len() <= limit);
        assert_eq!(cell.left.is_some(), !page.kind.is_leaf());
        assert_eq!(cell.rowid.is_some(), page.kind.is_table());
        assert_eq!(cell.overflow.is_some(), (cell.local.len() as u64) < cell.payload_len);
        if page.kind == PageKind::TableInterior {
            assert!(cell.local.is_empty() && cell.payload_len == 0);
        }
        if cell.overflow.is_none() {
            let _ = values(cell.local);
        }
    }
    assert_eq!(page.all_cells().is_some(), whole == page.cells);
    assert_eq!(page.cell(page.cells), None);
}

/// One record: what was read says the same when it is written again and read again.
pub fn record(data: &[u8]) {
    let mut fields: Vec<Field> = Vec::new();
    let whole = split(data, data.len() as u64, &mut fields);
    // A prefix of a record is split like the whole, or asks for more.
    let mut some = Vec::new();
    let half = split(&data[..data.len() / 2], data.len() as u64, &mut some);
    assert!(half.is_err() || some == fields);
    let read = values(data);
    assert_eq!(whole.is_ok(), read.is_some(), "two readers of one format: {whole:?} {read:?}");
    let Some(read) = read else { return };
    let split: Option<Vec<Value<'_>>> = fields.iter().map(|f| f.value(data)).collect();
    // The engine reads a NaN as NULL; the reader that keeps every bit does not.
    let equal = |(a, b): (&Value<'_>, &Value<'_>)| {
        same(&[*a], &[*b]) || matches!((a, b), (Value::Real(r), Value::Null) if r.is_nan())
    };
    assert!(split.is_some_and(|s| s.len() == read.len() && read.iter().zip(&s).all(equal)));
    let again = encode(&read);
    let second = values(&again);
    assert!(second.as_ref().is_some_and(|s| same(&read, s)), "{read:?} became {second:?}");
    // Every value costs at least its serial type.
    assert!(read.len() < data.len());
}

fn same(a: &[Value<'_>], b: &[Value<'_>]) -> bool {
    let equal = |(a, b): (&Value<'_>, &Value<'_>)| match (a, b) {
        (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

/// The shortest record of these values (file format 2, section 2.1).
fn encode(all: &[Value<'_>]) -> Vec<u8> {
    let (mut types, mut body) = (Vec::new(), Vec::new());
    for value in all {
        match value {
            Value::Null => types.push(0),
            Value::Integer(0) => types.push(8),
            Value::Integer(1) => types.push(9),
            Value::Integer(i) => {
                types.push(6);
                body.extend_from_slice(&i.to_be_bytes());
            }
            Value::Real(r) => {
                types.push(7);
                body.extend_from_slice(&r.to_bits().to_be_bytes());
            }
            Value::Text(t) => {
                put_varint(&mut types, 13 + 2 * t.len() as u64);
                body.extend_from_slice(t);
            }
            Value::Blob(b) => {
                put_varint(&mut types, 12 + 2 * b.len() as u64);
                body.extend_from_slice(b);
            }
        }
    }
    let mut record = Vec::new();
    let mut length = types.len() as u64 + 1;
    if length > 127 {
        length += 1;
    }
    if length > 16383 {
        length += 1;
    }
    put_varint(&mut record, length);
    record.extend_from_slice(&types);
    record.extend_from_slice(&body);
    record
}

fn put_varint(to: &mut Vec<u8>, value: u64) {
    let start = to.len();
    let mut rest = value;
    loop {
        to.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    to[start..].reverse();
    if let Some(last) = to.last_mut() {
        *last &= 0x7f;
    }
    assert_eq!(bytes::varint(to, start), Some((value.cast_signed(), to.len() - start)));
}

/// The first bytes of a volume.
pub fn superblock(data: &[u8]) {
    let found = FileSystem::detect(data);
    assert_eq!(found, FileSystem::detect(data));
    if let Some(sb) = found.ext().cloned().or_else(|| Superblock::parse(data)) {
        // Clean means that a mount with `noload` shows the truth: nothing to replay and no recorded error.
        assert!(!sb.is_clean() || !(sb.needs_recovery() || sb.has_errors()));
        assert_eq!(sb.uuid_text().len(), 36);
        let _ = (sb.has_journal(), sb.defaults_to_writeback(), sb.defaults_to_nobarrier());
        let text = serde_json::to_string(&sb).unwrap();
        assert_eq!(serde_json::from_str::<Superblock>(&text).unwrap(), sb);
    }
}
