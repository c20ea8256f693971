//! A standing select over counted receivers, for Rust programs; the work is done in selecting.rs.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::chan::{End, Wakes};
use crate::endpoint::Receiver;
use crate::park;
use crate::selecting::{Key, Next, Selecting};

/// Receives from many channels, at a cost per value that does not depend on how many there are. Fair: a channel that was just served is
/// served again only after those that had something meanwhile. Values are taken only when asked for.
///
/// ```
/// use weft_core::{Standing, channel};
/// let (a, b) = (channel(2), channel(2));
/// for n in [1, 2] {
///     a.0.send(n).wait().unwrap();
///     b.0.send(n * 10).wait().unwrap();
/// }
/// drop((a.0, b.0));
///
/// let mut standing = Standing::new();
/// let (first, second) = (standing.add(a.1), standing.add(b.1));
/// let served: Vec<_> = standing.iter().collect();
/// assert_eq!(served, [(first, 1), (second, 10), (first, 2), (second, 20)]);
/// ```
pub struct Standing<T> {
    // First, so that a value it gives back when it goes finds its receiver still there.
    raw: Selecting<T>,
    /// By place.
    receivers: Vec<Option<(Key, Receiver<T>)>>,
}

/// What a [`Standing`] select gives.
#[derive(Debug)]
#[non_exhaustive]
pub enum Served<T> {
    /// A value from a channel.
    Value(Key, T),
    /// A channel has ended, and has left; this was its receiver, whose [`end`](Receiver::end) tells the reason.
    Left(Key, End, Receiver<T>),
}

impl<T> Default for Standing<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Standing<T> {
    /// With no channel.
    pub fn new() -> Self {
        Self { raw: Selecting::new(), receivers: Vec::new() }
    }

    /// One more channel.
    pub fn add(&mut self, receiver: Receiver<T>) -> Key {
        let (place, wakes) = self.raw.add(receiver.chan().clone());
        let Some(key) = self.raw.key(place) else {
            unreachable!("it was just registered");
        };
        if self.receivers.len() <= place as usize {
            self.receivers.resize_with(place as usize + 1, || None);
        }
        self.receivers[place as usize] = Some((key, receiver));
        wakes.wake();
        key
    }

    /// Takes a channel out; `None` when it has left.
    pub fn discard(&mut self, key: Key) -> Option<Receiver<T>> {
        let (value, chan) = self.raw.discard_key(key)?;
        let (_, receiver) = self.receivers[key.place() as usize].take()?;
        if let Some(value) = value {
            // Handed to us while we waited, and never asked for.
            let (refused, wakes) = chan.give_back(value);
            wakes.wake();
            drop(refused);
        }
        Some(receiver)
    }

    /// How many channels there are.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether there is none: then nothing will come.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Blocks until a channel has a value or has ended. `None`: no channel is left.
    pub fn wait(&mut self) -> Option<Served<T>> {
        self.perform(None)
    }

    /// As [`wait`](Self::wait), but gives up at `deadline`; `None` then, too.
    pub fn wait_until(&mut self, deadline: Instant) -> Option<Served<T>> {
        self.perform(Some(deadline))
    }

    /// As [`wait`](Self::wait), but gives up after `timeout`; `None` then, too.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Served<T>> {
        self.perform(Instant::now().checked_add(timeout))
    }

    /// What is there now, without waiting.
    pub fn try_now(&mut self) -> Option<Served<T>> {
        match self.attempt(park::waker) {
            Poll::Ready(served) => served,
            Poll::Pending => self.give_up(),
        }
    }

    /// Waits until a channel has a value or has ended; `None`: no channel is left. Dropping the future takes no value.
    // Named as in every stream; an iterator's would block.
    #[expect(clippy::should_implement_trait)]
    pub fn next(&mut self) -> NextServed<'_, T> {
        NextServed { standing: Some(self) }
    }

    /// The values with their keys, blocking this thread, until no channel is left.
    pub fn iter(&mut self) -> impl Iterator<Item = (Key, T)> {
        std::iter::from_fn(|| {
            loop {
                match self.wait()? {
                    Served::Value(key, value) => return Some((key, value)),
                    Served::Left(..) => {}
                }
            }
        })
    }

    fn perform(&mut self, limit: Option<Instant>) -> Option<Served<T>> {
        // A future that was leaked may have left it waiting, for somebody else to be woken.
        self.raw.refresh(&park::waker());
        loop {
            if let Poll::Ready(served) = self.attempt(park::waker) {
                return served;
            }
            // SAFETY: the waiter belongs to `raw`, which is borrowed.
            if !park::wait(unsafe { &*self.raw.waiter() }, limit) {
                return self.give_up();
            }
        }
    }

    /// Stops waiting; what has come in this moment is not lost.
    fn give_up(&mut self) -> Option<Served<T>> {
        while !self.raw.withdraw() {
            if let Poll::Ready(served) = self.attempt(park::waker) {
                return served;
            }
        }
        None
    }

    fn attempt(&mut self, waker: impl FnMut() -> std::task::Waker) -> Poll<Option<Served<T>>> {
        let mut wakes = Wakes::new();
        let next = self.raw.next(waker, &mut wakes);
        wakes.wake();
        match next {
            Next::Value(place, value) => match self.raw.key(place) {
                Some(key) => Poll::Ready(Some(Served::Value(key, value))),
                None => unreachable!("whoever was served is registered"),
            },
            Next::Left(place, end, _) => match self.receivers[place as usize].take() {
                Some((key, receiver)) => Poll::Ready(Some(Served::Left(key, end, receiver))),
                None => unreachable!("each place has its receiver"),
            },
            Next::Parked => Poll::Pending,
            Next::Empty => Poll::Ready(None),
        }
    }
}

impl<T> fmt::Debug for Standing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Standing({} channels)", self.len())
    }
}

/// The next event of a [`Standing`] select; a future.
#[must_use = "a future does nothing until it is awaited"]
pub struct NextServed<'a, T> {
    standing: Option<&'a mut Standing<T>>,
}

impl<T> Future for NextServed<'_, T> {
    type Output = Option<Served<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(standing) = &mut self.standing else {
            panic!("polled after it was ready");
        };
        standing.raw.refresh(context.waker());
        let served = standing.attempt(|| context.waker().clone());
        if served.is_ready() {
            self.standing = None;
        }
        served
    }
}

impl<T> Drop for NextServed<'_, T> {
    fn drop(&mut self) {
        if let Some(standing) = &mut self.standing {
            // When something has come already, it is told the next time.
            standing.raw.withdraw();
        }
    }
}

impl<T> fmt::Debug for NextServed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NextServed")
    }
}
