//! A value as a tree, for the tests and for fuzz/: any tree is written, and what is read is a tree again.

use proptest::collection::vec;
use proptest::prelude::*;
use weft_wire::{Limits, Reader, Token, WireError, Writer};

/// Floats are their bits, so that a NaN equals itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    None,
    Boolean(bool),
    Integer(i64),
    BigInteger(Vec<u8>),
    Float(u64),
    Complex(u64, u64),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    ByteArray(Vec<u8>),
    Tuple(Vec<Tree>),
    List(Vec<Tree>),
    Dict(Vec<(Tree, Tree)>),
    Set(Vec<Tree>),
    FrozenSet(Vec<Tree>),
    Date(Date),
    Time(Time, Box<Tree>),
    DateTime(Date, Time, Box<Tree>),
    TimeDelta(i32, i32, i32),
    Decimal(Vec<u8>),
    Uuid([u8; 16]),
    Enumeration(Vec<u8>, Vec<u8>, Vec<u8>),
    DataClass(Vec<u8>, Vec<u8>, Vec<(Vec<u8>, Tree)>),
    Pickle(Vec<u8>, Vec<usize>),
    Attachment(usize),
    Same(usize),
    Remembered(Box<Tree>),
}

pub type Date = (u16, u8, u8);
pub type Time = (u8, u8, u8, u32, bool);

