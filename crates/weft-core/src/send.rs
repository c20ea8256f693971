//! Sending as an operation: one value, or many.

use std::collections::VecDeque;

use crate::chan::{Chan, Outcome, Wakes};
use crate::error::SendError;
use crate::op::{Fallible, Kind, Op};
use crate::select::Gate;
use crate::waitq::Node;

/// Sending one value: what [`Sender::send`](crate::Sender::send) returns.
///
/// Its output is what the overflow policy dropped to make room, usually `None`, or an error that gives the value back.
pub type Send<'a, T> = Op<Offer<'a, T>>;

/// Sending many values: what [`Sender::send_many`](crate::Sender::send_many) returns.
pub type SendMany<'a, T> = Op<OfferMany<'a, T>>;

/// The kind of [`Send`].
#[doc(hidden)]
pub struct Offer<'a, T> {
    chan: &'a Chan<T>,
}

/// The kind of [`SendMany`].
#[doc(hidden)]
pub struct OfferMany<'a, T> {
    chan: &'a Chan<T>,
    // Without the first, which is in the slot until it was sent or the operation is over.
    values: &'a mut VecDeque<T>,
    /// There is nothing to send: it is done at once.
    empty: bool,
}

/// What became of many values.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Batch<T> {
    /// How many were sent, counted from the front.
    pub count: usize,
    /// What the overflow policy dropped for them.
    pub displaced: Vec<T>,
}

pub(crate) fn send<T>(chan: &Chan<T>, value: T) -> Send<'_, T> {
    Op::new(Offer { chan }, Some(value))
}

pub(crate) fn send_many<'a, T>(chan: &'a Chan<T>, values: &'a mut VecDeque<T>) -> SendMany<'a, T> {
    let first = values.pop_front();
    let empty = first.is_none();
    Op::new(OfferMany { chan, values, empty }, first)
}

#[cold]
fn failed<T, U>(chan: &Chan<T>, value: U, outcome: Outcome) -> SendError<U> {
    SendError::of(value, outcome, chan.end().1)
}

// SAFETY: all is the channel's, under its lock; `commit_send` decides the slot.
unsafe impl<T> Kind for Offer<'_, T> {
    type Slot = T;
    type Output = Result<Option<T>, SendError<T>>;

    #[inline]
    fn hint(&self) -> Option<bool> {
        Some(self.chan.may_send())
    }

    #[inline(always)]
    fn now(&mut self, slot: &mut Option<T>) -> Option<Self::Output> {
        let (answer, wakes) = self.chan.try_send(slot.take()?);
        wakes.wake();
        match answer {
            Ok(displaced) => Some(Ok(displaced)),
            Err((value, Outcome::Pending)) => {
                *slot = Some(value);
                None
            }
            Err((value, outcome)) => Some(Err(failed(self.chan, value, outcome))),
        }
    }

    #[inline]
    fn gate(&self) -> Option<&Gate> {
        Some(Gate::of(&self.chan.lock))
    }
    #[inline]
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller holds the lock, here and below.
        unsafe { self.chan.with_locked(|state| state.send_is_ready()) }
    }
    #[inline]
    unsafe fn commit(&self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        // SAFETY: as above, and owns the slot, which holds the value.
        unsafe { self.chan.with_locked(|state| state.commit_send(node, wakes)) }
    }
    #[inline]
    unsafe fn park(&self, node: &Node<T>) {
        // SAFETY: the caller's promise.
        unsafe { self.chan.with_locked(|state| state.park(node, true)) }
    }
    #[inline]
    unsafe fn unlink(&self, node: &Node<T>) {
        // SAFETY: as above; the node can only be in this channel's queues.
        unsafe { self.chan.with_locked(|state| state.unlink(node)) };
    }

    #[inline]
    fn conclude(&mut self, slot: Option<T>, outcome: Outcome) -> Self::Output {
        match (slot, outcome) {
            (displaced, Outcome::Done) => Ok(displaced),
            (Some(value), outcome) => Err(failed(self.chan, value, outcome)),
            (None, _) => unreachable!("a send that failed has its value"),
        }
    }

    fn undo(&mut self, slot: Option<T>, _: Outcome) {
        // What was sent is sent; what was displaced, or could not be sent, goes with its operation.
        drop(slot);
    }
}

