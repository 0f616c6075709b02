//! What Python does with the odd values, pinned one by one; `tests/audit_chain.rs` asks Python itself.

use super::{Style, Text, Value, dumps, loads, repr};

const COMPACT: Style = Style { spaced: false, ascii: true, sorted: true };

fn again(text: &str) -> String {
    String::from_utf8(dumps(&loads(text.as_bytes()).expect(text), COMPACT).expect(text)).unwrap()
}

#[test]
fn floats_print_as_python_prints_them() {
    let table = [
        (1_717_000_000.0, "1717000000.0"),
        (1_717_000_000.123_456, "1717000000.123456"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
        (9_999_999_999_999_998.0, "9999999999999998.0"),
        (0.0001, "0.0001"),
        (1e-5, "1e-05"),
        (1.5e-5, "1.5e-05"),
        (1e-6, "1e-06"),
        (5e-324, "5e-324"),
        (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
        (-0.0, "-0.0"),
        (-83_124_035_673_125.63, "-83124035673125.62"),
        (83_124_035_673_125.38, "83124035673125.38"),
        (5.0, "5.0"),
        (0.5, "0.5"),
        (0.1, "0.1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
    ];
    for (x, text) in table {
        assert_eq!(repr(x), text);
    }
}

#[test]
fn numbers_keep_what_python_keeps() {
    assert_eq!(
        again("[12345678901234567890123, -0, 0, -7, 1E5, 1e400, -1e400]"),
        "[12345678901234567890123,0,0,-7,100000.0,Infinity,-Infinity]"
    );
    assert_eq!(again("[NaN, Infinity, -Infinity, -0.0, 1.0]"), "[NaN,Infinity,-Infinity,-0.0,1.0]");
    for bad in ["01", "1.", "1e", "1e+", "-", "+1", ".5", "- 1", "0x1", "nan", "-NaN"] {
        assert!(loads(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn strings_survive_with_lone_surrogates_and_u007f() {
    assert_eq!(again(r#""\ud800""#), r#""\ud800""#);
    assert_eq!(again(r#""\ud83d\ude00 \udE00 \ud83dA \ud83d\u0041""#), r#""\ud83d\ude00 \ude00 \ud83dA \ud83dA""#);
    assert_eq!(again("\"\u{7f}\u{2028}\u{e9}\\/\""), r#""\u007f\u2028\u00e9/""#);
    let raw = Style { ascii: false, ..COMPACT };
    assert_eq!(dumps(&Value::text("\u{7f}\u{2028}é\u{1}"), raw).unwrap(), "\"\u{7f}\u{2028}é\\u0001\"".as_bytes());
    assert_eq!(dumps(&loads(br#""\ud800""#).unwrap(), raw), None);
    for bad in ["\"\n\"", "\"", r#""\x""#, r#""\u12g4""#, r#""\u12"#, r#""\ud800\u1""#] {
        assert!(loads(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn keys_sort_by_code_point_and_stand_once() {
    assert_eq!(
        again(r#"{"\ud83d\ude00":1,"\uffff":2,"\ud800":3,"b":{"z":1,"a":2},"a":0,"b":9}"#),
        r#"{"a":0,"b":9,"\ud800":3,"\uffff":2,"\ud83d\ude00":1}"#
    );
    let kept = Style { spaced: true, ascii: true, sorted: false };
    let text = dumps(&loads(br#"{"b":1,"a":[1,{}],"b":2}"#).unwrap(), kept).unwrap();
    assert_eq!(text, br#"{"b": 2, "a": [1, {}]}"#);
}

#[test]
fn what_is_no_document_is_refused() {
    for bad in ["", " ", "{} {}", "[1,]", "{\"a\":1,}", "{a:1}", "[", "{\"a\"", "{\"a\":}", "tru", "\u{feff}{}"] {
        assert!(loads(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(loads(&[b'"', 0xff, b'"']).is_err());
    assert!(loads("[".repeat(100_000).as_bytes()).is_err());
    assert!(loads(format!("{}{}", "[".repeat(500), "]".repeat(500)).as_bytes()).is_ok());
}

#[test]
fn code_points_come_back() {
    for code in [0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xd800, 0xdfff, 0xe000, 0xffff, 0x1_0000, 0x10_ffff] {
        let mut text = Text::default();
        text.push(code);
        assert_eq!(text.codes().collect::<Vec<_>>(), [code]);
    }
}
