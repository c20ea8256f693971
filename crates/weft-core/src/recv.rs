//! Receiving as an operation: one value, or many.

use crate::chan::{Chan, Outcome, Wakes};
use crate::error::RecvError;
use crate::op::{Fallible, Kind, Op};
use crate::select::Gate;
use crate::waitq::Node;

/// Receiving one value: what [`Receiver::recv`](crate::Receiver::recv) returns.
pub type Recv<'a, T> = Op<Receive<'a, T>>;

/// Receiving many values: what [`Receiver::recv_many`](crate::Receiver::recv_many) returns.
pub type RecvMany<'a, T> = Op<ReceiveMany<'a, T>>;

/// The kind of [`Recv`].
#[doc(hidden)]
pub struct Receive<'a, T> {
    chan: &'a Chan<T>,
}

/// The kind of [`RecvMany`].
#[doc(hidden)]
pub struct ReceiveMany<'a, T> {
    one: Receive<'a, T>,
    max: usize,
}

pub(crate) fn recv<T>(chan: &Chan<T>) -> Recv<'_, T> {
    Op::new(Receive { chan }, None)
}

pub(crate) fn recv_many<T>(chan: &Chan<T>, max: usize) -> RecvMany<'_, T> {
    Op::new(ReceiveMany { one: Receive { chan }, max: max.max(1) }, None)
}

#[cold]
fn failed<T>(chan: &Chan<T>, outcome: Outcome) -> RecvError {
    RecvError::of(outcome, chan.end().1)
}

// SAFETY: all is the channel's, under its lock; `commit_recv` decides the slot, which is empty while nothing was received.
unsafe impl<T> Kind for Receive<'_, T> {
    type Slot = T;
    type Output = Result<T, RecvError>;

    #[inline]
    fn hint(&self) -> Option<bool> {
        Some(self.chan.may_recv())
    }

    #[inline(always)]
    fn now(&mut self, _: &mut Option<T>) -> Option<Self::Output> {
        let (answer, wakes) = self.chan.try_recv();
        wakes.wake();
        match answer {
            Ok(value) => Some(Ok(value)),
            Err(Outcome::Pending) => None,
            Err(outcome) => Some(Err(failed(self.chan, outcome))),
        }
    }

    #[inline]
    fn gate(&self) -> Option<&Gate> {
        Some(Gate::of(&self.chan.lock))
    }
    #[inline]
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller holds the lock, here and below.
        unsafe { self.chan.with_locked(|state| state.recv_is_ready()) }
    }
    #[inline]
    unsafe fn commit(&self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        // SAFETY: as above, and owns the slot, which is empty.
        unsafe { self.chan.with_locked(|state| state.commit_recv(node, wakes)) }
    }
    #[inline]
    unsafe fn park(&self, node: &Node<T>) {
        // SAFETY: the caller's promise.
        unsafe { self.chan.with_locked(|state| state.park(node, false)) }
    }
    #[inline]
    unsafe fn unlink(&self, node: &Node<T>) {
        // SAFETY: as above; the node can only be in this channel's queues.
        unsafe { self.chan.with_locked(|state| state.unlink(node)) };
    }

    #[inline]
    fn conclude(&mut self, slot: Option<T>, outcome: Outcome) -> Self::Output {
        match slot {
            Some(value) => Ok(value),
            None => Err(failed(self.chan, outcome)),
        }
    }

    fn undo(&mut self, slot: Option<T>, _: Outcome) {
        if let Some(value) = slot {
            let (refused, wakes) = self.chan.give_back(value);
            wakes.wake();
            // The channel was poisoned, or nobody can receive from it any more: it was counted as dropped.
            drop(refused);
        }
    }
}

impl<T> Fallible for Receive<'_, T> {
    fn would_block(self, _: Option<T>) -> Self::Output {
        Err(RecvError::WouldBlock)
    }

    fn timeout(self, _: Option<T>) -> Self::Output {
        Err(RecvError::Timeout)
    }
}

// SAFETY: that of `Receive`, to which all is left.
unsafe impl<T> Kind for ReceiveMany<'_, T> {
    type Slot = T;
    type Output = Result<Vec<T>, RecvError>;

    #[inline]
    fn hint(&self) -> Option<bool> {
        self.one.hint()
    }

    fn now(&mut self, _: &mut Option<T>) -> Option<Self::Output> {
        let mut values = Vec::new();
        let (outcome, wakes) = self.one.chan.try_recv_many(self.max, &mut values);
        wakes.wake();
        match outcome {
            Outcome::Done => Some(Ok(values)),
            Outcome::Pending => None,
            outcome => Some(Err(failed(self.one.chan, outcome))),
        }
    }

    fn gate(&self) -> Option<&Gate> {
        self.one.gate()
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller's promise, here and below.
        unsafe { self.one.ready() }
    }
    unsafe fn commit(&self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        // SAFETY: as above.
        unsafe { self.one.commit(node, wakes) }
    }
    unsafe fn park(&self, node: &Node<T>) {
        // SAFETY: as above.
        unsafe { self.one.park(node) }
    }
    unsafe fn unlink(&self, node: &Node<T>) {
        // SAFETY: as above.
        unsafe { self.one.unlink(node) }
    }

    fn conclude(&mut self, slot: Option<T>, outcome: Outcome) -> Self::Output {
        let mut values = vec![self.one.conclude(slot, outcome)?];
        let (_, wakes) = self.one.chan.try_recv_many(self.max - 1, &mut values);
        wakes.wake();
        Ok(values)
    }

    fn undo(&mut self, slot: Option<T>, outcome: Outcome) {
        self.one.undo(slot, outcome);
    }
}

impl<T> Fallible for ReceiveMany<'_, T> {
    fn would_block(self, _: Option<T>) -> Self::Output {
        Err(RecvError::WouldBlock)
    }

    fn timeout(self, _: Option<T>) -> Self::Output {
        Err(RecvError::Timeout)
    }
}
