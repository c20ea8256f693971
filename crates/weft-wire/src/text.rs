//! Which bytes are text.

/// Checks for UTF-8 in which surrogates may stand as three bytes each; otherwise says where the first wrong byte is.
///
/// A pair of surrogates may stand so too, as Python's "surrogatepass" writes it: such a string is not the one with the character that
/// the pair would be in UTF-16 (which WTF-8 takes for granted).
#[inline]
pub(crate) fn check(bytes: &[u8]) -> Result<(), usize> {
    let mut rest = bytes;
    // A surrogate is where the standard library stops, so each byte is looked at once.
    while let Err(error) = str::from_utf8(rest) {
        rest = &rest[error.valid_up_to()..];
        let [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] = rest else {
            return Err(bytes.len() - rest.len());
        };
        rest = after;
    }
    Ok(())
}