impl<T> Fallible for Offer<'_, T> {
    fn would_block(self, slot: Option<T>) -> Self::Output {
        match slot {
            Some(value) => Err(SendError::WouldBlock(value)),
            None => Ok(None),
        }
    }

    fn timeout(self, slot: Option<T>) -> Self::Output {
        match slot {
            Some(value) => Err(SendError::Timeout(value)),
            None => Ok(None),
        }
    }
}

impl<T> OfferMany<'_, T> {
    /// Sends what it can without waiting, after `count` were sent.
    fn rest(&mut self, count: usize, displaced: Option<T>) -> (Batch<T>, Outcome) {
        let mut batch = Batch { count, displaced: displaced.into_iter().collect() };
        let (more, outcome, wakes) = self.chan.try_send_many(self.values, &mut batch.displaced);
        wakes.wake();
        batch.count += more;
        (batch, outcome)
    }
}

// SAFETY: as for `Offer`. The slot holds a value unless it is `empty`, which is never offered.
unsafe impl<T> Kind for OfferMany<'_, T> {
    type Slot = T;
    type Output = Result<Batch<T>, SendError<()>>;

    #[inline]
    fn hint(&self) -> Option<bool> {
        Some(self.empty || self.chan.may_send())
    }

    fn now(&mut self, slot: &mut Option<T>) -> Option<Self::Output> {
        self.restore(slot.take());
        match self.rest(0, None) {
            (batch, Outcome::Pending) if batch.count == 0 => {
                *slot = self.values.pop_front();
                None
            }
            (batch, Outcome::Done | Outcome::Pending) => Some(Ok(batch)),
            (batch, _) if batch.count > 0 => Some(Ok(batch)),
            (_, outcome) => Some(Err(failed(self.chan, (), outcome))),
        }
    }

    #[inline]
    fn gate(&self) -> Option<&Gate> {
        Some(Gate::of(&self.chan.lock))
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller holds the lock, here and below.
        self.empty || unsafe { self.chan.with_locked(|state| state.send_is_ready()) }
    }
    unsafe fn commit(&self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        if self.empty {
            // SAFETY: the caller owns the slot.
            unsafe { node.decide(None, Outcome::Done) };
            return true;
        }
        // SAFETY: as above, and owns the slot.
        unsafe { self.chan.with_locked(|state| state.commit_send(node, wakes)) }
    }
    unsafe fn park(&self, node: &Node<T>) {
        // SAFETY: the caller's promise.
        unsafe { self.chan.with_locked(|state| state.park(node, true)) }
    }
    unsafe fn unlink(&self, node: &Node<T>) {
        // SAFETY: as above; the node can only be in this channel's queues.
        unsafe { self.chan.with_locked(|state| state.unlink(node)) };
    }

    fn conclude(&mut self, slot: Option<T>, outcome: Outcome) -> Self::Output {
        if outcome == Outcome::Done {
            return Ok(self.rest(usize::from(!self.empty), slot).0);
        }
        self.restore(slot);
        Err(failed(self.chan, (), outcome))
    }

    fn undo(&mut self, slot: Option<T>, outcome: Outcome) {
        if outcome != Outcome::Done {
            self.restore(slot);
        }
    }

    const RESTORES: bool = true;
    fn restore(&mut self, slot: Option<T>) {
        if let Some(value) = slot {
            self.values.push_front(value);
        }
    }
}

impl<T> Fallible for OfferMany<'_, T> {
    fn would_block(mut self, slot: Option<T>) -> Self::Output {
        self.restore(slot);
        Err(SendError::WouldBlock(()))
    }

    fn timeout(mut self, slot: Option<T>) -> Self::Output {
        self.restore(slot);
        Err(SendError::Timeout(()))
    }
}
