//! A value that belongs to no interpreter: bytes that one place writes and another reads.
//!
//! The place that sends walks its value and calls a [`Writer`]; the place that receives takes one [`Token`] after another from a
//! [`Reader`] and builds the value anew. What cannot or should not become bytes, a block of memory or an end of a channel, travels
//! beside them as an *attachment*, and only its number is in the bytes. [`format`](mod@format) is what the bytes mean.
//!
//! The reader takes bytes from anywhere: it never panics, and hands out no number that it has not compared with the [`Limits`] and
//! with what is left of the bytes. That guards against damage and mistakes, not against malice: a pickle may run anything.
//!
//! ```
//! use weft_wire::{Limits, Reader, Token, Writer};
//!
//! let mut writer = Writer::new(); // (7, [the same list])
//! writer.tuple(2);
//! writer.integer(7);
//! writer.remember();
//! writer.list(1);
//! writer.same(0);
//! let bytes = writer.into_bytes();
//!
//! let mut reader = Reader::new(&bytes, &Limits::default())?;
//! assert_eq!(reader.next()?, Token::Tuple(2));
//! assert_eq!(reader.next()?, Token::Integer(7));
//! assert_eq!(reader.next()?, Token::Remember);
//! assert_eq!(reader.next()?, Token::List(1));
//! assert_eq!(reader.next()?, Token::Same(0));
//! reader.finish()?;
//! # Ok::<(), weft_wire::WireError>(())
//! ```
#![forbid(unsafe_code)]

mod calendar;
mod error;
pub mod format;
mod limits;
mod reader;
mod text;
mod token;
mod writer;

pub use error::WireError;
pub use limits::Limits;
pub use reader::Reader;
pub use token::Token;
pub use writer::Writer;
