//! Nix's own base 32: its alphabet has no `e o u t`, and digits run from the last byte to the first.

const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Digits that `bytes` bytes take.
pub const fn encoded_len(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes * 8 - 1) / 5 + 1 }
}

/// Text of a byte string: 32 digits for 20 bytes, 52 for 32 bytes.
pub fn encode(bytes: &[u8]) -> String {
    (0..encoded_len(bytes.len()))
        .rev()
        .map(|n| {
            let (i, j) = (n * 5 / 8, n * 5 % 8);
            let low = u16::from(bytes[i]);
            let high = bytes.get(i + 1).map_or(0, |b| u16::from(*b));
            let digit = ((low | high << 8) >> j) & 31;
            char::from(ALPHABET[usize::from(digit)])
        })
        .collect()
}

/// Bytes of a text of exactly `encoded_len(N)` digits; `None` for foreign digits, wrong length, or set bits
/// beyond the last byte.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != encoded_len(N) {
        return None;
    }
    let mut out = [0u8; N];
    for (n, digit) in text.bytes().rev().enumerate() {
        let digit = u16::from(value(digit)?);
        let (i, j) = (n * 5 / 8, n * 5 % 8);
        let spread = digit << j;
        out[i] |= (spread & 0xff) as u8;
        let carry = (spread >> 8) as u8;
        match out.get_mut(i + 1) {
            Some(next) => *next |= carry,
            None if carry != 0 => return None,
            None => {}
        }
    }
    Some(out)
}

/// True if `byte` is one of the 32 digits.
pub fn is_digit(byte: u8) -> bool {
    value(byte).is_some()
}

fn value(byte: u8) -> Option<u8> {
    let index = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'd' => byte - b'a' + 10,
        b'f'..=b'n' => byte - b'f' + 14,
        b'p'..=b's' => byte - b'p' + 23,
        b'v'..=b'z' => byte - b'v' + 27,
        _ => return None,
    };
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_and_value_agree() {
        for byte in 0..=255u8 {
            let expected = ALPHABET.iter().position(|a| *a == byte).map(|i| i as u8);
            assert_eq!(value(byte), expected, "{}", char::from(byte));
        }
    }

    #[test]
    fn the_empty_sha256_is_what_nix_says() {
        // nix-hash --type sha256 --to-base32 e3b0…b855
        let digest = igloo_base::Sha256::of(b"");
        let text = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        assert_eq!(encode(&digest.0), text);
        assert_eq!(decode::<32>(text), Some(digest.0));
    }

    #[test]
    fn decode_refuses_foreign_digits_lengths_and_spilled_bits() {
        assert_eq!(decode::<20>(&"e".repeat(32)), None);
        assert_eq!(decode::<20>(&"0".repeat(31)), None);
        assert_eq!(decode::<32>(&"z".repeat(52)), None, "32 bytes fill only 256 of 260 bits");
        assert_eq!(decode::<20>(&"z".repeat(32)), Some([255; 20]));
    }
}
