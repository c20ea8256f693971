//! What a reader hands out.

/// The beginning of a value, and all of it where nothing follows.
///
/// What follows a container is handed out by the calls of [`Reader::next`](crate::Reader::next) after it. Each text, and each name,
/// is UTF-8 in which surrogates may stand (Python's "surrogatepass").
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(missing_docs, reason = "the fields are those of Python's types")]
pub enum Token<'a> {
    /// None.
    None,
    /// True or False.
    Boolean(bool),
    /// An integer of 64 bits.
    Integer(i64),
    /// An integer in two's complement, its least byte first.
    BigInteger(&'a [u8]),
    /// A float.
    Float(f64),
    /// A complex number: real and imaginary part.
    Complex(f64, f64),
    /// A text.
    Text(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Bytes that can be changed.
    ByteArray(&'a [u8]),
    /// So many values follow.
    Tuple(usize),
    /// So many values follow.
    List(usize),
    /// So many pairs follow, each a key and its value.
    Dict(usize),
    /// So many values follow.
    Set(usize),
    /// So many values follow.
    FrozenSet(usize),
    /// A day that exists, in the years 1 to 9999.
    Date { year: u16, month: u8, day: u8 },
    /// A time of day. One value follows: its time zone, or None.
    Time { hour: u8, minute: u8, second: u8, microsecond: u32, fold: bool },
    /// A time of a day. One value follows: its time zone, or None.
    DateTime { year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8, microsecond: u32, fold: bool },
    /// A duration, normalised as Python's: only the days may be negative, and are within 999 999 999.
    TimeDelta { days: i32, seconds: i32, microseconds: i32 },
    /// The text of a decimal number. Whether it is one is for its builder to find out.
    Decimal(&'a [u8]),
    /// A UUID.
    Uuid([u8; 16]),
    /// A member of an enumeration, by name.
    Enumeration { module: &'a [u8], qualname: &'a [u8], member: &'a [u8] },
    /// An instance of a data class. For each field a `Text`, its name, and a value follow.
    DataClass { module: &'a [u8], qualname: &'a [u8], fields: usize },
    /// A pickle. As many `Attachment`s follow as it has buffers.
    Pickle { data: &'a [u8], buffers: usize },
    /// What travels beside the bytes under this number: 0, 1, 2, ... in the order of the tokens.
    Attachment(usize),
    /// The value that was remembered under this number, which may be one that is still being read: a list within itself.
    /// Of some types, a tuple say, no value can be within itself: that is for its builder to refuse.
    Same(usize),
    /// No value: the one that follows is to be remembered. The first so marked is number 0, the next 1, ...
    Remember,
}
