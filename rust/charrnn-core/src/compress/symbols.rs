//! Bytes as the symbols of a vocabulary's unit, and back. Bytes that are no UTF-8 are symbols of their own.

use crate::vocab::Unit;

/// Symbols from here on are single bytes of a text that is not UTF-8 there.
const RAW: u32 = 0x11_0000;

/// How many symbols there are, known to a model or not: what an escaped symbol is one of.
pub(super) fn num_symbols(unit: Unit) -> u32 {
    match unit {
        Unit::Byte => 256,
        Unit::Char => RAW + 256,
    }
}

/// The symbol that `bytes`, which are not empty, begin with, and how many of them it takes.
///
/// `bytes` must hold a whole character or the end of the text.
pub(super) fn first_symbol(bytes: &[u8], unit: Unit) -> (u32, usize) {
    if unit == Unit::Byte || bytes[0] < 0x80 {
        return (u32::from(bytes[0]), 1);
    }
    let bytes = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => (u32::from(c), c.len_utf8()),
        None => (RAW + u32::from(bytes[0]), 1),
    }
}

/// Appends a symbol's bytes.
pub(super) fn push_bytes(symbol: u32, unit: Unit, out: &mut Vec<u8>) {
    match (unit, char::from_u32(symbol)) {
        (Unit::Char, Some(c)) => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        (Unit::Char, None) => out.push(symbol.wrapping_sub(RAW) as u8),
        (Unit::Byte, _) => out.push(symbol as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..50), text in "\\PC{0,20}") {
            for unit in [Unit::Byte, Unit::Char] {
                for bytes in [bytes.as_slice(), text.as_bytes()] {
                    let (mut rest, mut out) = (bytes, Vec::new());
                    while !rest.is_empty() {
                        let (symbol, num) = first_symbol(rest, unit);
                        prop_assert!(symbol < num_symbols(unit));
                        push_bytes(symbol, unit, &mut out);
                        rest = &rest[num..];
                    }
                    prop_assert_eq!(&out, bytes);
                }
            }
        }
    }
}
