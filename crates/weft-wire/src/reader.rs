//! A reader: hands out one token after another, and knows what is still to come.
//!
//! True between two calls:
//!   1. `inner` is the innermost value that is open, `outer` are those around it; the first of all is not a value but the whole, of
//!      which one value is expected.
//!   2. `owed` is the sum of what they expect. `inner` expects something unless nothing is owed any more.
//!   3. `allowed` is how many values more may be promised: what a container promises is taken from it at once.
//!
//! A container's count is compared with the bytes that are left, less one for each value that is owed already. So all containers
//! together, nested as they may be, promise no more values than there are bytes, and who receives them may reserve memory for each.
//!
//! A method that fails leaves the counts as they were: whatever is called afterwards, these invariants hold.

use smallvec::SmallVec;

use crate::calendar::{is_date, is_time, is_time_delta};
use crate::error::WireError;
use crate::format::{VERSION, tag};
use crate::limits::Limits;
use crate::text;
use crate::token::Token;

/// Reads one value, as [`format`](mod@crate::format) says.
///
/// Whatever the bytes are, it does not panic. When a method has failed, the reader is of no more use.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The length of the whole: errors say where they are.
    length: usize,
    inner: Open,
    outer: SmallVec<[Open; 8]>,
    owed: usize,
    allowed: usize,
    depth: usize,
    remembered: usize,
    attached: usize,
    /// The last token was `Remember`.
    remembering: bool,
}

/// A value of which something is still to come.
#[derive(Clone, Copy, Debug)]
struct Open {
    expected: usize,
    contents: Contents,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contents {
    Values,
    /// In turn a field's name and its value; a name when an even number is expected.
    Fields,
    Attachments,
}

impl<'a> Reader<'a> {
    /// A reader of these bytes, which are to be one value and nothing else.
    ///
    /// # Errors
    /// The first byte is not the version, or there are more bytes than the limits allow.
    #[inline]
    pub fn new(bytes: &'a [u8], limits: &Limits) -> Result<Self, WireError> {
        if bytes.len() > limits.bytes {
            return Err(WireError::TooLong { length: bytes.len(), limit: limits.bytes });
        }
        let rest = match bytes {
            [VERSION, rest @ ..] => rest,
            [found, ..] => return Err(WireError::Version { found: *found }),
            [] => return Err(WireError::Truncated { at: 0 }),
        };
        let Some(allowed) = limits.count.checked_sub(1) else {
            return Err(WireError::TooMany { at: 1 });
        };
        Ok(Self {
            rest,
            length: bytes.len(),
            inner: Open { expected: 1, contents: Contents::Values },
            outer: SmallVec::new(),
            owed: 1,
            allowed,
            depth: limits.depth,
            remembered: 0,
            attached: 0,
            remembering: false,
        })
    }

    /// The next token.
    ///
    /// # Errors
    /// The bytes are malformed or exceed the limits here, or the value was complete already.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "an iterator would end where this fails")]
    pub fn next(&mut self) -> Result<Token<'a>, WireError> {
        let at = self.position();
        if self.owed == 0 {
            return Err(WireError::Complete { at });
        }
        let [tag] = self.fixed()?;
        if self.remembering || self.inner.contents != Contents::Values {
            self.check_place(tag, at)?;
        }
        let token = match tag {
            tag::NONE => Token::None,
            tag::FALSE => Token::Boolean(false),
            tag::TRUE => Token::Boolean(true),
            tag::INTEGER => {
                let number = self.number()?;
                Token::Integer((number >> 1) as i64 ^ -((number & 1) as i64))
            }
            tag::BIG_INTEGER => Token::BigInteger(self.block()?),
            tag::FLOAT => Token::Float(f64::from_le_bytes(self.fixed()?)),
            tag::COMPLEX => Token::Complex(f64::from_le_bytes(self.fixed()?), f64::from_le_bytes(self.fixed()?)),
            tag::TEXT => Token::Text(self.text()?),
            tag::BYTES => Token::Bytes(self.block()?),
            tag::BYTE_ARRAY => Token::ByteArray(self.block()?),
            tag::TUPLE => return self.container(1, Contents::Values, at).map(Token::Tuple),
            tag::LIST => return self.container(1, Contents::Values, at).map(Token::List),
            tag::DICT => return self.container(2, Contents::Values, at).map(Token::Dict),
            tag::SET => return self.container(1, Contents::Values, at).map(Token::Set),
            tag::FROZEN_SET => return self.container(1, Contents::Values, at).map(Token::FrozenSet),
            tag::DATE => {
                let (year, month, day) = self.date(at)?;
                Token::Date { year, month, day }
            }
            tag::TIME => {
                let (hour, minute, second, microsecond, fold) = self.time(at)?;
                self.open(1, Contents::Values, at)?;
                return Ok(Token::Time { hour, minute, second, microsecond, fold });
            }
            tag::DATE_TIME => {
                let (year, month, day) = self.date(at)?;
                let (hour, minute, second, microsecond, fold) = self.time(at)?;
                self.open(1, Contents::Values, at)?;
                return Ok(Token::DateTime { year, month, day, hour, minute, second, microsecond, fold });
            }
            tag::TIME_DELTA => {
                let days = i32::from_le_bytes(self.fixed()?);
                let seconds = i32::from_le_bytes(self.fixed()?);
                let microseconds = i32::from_le_bytes(self.fixed()?);
                if !is_time_delta(days, seconds, microseconds) {
                    return Err(WireError::TimeDelta { at });
                }
                Token::TimeDelta { days, seconds, microseconds }
            }
            tag::DECIMAL => Token::Decimal(self.text()?),
            tag::UUID => Token::Uuid(self.fixed()?),
            tag::ENUMERATION => {
                Token::Enumeration { module: self.text()?, qualname: self.text()?, member: self.text()? }
            }
            tag::DATA_CLASS => {
                let (module, qualname) = (self.text()?, self.text()?);
                let fields = self.container(2, Contents::Fields, at)?;
                return Ok(Token::DataClass { module, qualname, fields });
            }
            tag::PICKLE => {
                let data = self.block()?;
                let buffers = self.container(1, Contents::Attachments, at)?;
                return Ok(Token::Pickle { data, buffers });
            }
            tag::ATTACHMENT => {
                self.attached += 1;
                Token::Attachment(self.attached - 1)
            }
            tag::SAME => {
                let index = self.number()?;
                if index >= self.remembered as u64 {
                    return Err(WireError::Same { at, index });
                }
                Token::Same(index as usize)
            }
            tag::REMEMBER => {
                self.remembered += 1;
                self.remembering = true;
                return Ok(Token::Remember);
            }
            _ => return Err(WireError::Tag { at, tag }),
        };
        self.complete();
        Ok(token)
    }

