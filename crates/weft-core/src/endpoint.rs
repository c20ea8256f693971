//! The ends of a channel: counted senders and receivers, and a handle that keeps nothing open.
//!
//! The last [`Sender`] that goes closes the channel: what is in it is still delivered. The last [`Receiver`] that goes ends it for
//! the senders, at once. A [`Channel`] only refers to it. (Laws: docs/design/laws.md, L7 to L9.)

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::mem::ManuallyDrop;

use crate::chan::{Chan, End, Overflow, Statistics};
use crate::error::Cause;
use crate::primitives::{Arc, PlainArc};
use crate::recv::{self, Recv, RecvMany};
use crate::send::{self, Send, SendMany};

/// A channel with room for `capacity` values; with 0 a send completes only when a receiver took the value.
///
/// ```
/// let (tx, rx) = weft_core::channel(1);
/// tx.send("hello").wait().unwrap();
/// assert_eq!(rx.recv().wait().unwrap(), "hello");
/// ```
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    Channel::new(capacity).split()
}

/// A channel with room for any number of values: sends never wait.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    Channel::unbounded().split()
}

/// A channel, not counted as one of its ends: it can send and receive, and keeps nothing open.
///
/// ```
/// use weft_core::{Channel, Overflow};
/// let latest = Channel::with_overflow(1, Overflow::DropOldest);
/// let (tx, rx) = latest.split();
/// tx.send(1).wait().unwrap();
/// assert_eq!(tx.send(2).wait().unwrap(), Some(1)); // 1 made room
/// drop(tx); // the last sender closes it
/// assert_eq!(rx.into_iter().collect::<Vec<_>>(), [2]);
/// ```
pub struct Channel<T> {
    chan: Arc<Chan<T>>,
}

/// A counted end for sending. Dropping the last one closes the channel.
pub struct Sender<T> {
    chan: Arc<Chan<T>>,
    /// An end made when the channel had already ended counts for nothing.
    counted: bool,
}

/// A counted end for receiving. Dropping the last one makes every send fail, also those that wait.
pub struct Receiver<T> {
    chan: Arc<Chan<T>>,
    counted: bool,
}

impl<T> Channel<T> {
    /// With room for `capacity` values; 0 is a rendezvous.
    pub fn new(capacity: usize) -> Self {
        Self::with_overflow(capacity, Overflow::Block)
    }

    /// With room for any number of values.
    pub fn unbounded() -> Self {
        Self::over(Chan::new(None, Overflow::Block))
    }

    /// With room for `capacity` values, and a rule for one more: a send to a full channel waits, drops a value, or fails.
    ///
    /// With capacity 0, [`Overflow::DropOldest`] is [`Overflow::DropNewest`]: there is nothing older than the value itself.
    pub fn with_overflow(capacity: usize, overflow: Overflow) -> Self {
        Self::over(Chan::new(Some(capacity), overflow))
    }

    fn over(chan: Chan<T>) -> Self {
        Self { chan: Arc::new(chan) }
    }

    /// One more counted end for sending. After the channel has ended it counts for nothing, and its operations fail.
    pub fn sender(&self) -> Sender<T> {
        Sender { counted: self.chan.add_sender(), chan: Arc::clone(&self.chan) }
    }

    /// One more counted end for receiving. After the channel was poisoned, or its last receiver has left, it counts for nothing.
    pub fn receiver(&self) -> Receiver<T> {
        Receiver { counted: self.chan.add_receiver(), chan: Arc::clone(&self.chan) }
    }

    /// One end of each kind.
    pub fn split(&self) -> (Sender<T>, Receiver<T>) {
        (self.sender(), self.receiver())
    }
}

impl<T> Sender<T> {
    /// A handle to the channel that keeps nothing open.
    pub fn channel(&self) -> Channel<T> {
        Channel { chan: Arc::clone(&self.chan) }
    }

    /// This end is done, because of `cause`. The first cause that any end gave becomes the cause of the channel's end.
    pub fn close_with(self, cause: impl Error + core::marker::Send + Sync + 'static) {
        let mut this = ManuallyDrop::new(self);
        this.leave(Some(PlainArc::new(cause)));
        // SAFETY: never used again.
        unsafe { std::ptr::drop_in_place(&raw mut this.chan) };
    }

    fn leave(&mut self, cause: Option<Cause>) {
        if std::mem::take(&mut self.counted) {
            self.chan.remove_sender(cause).wake();
        }
    }
}

impl<T> Receiver<T> {
    /// A handle to the channel that keeps nothing open.
    pub fn channel(&self) -> Channel<T> {
        Channel { chan: Arc::clone(&self.chan) }
    }

    /// This end is done, because of `cause`, which senders are told if it was the last one.
    pub fn close_with(self, cause: impl Error + core::marker::Send + Sync + 'static) {
        let mut this = ManuallyDrop::new(self);
        this.leave(Some(PlainArc::new(cause)));
        // SAFETY: never used again.
        unsafe { std::ptr::drop_in_place(&raw mut this.chan) };
    }

    fn leave(&mut self, cause: Option<Cause>) {
        if std::mem::take(&mut self.counted) {
            let (values, wakes) = self.chan.remove_receiver(cause);
            wakes.wake();
            drop(values);
        }
    }

    pub(crate) fn chan(&self) -> &Arc<Chan<T>> {
        &self.chan
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.leave(None);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.leave(None);
    }
}

/// A channel of the raw layer, with the operations of this one.
impl<T> From<Arc<Chan<T>>> for Channel<T> {
    fn from(chan: Arc<Chan<T>>) -> Self {
        Self { chan }
    }
}

