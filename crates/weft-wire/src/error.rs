//! Why bytes were refused.

use std::error::Error;
use std::fmt;

use crate::format::VERSION;

/// What is wrong with the bytes, and `at` which of them (the first is 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the message names")]
pub enum WireError {
    /// The first byte is another version's.
    Version { found: u8 },
    /// There are more bytes than [`Limits::bytes`](crate::Limits::bytes).
    TooLong { length: usize, limit: usize },
    /// There are more values than [`Limits::count`](crate::Limits::count).
    TooMany { at: usize },
    /// More values are open around one another than [`Limits::depth`](crate::Limits::depth).
    TooDeep { at: usize, limit: usize },
    /// The bytes end where more must follow.
    Truncated { at: usize },
    /// No value has this tag.
    Tag { at: usize, tag: u8 },
    /// A number has more than 64 bits, or not its shortest form.
    Number { at: usize },
    /// A container is to have more contents than there are bytes for.
    Count { at: usize, claimed: u64 },
    /// A text is not UTF-8, surrogates allowed.
    Text { at: usize },
    /// There is no such day.
    Date { at: usize },
    /// There is no such time of day.
    Time { at: usize },
    /// There is no such duration.
    TimeDelta { at: usize },
    /// The same as a value that was not remembered.
    Same { at: usize, index: u64 },
    /// What is to be remembered is no value of its own: a value that is the same as another, or a second mark.
    Remember { at: usize },
    /// Where a data class has the name of a field is something else.
    FieldName { at: usize },
    /// Where a pickle has a buffer is something else.
    Buffer { at: usize },
    /// [`Reader::next`](crate::Reader::next) was called when the value had been read.
    Complete { at: usize },
    /// [`Reader::finish`](crate::Reader::finish) was called while the value was not yet read.
    Incomplete { at: usize, missing: usize },
    /// Bytes follow the value.
    Trailing { at: usize },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Version { found } => write!(
                f,
                "byte 0: the value is in version {found} of the format and version {VERSION} is read here; \
                 both places must run the same version of weft"
            ),
            Self::TooLong { length, limit } => write!(
                f,
                "byte {limit}: the value has {length} bytes, and no more than {limit} are accepted; send it in parts"
            ),
            Self::TooMany { at } => {
                write!(f, "byte {at}: the value consists of more values than are accepted; send it in parts")
            }
            Self::TooDeep { at, limit } => {
                write!(f, "byte {at}: the value is nested deeper than the {limit} levels that are accepted")
            }
            Self::Truncated { at } => write!(f, "byte {at}: the bytes end in the middle of a value"),
            Self::Tag { at, tag } => write!(f, "byte {at}: no value has the tag {tag}"),
            Self::Number { at } => write!(f, "byte {at}: a number with more than 64 bits or not in its shortest form"),
            Self::Count { at, claimed } => {
                write!(f, "byte {at}: a container of {claimed}, for which there are not enough bytes left")
            }
            Self::Text { at } => write!(f, "byte {at}: the text is not UTF-8"),
            Self::Date { at } => write!(f, "byte {at}: there is no such day"),
            Self::Time { at } => write!(f, "byte {at}: there is no such time of day"),
            Self::TimeDelta { at } => write!(f, "byte {at}: there is no such duration"),
            Self::Same { at, index } => write!(f, "byte {at}: the same as value {index}, which was not remembered"),
            Self::Remember { at } => write!(f, "byte {at}: what is to be remembered is no value of its own"),
            Self::FieldName { at } => write!(f, "byte {at}: the name of a field was expected"),
            Self::Buffer { at } => write!(f, "byte {at}: a buffer of a pickle was expected"),
            Self::Complete { at } => write!(f, "byte {at}: the value was complete, and nothing more is to be read"),
            Self::Incomplete { at, missing } => {
                write!(f, "byte {at}: the value is incomplete, at least {missing} more must be read")
            }
            Self::Trailing { at } => write!(f, "byte {at}: bytes follow the value"),
        }
    }
}

impl Error for WireError {}