impl Tree {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// The one value that these bytes are.
    pub fn from_bytes(bytes: &[u8], limits: &Limits) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes, limits)?;
        let tree = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(tree)
    }

    fn write(&self, to: &mut Writer) {
        match self {
            Self::None => to.none(),
            Self::Boolean(v) => to.boolean(*v),
            Self::Integer(v) => to.integer(*v),
            Self::BigInteger(v) => to.big_integer(v),
            Self::Float(v) => to.float(f64::from_bits(*v)),
            Self::Complex(re, im) => to.complex(f64::from_bits(*re), f64::from_bits(*im)),
            Self::Text(v) => to.text(v),
            Self::Bytes(v) => to.bytes(v),
            Self::ByteArray(v) => to.byte_array(v),
            Self::Tuple(values) => {
                to.tuple(values.len());
                values.iter().for_each(|value| value.write(to));
            }
            Self::List(values) => {
                to.list(values.len());
                values.iter().for_each(|value| value.write(to));
            }
            Self::Dict(pairs) => {
                to.dict(pairs.len());
                for (key, value) in pairs {
                    key.write(to);
                    value.write(to);
                }
            }
            Self::Set(values) => {
                to.set(values.len());
                values.iter().for_each(|value| value.write(to));
            }
            Self::FrozenSet(values) => {
                to.frozen_set(values.len());
                values.iter().for_each(|value| value.write(to));
            }
            Self::Date((year, month, day)) => to.date(*year, *month, *day),
            Self::Time((hour, minute, second, microsecond, fold), zone) => {
                to.time(*hour, *minute, *second, *microsecond, *fold);
                zone.write(to);
            }
            Self::DateTime((year, month, day), (hour, minute, second, microsecond, fold), zone) => {
                to.date_time(*year, *month, *day, *hour, *minute, *second, *microsecond, *fold);
                zone.write(to);
            }
            Self::TimeDelta(days, seconds, microseconds) => to.time_delta(*days, *seconds, *microseconds),
            Self::Decimal(text) => to.decimal(text),
            Self::Uuid(v) => to.uuid(*v),
            Self::Enumeration(module, qualname, member) => to.enumeration(module, qualname, member),
            Self::DataClass(module, qualname, fields) => {
                to.data_class(module, qualname, fields.len());
                for (name, value) in fields {
                    to.text(name);
                    value.write(to);
                }
            }
            Self::Pickle(data, buffers) => {
                to.pickle(data, buffers.len());
                buffers.iter().for_each(|_| to.attachment());
            }
            Self::Attachment(_) => to.attachment(),
            Self::Same(index) => to.same(*index),
            Self::Remembered(value) => {
                to.remember();
                value.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match from.next()? {
            Token::None => Self::None,
            Token::Boolean(v) => Self::Boolean(v),
            Token::Integer(v) => Self::Integer(v),
            Token::BigInteger(v) => Self::BigInteger(v.into()),
            Token::Float(v) => Self::Float(v.to_bits()),
            Token::Complex(re, im) => Self::Complex(re.to_bits(), im.to_bits()),
            Token::Text(v) => Self::Text(v.into()),
            Token::Bytes(v) => Self::Bytes(v.into()),
            Token::ByteArray(v) => Self::ByteArray(v.into()),
            Token::Tuple(count) => Self::Tuple(Self::several(count, from)?),
            Token::List(count) => Self::List(Self::several(count, from)?),
            Token::Dict(count) => {
                Self::Dict((0..count).map(|_| Ok((Self::read(from)?, Self::read(from)?))).collect::<Result<_, _>>()?)
            }
            Token::Set(count) => Self::Set(Self::several(count, from)?),
            Token::FrozenSet(count) => Self::FrozenSet(Self::several(count, from)?),
            Token::Date { year, month, day } => Self::Date((year, month, day)),
            Token::Time { hour, minute, second, microsecond, fold } => {
                Self::Time((hour, minute, second, microsecond, fold), Box::new(Self::read(from)?))
            }
            Token::DateTime { year, month, day, hour, minute, second, microsecond, fold } => Self::DateTime(
                (year, month, day),
                (hour, minute, second, microsecond, fold),
                Box::new(Self::read(from)?),
            ),
            Token::TimeDelta { days, seconds, microseconds } => Self::TimeDelta(days, seconds, microseconds),
            Token::Decimal(text) => Self::Decimal(text.into()),
            Token::Uuid(v) => Self::Uuid(v),
            Token::Enumeration { module, qualname, member } => {
                Self::Enumeration(module.into(), qualname.into(), member.into())
            }
            Token::DataClass { module, qualname, fields } => {
                let mut read = Vec::new();
                for _ in 0..fields {
                    let Self::Text(name) = Self::read(from)? else { panic!("a field without a name was handed out") };
                    read.push((name, Self::read(from)?));
                }
                Self::DataClass(module.into(), qualname.into(), read)
            }
            Token::Pickle { data, buffers } => {
                let mut read = Vec::new();
                for _ in 0..buffers {
                    let Self::Attachment(index) = Self::read(from)? else { panic!("no buffer was handed out") };
                    read.push(index);
                }
                Self::Pickle(data.into(), read)
            }
            Token::Attachment(index) => Self::Attachment(index),
            Token::Same(index) => Self::Same(index),
            Token::Remember => Self::Remembered(Box::new(Self::read(from)?)),
        })
    }

    fn several(count: usize, from: &mut Reader<'_>) -> Result<Vec<Self>, WireError> {
        (0..count).map(|_| Self::read(from)).collect()
    }

    /// Makes its references such as a writer would write: attachments are numbered in order, and only what was remembered before is
    /// named.
    pub fn settled(mut self) -> Self {
        self.settle(&mut 0, &mut 0);
        self
    }

    fn settle(&mut self, remembered: &mut usize, attached: &mut usize) {
        let mut number = |index: &mut usize| {
            *index = *attached;
            *attached += 1;
        };
        match self {
            Self::Tuple(values) | Self::List(values) | Self::Set(values) | Self::FrozenSet(values) => {
                values.iter_mut().for_each(|value| value.settle(remembered, attached));
            }
            Self::Dict(pairs) => {
                for (key, value) in pairs {
                    key.settle(remembered, attached);
                    value.settle(remembered, attached);
                }
            }
            Self::Time(_, zone) | Self::DateTime(_, _, zone) => zone.settle(remembered, attached),
            Self::DataClass(_, _, fields) => {
                fields.iter_mut().for_each(|(_, value)| value.settle(remembered, attached))
            }
            Self::Pickle(_, buffers) => buffers.iter_mut().for_each(number),
            Self::Attachment(index) => number(index),
            Self::Same(_) if *remembered == 0 => *self = Self::None,
            Self::Same(index) => *index %= *remembered,
            Self::Remembered(value) => {
                while let Self::Remembered(inner) = &mut **value {
                    *value = std::mem::replace(inner, Box::new(Self::None));
                }
                if let Self::Same(_) = **value {
                    **value = Self::None;
                }
                *remembered += 1;
                value.settle(remembered, attached);
            }
            _ => {}
        }
    }
}

