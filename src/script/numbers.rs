//! From words to numbers, lengths and addresses.

use super::ast::{Addr, AddrBase, Length, PAGE_LIMIT};

/// Why a word is not the number it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NumberError {
    /// It is no number at all.
    NotOne,
    /// It is over this limit.
    TooLarge(String),
}

fn over_64_bits() -> NumberError {
    NumberError::TooLarge("numbers end at 2^64 - 1".into())
}

fn digits(text: &str, radix: u32) -> Result<u64, NumberError> {
    let mut value = 0u64;
    let mut any = false;
    for c in text.chars() {
        if c == '_' && any {
            continue;
        }
        let digit = c.to_digit(radix).ok_or(NumberError::NotOne)?;
        any = true;
        let next = value.checked_mul(radix.into()).and_then(|v| v.checked_add(digit.into()));
        match next {
            Some(v) => value = v,
            // The rest must still be digits for this to be a number at all.
            None if text.chars().all(|c| c == '_' || c.is_digit(radix)) => {
                return Err(over_64_bits());
            }
            None => return Err(NumberError::NotOne),
        }
    }
    if any { Ok(value) } else { Err(NumberError::NotOne) }
}

fn hexadecimal(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// A decimal number.
pub(super) fn decimal(text: &str) -> Result<u64, NumberError> {
    digits(text, 10)
}

/// A number, decimal or `0x...`.
pub(super) fn number(text: &str) -> Result<u64, NumberError> {
    match hexadecimal(text) {
        Some(hex) => digits(hex, 16),
        None => decimal(text),
    }
}

/// A number that fits in 32 bits.
pub(super) fn small(text: &str) -> Result<u32, NumberError> {
    u32::try_from(number(text)?)
        .map_err(|_| NumberError::TooLarge("this one ends at 2^32 - 1".into()))
}

/// A number with a unit of bytes, if it has one.
pub(super) fn with_unit(text: &str) -> Option<Result<u64, NumberError>> {
    let unit = text.chars().next_back()?;
    let shift = match unit.to_ascii_lowercase() {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        _ => return None,
    };
    let count = decimal(&text[..text.len() - 1]);
    Some(count.and_then(|n| n.checked_mul(1 << shift).ok_or_else(over_64_bits)))
}

/// A number of bytes: `8192`, `0x2000`, `8k`.
pub(super) fn bytes(text: &str) -> Result<u64, NumberError> {
    with_unit(text).unwrap_or_else(|| number(text))
}

fn pages(text: &str) -> Result<u64, NumberError> {
    let pages = decimal(text)?;
    if pages > PAGE_LIMIT {
        return Err(NumberError::TooLarge("addresses end at page 2^52 - 1".into()));
    }
    Ok(pages)
}

/// `PAGES` or `PAGES+BYTES`.
fn pages_and_bytes(text: &str) -> Result<(u64, u64), NumberError> {
    match text.split_once('+') {
        Some((p, b)) => Ok((pages(p)?, number(b)?)),
        None => Ok((pages(text)?, 0)),
    }
}

/// A length.
pub(super) fn length(text: &str) -> Result<Length, NumberError> {
    match text {
        "@max" => return Ok(Length::Max),
        "@maxpg" => return Ok(Length::MaxPages),
        "@wrap" => return Ok(Length::Wrap),
        _ => {}
    }
    if hexadecimal(text).is_some() {
        return number(text).map(Length::Bytes);
    }
    if let Some(bytes) = with_unit(text) {
        return bytes.map(Length::Bytes);
    }
    pages_and_bytes(text).map(|(p, b)| Length::Pages(p, b))
}

/// An address.
pub(super) fn addr(text: &str) -> Result<Addr, NumberError> {
    if let Some(rest) = text.strip_prefix("b:") {
        let (pages, plus) = pages_and_bytes(rest)?;
        return Ok(Addr { base: AddrBase::Break(pages), plus });
    }
    if !text.starts_with('@') && hexadecimal(text).is_none() {
        let (pages, plus) = pages_and_bytes(text)?;
        return Ok(Addr { base: AddrBase::Arena(pages), plus });
    }
    let (base, plus) = match text.split_once('+') {
        Some((base, plus)) => (base, number(plus)?),
        None => (text, 0),
    };
    let base = match base {
        "@null" => AddrBase::Null,
        "@top" => AddrBase::Top,
        "@kern" => AddrBase::Kern,
        _ if base.starts_with('@') => return Err(NumberError::NotOne),
        _ => AddrBase::Absolute(number(base)?),
    };
    Ok(Addr { base, plus })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::ast::Layout;

    #[test]
    fn lengths_of_the_trace_language_keep_their_meaning() {
        assert_eq!(length("3"), Ok(Length::Pages(3, 0)));
        assert_eq!(length("0+1"), Ok(Length::Pages(0, 1)));
        assert_eq!(length("0x2000"), Ok(Length::Bytes(8192)));
        assert_eq!(length("64k"), Ok(Length::Bytes(65536)));
        assert_eq!(length("16T"), Ok(Length::Bytes(16 << 40)));
        assert_eq!(length("@wrap").map(|l| l.resolve(0x5000)), Ok(0u64.wrapping_sub(0x4000)));
        for bad in ["", "+", "1+", "+1", "k", "0x", "1k+1", "@foo", "-1", "1.5"] {
            assert_eq!(length(bad), Err(NumberError::NotOne), "{bad}");
        }
        assert!(matches!(length("4503599627370496"), Err(NumberError::TooLarge(_))));
        assert!(matches!(length("99999999999t"), Err(NumberError::TooLarge(_))));
    }

    #[test]
    fn addresses_resolve() {
        let at = Layout { arena: 0x1000_0000, brk: 0x60_0000 };
        let resolve = |t| addr(t).map(|a| a.resolve(at));
        assert_eq!(resolve("12"), Ok(0x1000_c000));
        assert_eq!(resolve("12+100"), Ok(0x1000_c064));
        assert_eq!(resolve("b:3+0x10"), Ok(0x60_3010));
        assert_eq!(resolve("@null+5"), Ok(5));
        assert_eq!(resolve("@top"), Ok(0x7fff_ffff_e000));
        assert_eq!(resolve("@kern"), Ok(0xffff_8000_0000_0000));
        assert_eq!(resolve("0x7f00_0000+1"), Ok(0x7f00_0001));
        for bad in ["b:", "@nil", "0xg", "12+", "x", "$a"] {
            assert_eq!(addr(bad), Err(NumberError::NotOne), "{bad}");
        }
    }
}
