//! Base64 with padding (RFC 4648, section 4), canonical only: one text for each sequence of bytes.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the text of `bytes`.
pub fn encode(bytes: &[u8], out: &mut String) {
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4_usize {
            let index = usize::try_from(bits >> (18 - 6 * digit) & 0x3f).unwrap_or(0);
            let letter = if digit > group.len() { None } else { ALPHABET.get(index) };
            out.push(char::from(letter.copied().unwrap_or(b'=')));
        }
    }
}

/// Exactly `N` bytes, or nothing. The caller wipes what is secret.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N.div_ceil(3) * 4 {
        return None;
    }
    let mut bytes = [0; N];
    for (group, out) in digits.chunks(4).zip(bytes.chunks_mut(3)) {
        let mut bits = 0;
        for (i, digit) in group.iter().enumerate() {
            let value = if i > out.len() { (*digit == b'=').then_some(0) } else { value(*digit) };
            bits = bits << 6 | value?;
        }
        let [_, high, middle, low] = u32::to_be_bytes(bits);
        let all = [high, middle, low];
        // Bits behind the last byte would give the same bytes a second text.
        if all.iter().skip(out.len()).any(|b| *b != 0) {
            return None;
        }
        out.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    let (base, from) = match digit {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(digit - base) + from)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    fn text(bytes: &[u8]) -> String {
        let mut out = String::new();
        encode(bytes, &mut out);
        out
    }

    #[test]
    fn the_vectors_of_the_rfc() {
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (n, expected) in vectors.iter().enumerate() {
            assert_eq!(text(&b"foobar"[..n]), *expected);
        }
        assert_eq!(decode::<1>("Zg=="), Some(*b"f"));
        assert_eq!(decode::<2>("Zm8="), Some(*b"fo"));
        assert_eq!(decode::<6>("Zm9vYmFy"), Some(*b"foobar"));
        assert_eq!(decode::<3>("+/+/"), Some([0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn only_the_canonical_text_is_read() {
        for other in ["Zh==", "Zg=", "Zg", "Zg===", "Z===", "====", "Zg=A", "Z g=", "Zg==\n", "Zm8="] {
            assert_eq!(decode::<1>(other), None, "{other}");
        }
        // Every changed character changes the bytes or is refused.
        let bytes: [u8; 74] = std::array::from_fn(|i| (i * 37) as u8);
        let whole = text(&bytes);
        for at in 0..whole.len() {
            for letter in 0..128_u8 {
                let mut other = whole.clone().into_bytes();
                other[at] = letter;
                let other = String::from_utf8(other).unwrap();
                assert!(other == whole || decode::<74>(&other) != Some(bytes), "{at} {letter}");
            }
        }
    }
}