impl<T> Clone for Channel<T> {
    fn clone(&self) -> Self {
        Self { chan: Arc::clone(&self.chan) }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { counted: self.counted && self.chan.add_sender(), chan: Arc::clone(&self.chan) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { counted: self.counted && self.chan.add_receiver(), chan: Arc::clone(&self.chan) }
    }
}

/// What sends can do, for those that can send.
macro_rules! sending {
    ($type:ident) => {
        impl<T> $type<T> {
            /// Sends a value. The output is what the overflow policy dropped for it, usually `None`; an error gives the value back.
            #[inline]
            pub fn send(&self, value: T) -> Send<'_, T> {
                send::send(&self.chan, value)
            }

            /// Sends values from the front of `values`: waits until one was sent, then sends as many as there is room or a receiver for.
            /// The others stay in `values`, also after an error. With nothing to send it is done at once.
            ///
            /// ```
            /// use std::collections::VecDeque;
            /// let (tx, rx) = weft_core::channel(2);
            /// let mut values = VecDeque::from([1, 2, 3]);
            /// assert_eq!(tx.send_many(&mut values).wait().unwrap().count, 2);
            /// assert_eq!(values, [3]);
            /// # drop(rx);
            /// ```
            pub fn send_many<'a>(&'a self, values: &'a mut VecDeque<T>) -> SendMany<'a, T> {
                send::send_many(&self.chan, values)
            }
        }
    };
}

/// What receives can do, for those that can receive.
macro_rules! receiving {
    ($type:ident) => {
        impl<T> $type<T> {
            /// Receives a value.
            #[inline]
            pub fn recv(&self) -> Recv<'_, T> {
                recv::recv(&self.chan)
            }

            /// Receives values: waits until there is one, then takes as many as there are, at most `max` (0 counts as 1).
            ///
            /// ```
            /// let (tx, rx) = weft_core::unbounded();
            /// for n in 0..5 {
            ///     tx.send(n).wait().unwrap();
            /// }
            /// assert_eq!(rx.recv_many(3).wait().unwrap(), [0, 1, 2]);
            /// ```
            pub fn recv_many(&self, max: usize) -> RecvMany<'_, T> {
                recv::recv_many(&self.chan, max)
            }

            /// Receives, blocking this thread, until the channel has ended; [`end`](Self::end) tells how.
            pub fn iter(&self) -> Iter<'_, T> {
                Iter { chan: &self.chan }
            }
        }

        impl<'a, T> IntoIterator for &'a $type<T> {
            type Item = T;
            type IntoIter = Iter<'a, T>;

            fn into_iter(self) -> Iter<'a, T> {
                self.iter()
            }
        }
    };
}

/// What all of them can do.
macro_rules! common {
    ($type:ident, $word:literal) => {
        impl<T> $type<T> {
            /// No more values; those already in the channel, and those that wait to be sent, are still delivered.
            /// `false`: it had ended before.
            pub fn close_channel(&self) -> bool {
                let (first, wakes) = self.chan.close(None);
                wakes.wake();
                first
            }

            /// As [`close_channel`](Self::close_channel), with the reason: the source of the errors that follow.
            pub fn close_channel_with(&self, cause: impl Error + core::marker::Send + Sync + 'static) -> bool {
                let (first, wakes) = self.chan.close(Some(PlainArc::new(cause)));
                wakes.wake();
                first
            }

            /// The end for both sides, at once. What was still in the channel is returned, and counted as dropped; values
            /// that wait to be sent go back to their senders.
            pub fn poison(&self) -> VecDeque<T> {
                self.poison_for(None)
            }

            /// As [`poison`](Self::poison), with the reason: the source of the errors that follow.
            pub fn poison_with(&self, cause: impl Error + core::marker::Send + Sync + 'static) -> VecDeque<T> {
                self.poison_for(Some(PlainArc::new(cause)))
            }

            fn poison_for(&self, cause: Option<Cause>) -> VecDeque<T> {
                let (values, wakes) = self.chan.poison(cause);
                wakes.wake();
                values.unwrap_or_default()
            }

            /// How the channel ended, if it has, and the reason that was given.
            pub fn end(&self) -> Option<(End, Option<Cause>)> {
                let (end, cause) = self.chan.end();
                end.map(|end| (end, cause))
            }

            /// How many values are buffered.
            pub fn len(&self) -> usize {
                self.chan.len()
            }

            /// Whether nothing is buffered.
            pub fn is_empty(&self) -> bool {
                self.chan.is_empty()
            }

            /// How many values may be buffered; `None`: any number.
            pub fn capacity(&self) -> Option<usize> {
                self.chan.capacity()
            }

            /// Counts and totals, all of one moment.
            pub fn statistics(&self) -> Statistics {
                self.chan.statistics()
            }

            /// Whether both are ends of, or handles to, the same channel.
            pub fn same_channel(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.chan, &other.chan)
            }
        }

        impl<T> fmt::Debug for $type<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple($word).field(&self.statistics()).finish()
            }
        }
    };
}

sending!(Channel);
sending!(Sender);
receiving!(Channel);
receiving!(Receiver);
common!(Channel, "Channel");
common!(Sender, "Sender");
common!(Receiver, "Receiver");

/// Receives until the channel has ended; borrowed from what it receives with.
pub struct Iter<'a, T> {
    chan: &'a Chan<T>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        recv::recv(self.chan).wait().ok()
    }
}

/// Receives until the channel has ended; owns its end.
pub struct IntoIter<T> {
    receiver: Receiver<T>,
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().wait().ok()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self }
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Iter")
    }
}

impl<T> fmt::Debug for IntoIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntoIter")
    }
}

impl<T> Receiver<T> {
    /// The next value, or `None` when the channel has ended: for `while let Some(value) = rx.next().await`.
    pub async fn next(&self) -> Option<T> {
        self.recv().await.ok()
    }
}
