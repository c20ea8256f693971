//! What the targets share: a tree of weft-wire's tests made of the fuzzer's bytes, and the peers of a link.

pub mod link;
#[path = "../../crates/weft-wire/tests/values/tree.rs"]
pub mod tree;

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};

use tree::{Date, Time, Tree, encoded};

/// A tree that a writer may be asked to write.
///
/// The tests' own strategy is of no use here: it draws until a number fits, for ever once the fuzzer's bytes are used up.
#[derive(Debug)]
pub struct AnyTree(pub Tree);

impl<'a> Arbitrary<'a> for AnyTree {
    fn arbitrary(from: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(any(from, 8)?.settled()))
    }
}

fn any(from: &mut Unstructured<'_>, depth: u32) -> Result<Tree> {
    // The last ones have contents.
    let kinds = if depth == 0 { 16 } else { 26 };
    Ok(match from.int_in_range(0..=kinds - 1)? {
        0 => Tree::None,
        1 => Tree::Boolean(from.arbitrary()?),
        2 => Tree::Integer(from.arbitrary()?),
        3 => Tree::BigInteger(from.arbitrary()?),
        4 => Tree::Float(from.arbitrary()?),
        5 => Tree::Complex(from.arbitrary()?, from.arbitrary()?),
        6 => Tree::Text(text(from)?),
        7 => Tree::Bytes(from.arbitrary()?),
        8 => Tree::ByteArray(from.arbitrary()?),
        9 => Tree::Date(date(from)?),
        10 => Tree::TimeDelta(
            from.int_in_range(-999_999_999..=999_999_999)?,
            from.int_in_range(0..=86_399)?,
            from.int_in_range(0..=999_999)?,
        ),
        11 => Tree::Decimal(text(from)?),
        12 => Tree::Uuid(from.arbitrary()?),
        13 => Tree::Enumeration(text(from)?, text(from)?, text(from)?),
        14 => Tree::Attachment(0),
        15 => Tree::Same(from.arbitrary()?),
        16 => Tree::Tuple(several(from, |from| any(from, depth - 1))?),
        17 => Tree::List(several(from, |from| any(from, depth - 1))?),
        18 => Tree::Dict(several(from, |from| Ok((any(from, depth - 1)?, any(from, depth - 1)?)))?),
        19 => Tree::Set(several(from, |from| any(from, depth - 1))?),
        20 => Tree::FrozenSet(several(from, |from| any(from, depth - 1))?),
        21 => Tree::Time(time(from)?, any(from, depth - 1)?.into()),
        22 => Tree::DateTime(date(from)?, time(from)?, any(from, depth - 1)?.into()),
        23 => {
            Tree::DataClass(text(from)?, text(from)?, several(from, |from| Ok((text(from)?, any(from, depth - 1)?)))?)
        }
        24 => Tree::Pickle(from.arbitrary()?, vec![0; from.int_in_range(0..=3)?]),
        _ => Tree::Remembered(any(from, depth - 1)?.into()),
    })
}

fn several<T>(from: &mut Unstructured<'_>, mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>) -> Result<Vec<T>> {
    (0..from.int_in_range(0..=5)?).map(|_| one(from)).collect()
}

fn text(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    Ok(several(from, |from| from.int_in_range(0..=0x10_ffff))?.into_iter().flat_map(encoded).collect())
}

fn date(from: &mut Unstructured<'_>) -> Result<Date> {
    Ok((from.int_in_range(1..=9999)?, from.int_in_range(1..=12)?, from.int_in_range(1..=28)?))
}

fn time(from: &mut Unstructured<'_>) -> Result<Time> {
    let (hour, minute, second) = (from.int_in_range(0..=23)?, from.int_in_range(0..=59)?, from.int_in_range(0..=59)?);
    Ok((hour, minute, second, from.int_in_range(0..=999_999)?, from.arbitrary()?))
}