/// Any text, in which surrogates may stand.
pub fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let character = prop_oneof![3 => 0..0x80_u32, 1 => 0..0x11_0000_u32, 1 => 0xd800..0xe000_u32];
    vec(character, 0..40).prop_map(|characters| characters.into_iter().flat_map(encoded).collect())
}

/// A code point in generalised UTF-8: as many bytes as its value needs, whether it is a surrogate or not.
pub fn encoded(point: u32) -> Vec<u8> {
    let six = |shift: u32| (point >> shift) as u8 & 0x3f | 0x80;
    match point {
        0..0x80 => vec![point as u8],
        0x80..0x800 => vec![(point >> 6) as u8 | 0xc0, six(0)],
        0x800..0x1_0000 => vec![(point >> 12) as u8 | 0xe0, six(6), six(0)],
        _ => vec![(point >> 18) as u8 | 0xf0, six(12), six(6), six(0)],
    }
}

/// Any tree that a writer may be asked to write.
pub fn any_tree() -> impl Strategy<Value = Tree> {
    let block = || vec(any::<u8>(), 0..300);
    let date = || (1..=9999_u16, 1..=12_u8, 1..=28_u8);
    let time = || (0..24_u8, 0..60_u8, 0..60_u8, 0..1_000_000_u32, any::<bool>());
    let leaf = prop_oneof![
        Just(Tree::None),
        any::<bool>().prop_map(Tree::Boolean),
        prop_oneof![-200..200_i64, any::<i64>()].prop_map(Tree::Integer),
        block().prop_map(Tree::BigInteger),
        any::<u64>().prop_map(Tree::Float),
        any::<(u64, u64)>().prop_map(|(re, im)| Tree::Complex(re, im)),
        any_text().prop_map(Tree::Text),
        block().prop_map(Tree::Bytes),
        block().prop_map(Tree::ByteArray),
        date().prop_map(Tree::Date),
        (-999_999_999..=999_999_999, 0..86_400, 0..1_000_000).prop_map(|(d, s, m)| Tree::TimeDelta(d, s, m)),
        any_text().prop_map(Tree::Decimal),
        any::<[u8; 16]>().prop_map(Tree::Uuid),
        (any_text(), any_text(), any_text()).prop_map(|(module, name, member)| Tree::Enumeration(module, name, member)),
        (block(), 0..4_usize).prop_map(|(data, buffers)| Tree::Pickle(data, vec![0; buffers])),
        Just(Tree::Attachment(0)),
        any::<usize>().prop_map(Tree::Same),
    ];
    leaf.prop_recursive(6, 100, 6, move |tree| {
        let several = || vec(tree.clone(), 0..6);
        prop_oneof![
            several().prop_map(Tree::Tuple),
            several().prop_map(Tree::List),
            vec((tree.clone(), tree.clone()), 0..4).prop_map(Tree::Dict),
            several().prop_map(Tree::Set),
            several().prop_map(Tree::FrozenSet),
            (time(), tree.clone()).prop_map(|(time, zone)| Tree::Time(time, zone.into())),
            (date(), time(), tree.clone()).prop_map(|(date, time, zone)| Tree::DateTime(date, time, zone.into())),
            (any_text(), any_text(), vec((any_text(), tree.clone()), 0..4))
                .prop_map(|(module, name, fields)| Tree::DataClass(module, name, fields)),
            tree.clone().prop_map(|value| Tree::Remembered(value.into())),
        ]
    })
    .prop_map(Tree::settled)
}
