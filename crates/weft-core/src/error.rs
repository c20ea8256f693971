//! Why a channel ended, and the errors of each operation, each giving the value back.

use std::error::Error;
use std::fmt;

use crate::chan::{End, Outcome};

/// The reason given by whoever ended a channel; the errors of the operations have it as their source.
pub type Cause = crate::primitives::PlainArc<dyn Error + Send + Sync>;

/// Why a send did not happen. Every variant gives the value back.
///
/// [`send_many`](crate::Sender::send_many) leaves the values with its caller, so its error is a `SendError<()>`.
#[derive(Clone)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The channel is full and its policy is [`Overflow::Error`](crate::Overflow::Error).
    Full(T),
    /// The channel was closed.
    Closed(T, Option<Cause>),
    /// The last receiver has left.
    NoReceivers(T, Option<Cause>),
    /// The channel was poisoned.
    Poisoned(T, Option<Cause>),
    /// `try_now` only: nobody takes the value now, and there is no room.
    WouldBlock(T),
    /// `wait_timeout` and `wait_until` only: the time is over, and nobody took the value.
    Timeout(T),
}

/// Why nothing was received.
#[derive(Clone)]
#[non_exhaustive]
pub enum RecvError {
    /// The channel has ended and everything in it was delivered.
    Closed(Option<Cause>),
    /// The channel was poisoned.
    Poisoned(Option<Cause>),
    /// `try_now` only: nothing is there now.
    WouldBlock,
    /// `wait_timeout` and `wait_until` only: the time is over, and nothing came.
    Timeout,
}

/// Why a barrier was not passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SyncError {
    /// `try_now` only: other parties are missing.
    WouldBlock,
    /// `wait_timeout` and `wait_until` only: the time is over, and other parties are missing.
    Timeout,
}

impl<T> SendError<T> {
    pub(crate) fn of(value: T, outcome: Outcome, cause: Option<Cause>) -> Self {
        match outcome {
            Outcome::Full => Self::Full(value),
            Outcome::Ended(End::NoReceivers) => Self::NoReceivers(value, cause),
            Outcome::Ended(End::Poisoned) => Self::Poisoned(value, cause),
            Outcome::Ended(End::Closed) | Outcome::Pending | Outcome::Done => Self::Closed(value, cause),
        }
    }

    /// The value that was not sent.
    pub fn into_value(self) -> T {
        match self {
            Self::Full(value)
            | Self::Closed(value, _)
            | Self::NoReceivers(value, _)
            | Self::Poisoned(value, _)
            | Self::WouldBlock(value)
            | Self::Timeout(value) => value,
        }
    }

    /// Why the channel ended, if it has and somebody said why.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Closed(_, cause) | Self::NoReceivers(_, cause) | Self::Poisoned(_, cause) => cause.as_ref(),
            Self::Full(_) | Self::WouldBlock(_) | Self::Timeout(_) => None,
        }
    }

    fn parts(&self) -> (&'static str, &'static str, &T) {
        match self {
            Self::Full(value) => ("Full", "the channel is full", value),
            Self::Closed(value, _) => ("Closed", "the channel is closed", value),
            Self::NoReceivers(value, _) => ("NoReceivers", "the channel's last receiver has left", value),
            Self::Poisoned(value, _) => ("Poisoned", "the channel was poisoned", value),
            Self::WouldBlock(value) => ("WouldBlock", "nobody receives now and there is no room", value),
            Self::Timeout(value) => ("Timeout", "nobody received in time and there was no room", value),
        }
    }
}

impl RecvError {
    pub(crate) fn of(outcome: Outcome, cause: Option<Cause>) -> Self {
        match outcome {
            Outcome::Ended(End::Poisoned) => Self::Poisoned(cause),
            _ => Self::Closed(cause),
        }
    }

    /// Why the channel ended, if it has and somebody said why.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Closed(cause) | Self::Poisoned(cause) => cause.as_ref(),
            Self::WouldBlock | Self::Timeout => None,
        }
    }

    fn parts(&self) -> (&'static str, &'static str) {
        match self {
            Self::Closed(_) => ("Closed", "the channel is closed and empty"),
            Self::Poisoned(_) => ("Poisoned", "the channel was poisoned"),
            Self::WouldBlock => ("WouldBlock", "nothing to receive now"),
            Self::Timeout => ("Timeout", "nothing came in time"),
        }
    }
}

fn same(one: Option<&Cause>, other: Option<&Cause>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Cause::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

fn source(cause: Option<&Cause>) -> Option<&(dyn Error + 'static)> {
    cause.map(|cause| &**cause as &(dyn Error + 'static))
}

/// Equal when kind and value are, and the cause is the same object.
impl<T: PartialEq> PartialEq for SendError<T> {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.parts().2 == other.parts().2
            && same(self.cause(), other.cause())
    }
}

/// Equal when the kind is, and the cause is the same object.
impl PartialEq for RecvError {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && same(self.cause(), other.cause())
    }
}

// Not derived: the value need not be printable for the error to be.
impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple(self.parts().0);
        if let Some(cause) = self.cause() {
            tuple.field(cause);
        }
        tuple.finish_non_exhaustive()
    }
}

impl fmt::Debug for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple(self.parts().0);
        if let Some(cause) = self.cause() {
            tuple.field(cause);
        }
        tuple.finish()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parts().1)
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parts().1)
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldBlock => "other parties of the barrier are missing",
            Self::Timeout => "other parties of the barrier did not come in time",
        })
    }
}

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        source(self.cause())
    }
}

impl Error for RecvError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        source(self.cause())
    }
}

impl Error for SyncError {}