    /// Ends the reading: the value is complete, and nothing follows it.
    ///
    /// # Errors
    /// Something of the value was not read, or bytes follow it.
    #[inline]
    pub fn finish(self) -> Result<(), WireError> {
        if self.owed > 0 {
            return Err(WireError::Incomplete { at: self.position(), missing: self.owed });
        }
        if !self.rest.is_empty() {
            return Err(WireError::Trailing { at: self.position() });
        }
        Ok(())
    }

    #[inline]
    fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    #[cold]
    fn truncated(&self) -> WireError {
        WireError::Truncated { at: self.length }
    }

    /// Whether a value with this tag may stand where not every value may.
    fn check_place(&mut self, tag: u8, at: usize) -> Result<(), WireError> {
        if std::mem::take(&mut self.remembering) && matches!(tag, tag::SAME | tag::REMEMBER) {
            return Err(WireError::Remember { at });
        }
        match self.inner.contents {
            Contents::Fields if self.inner.expected.is_multiple_of(2) && tag != tag::TEXT => {
                Err(WireError::FieldName { at })
            }
            Contents::Attachments if tag != tag::ATTACHMENT => Err(WireError::Buffer { at }),
            _ => Ok(()),
        }
    }

    /// A value is complete, and with it each one whose last content it was.
    #[inline]
    fn complete(&mut self) {
        self.owed -= 1;
        self.inner.expected -= 1;
        while self.inner.expected == 0 {
            match self.outer.pop() {
                Some(outer) => self.inner = outer,
                None => break,
            }
        }
    }

    /// The number of a container's contents, which are `each` values apiece.
    #[inline]
    fn container(&mut self, each: usize, contents: Contents, at: usize) -> Result<usize, WireError> {
        let claimed = self.number()?;
        let others = self.owed - 1;
        if claimed > (self.rest.len().saturating_sub(others) / each) as u64 {
            return Err(WireError::Count { at, claimed });
        }
        let count = claimed as usize;
        self.open(count * each, contents, at)?;
        Ok(count)
    }

    /// A value has begun, of which so many others are part.
    #[inline]
    fn open(&mut self, values: usize, contents: Contents, at: usize) -> Result<(), WireError> {
        if values == 0 {
            self.complete();
            return Ok(());
        }
        if values > self.allowed {
            return Err(WireError::TooMany { at });
        }
        if self.outer.len() >= self.depth {
            return Err(WireError::TooDeep { at, limit: self.depth });
        }
        self.allowed -= values;
        self.owed += values - 1;
        self.inner.expected -= 1;
        self.outer.push(self.inner);
        self.inner = Open { expected: values, contents };
        Ok(())
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((head, rest)) = self.rest.split_first_chunk() else {
            return Err(self.truncated());
        };
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [byte @ 0..=0x7f, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64, WireError> {
        let at = self.position();
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.fixed()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has the last bit; an end in 0 could have been left out.
            if (bits << shift) >> shift != bits || byte == 0 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(WireError::Number { at })
    }

    #[inline]
    fn block(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.number()?;
        let Some((block, rest)) = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length))
        else {
            return Err(self.truncated());
        };
        self.rest = rest;
        Ok(block)
    }

    #[inline]
    fn text(&mut self) -> Result<&'a [u8], WireError> {
        let block = self.block()?;
        match text::check(block) {
            Ok(()) => Ok(block),
            Err(offset) => Err(WireError::Text { at: self.position() - block.len() + offset }),
        }
    }

    fn date(&mut self, at: usize) -> Result<(u16, u8, u8), WireError> {
        let year = u16::from_le_bytes(self.fixed()?);
        let [month, day] = self.fixed()?;
        if is_date(year, month, day) { Ok((year, month, day)) } else { Err(WireError::Date { at }) }
    }

    fn time(&mut self, at: usize) -> Result<(u8, u8, u8, u32, bool), WireError> {
        let [hour, minute, second, fold] = self.fixed()?;
        let microsecond = u32::from_le_bytes(self.fixed()?);
        if is_time(hour, minute, second, microsecond, fold) {
            Ok((hour, minute, second, microsecond, fold == 1))
        } else {
            Err(WireError::Time { at })
        }
    }
}
