//! What the bytes mean.
//!
//! The first byte is the format's version, 1; then comes one value. A value is a tag and what belongs to it:
//!
//! | tag | value | after the tag |
//! |---|---|---|
//! | 0 | None | |
//! | 1, 2 | False, True | |
//! | 3 | integer of 64 bits | *number*: 0, -1, 1, -2, ... are 0, 1, 2, 3, ... |
//! | 4 | any other integer | *block*: two's complement, its least byte first |
//! | 5, 6 | float, complex | 8 bytes each part: IEEE 754 |
//! | 7 | text | *text* |
//! | 8, 9 | bytes, bytearray | *block* |
//! | 10, 11 | tuple, list | *number* n, n values |
//! | 12 | dict | *number* n, n times a key and its value |
//! | 13, 14 | set, frozenset | *number* n, n values |
//! | 15 | date | year (2 bytes), month, day |
//! | 16 | time | hour, minute, second, fold, microsecond (4 bytes); a value: the time zone or None |
//! | 17 | datetime | as a date, as a time; a value: the time zone or None |
//! | 18 | timedelta | days, seconds, microseconds (4 bytes each, signed) |
//! | 19 | decimal | *text* |
//! | 20 | UUID | 16 bytes |
//! | 21 | member of an enumeration | *text* three times: module, qualified name, member |
//! | 22 | data class | *text* twice: module, qualified name; *number* n, n times a field's name (a value with tag 7) and its value |
//! | 23 | pickle | *block*; *number* n, n attachments (values with tag 24): its buffers |
//! | 24 | attachment | the first in the bytes is number 0, the next 1, ... |
//! | 25 | the same as an earlier value | *number*: which of those that were remembered |
//! | 26 | (no value) | the value that follows is remembered: the first 0, the next 1, ...; its number counts from here on |
//!
//! - A *number* has no sign and at most 64 bits: seven in each byte, the least first, and the highest bit says that more follow
//!   (LEB128). Only the shortest form is valid.
//! - A *block* is a number, its length, and as many bytes.
//! - A *text* is a block of UTF-8 in which a surrogate (U+D800 to U+DFFF) may stand as three bytes: Python's "surrogatepass".
//! - All else is little-endian.
//!
//! So a value has one form only, and what a reader took a writer would write again byte for byte.
//!
//! Remembered is a value that is met again while the whole is walked: two references to one list, or a list within itself. Neither
//! another such mark nor tag 25 may follow tag 26, nor may it stand before a field's name or a pickle's buffer.

/// The first byte of all that is written and read.
pub const VERSION: u8 = 1;

pub(crate) mod tag {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const FALSE: u8 = 1;
    pub(crate) const TRUE: u8 = 2;
    pub(crate) const INTEGER: u8 = 3;
    pub(crate) const BIG_INTEGER: u8 = 4;
    pub(crate) const FLOAT: u8 = 5;
    pub(crate) const COMPLEX: u8 = 6;
    pub(crate) const TEXT: u8 = 7;
    pub(crate) const BYTES: u8 = 8;
    pub(crate) const BYTE_ARRAY: u8 = 9;
    pub(crate) const TUPLE: u8 = 10;
    pub(crate) const LIST: u8 = 11;
    pub(crate) const DICT: u8 = 12;
    pub(crate) const SET: u8 = 13;
    pub(crate) const FROZEN_SET: u8 = 14;
    pub(crate) const DATE: u8 = 15;
    pub(crate) const TIME: u8 = 16;
    pub(crate) const DATE_TIME: u8 = 17;
    pub(crate) const TIME_DELTA: u8 = 18;
    pub(crate) const DECIMAL: u8 = 19;
    pub(crate) const UUID: u8 = 20;
    pub(crate) const ENUMERATION: u8 = 21;
    pub(crate) const DATA_CLASS: u8 = 22;
    pub(crate) const PICKLE: u8 = 23;
    pub(crate) const ATTACHMENT: u8 = 24;
    pub(crate) const SAME: u8 = 25;
    pub(crate) const REMEMBER: u8 = 26;
}
