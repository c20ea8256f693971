//! A channel: one lock, one ring, two wait queues.
//!
//! True whenever the lock is free, where "parked" means a node whose offer is still open:
//!   1. No sender is parked while a receiver is, unless one select waits on both sides of this channel.
//!   2. A buffered value means no receiver is parked.
//!   3. A free slot means no sender is parked. (A value given back by `give_back` may exceed the capacity for a while.)
//!   4. An ended channel has no parked receiver; a poisoned one, or one without receivers, no parked sender and no value.
//!
//! What others do by a lease, without the lock, changes 3 and 4 a little: see lease.rs.
//!
//! No method drops a value, calls a waker or runs anything foreign while the lock is held: what is to be dropped or woken
//! is returned, and `#[must_use]`.
//!
//! Source: Go, src/runtime/chan.go (1 to 3, and one lock).  Laws: docs/design/laws.md.

mod lease;

use std::collections::VecDeque;
use std::fmt;
use std::ptr::NonNull;
use std::task::Waker;

use self::lease::Leases;
pub use self::lease::{SharedWord, Word};

use crate::error::Cause;
use crate::primitives::{AtomicU32, Lock, Ordering, UnsafeCell};
use crate::waiter::Waiter;
use crate::waitq::{Node, Place, Queue};

/// What a full channel does with one more value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overflow {
    /// The sender waits.
    #[default]
    Block,
    /// The value at the head of the buffer makes room.
    DropOldest,
    /// The value being sent is dropped.
    DropNewest,
    /// The send fails with the value.
    Error,
}

/// How a channel came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum End {
    /// `close`, or the last sender left: what is buffered or parked is still delivered.
    Closed,
    /// The last receiver left.
    NoReceivers,
    /// `poison`: nothing more is delivered.
    Poisoned,
}

/// What became of one case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing yet.
    Pending,
    /// The value passed.
    Done,
    /// The buffer is full and the policy is [`Overflow::Error`]; the value is still in the slot.
    Full,
    /// The channel has ended; a value to be sent is still in the slot.
    Ended(End),
}

/// Parties to wake, to be woken after every lock is released.
#[must_use = "the parties sleep until they are woken"]
#[derive(Default)]
pub struct Wakes {
    first: Option<Waker>,
    /// Boxed, and rarely there, so that the whole passes through registers.
    #[expect(clippy::box_collection)]
    rest: Option<Box<Vec<Waker>>>,
}

impl Wakes {
    /// Nobody.
    #[inline]
    pub const fn new() -> Self {
        Self { first: None, rest: None }
    }

    #[inline]
    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else if let Some(waker) = waker {
            self.rest.get_or_insert_default().push(waker);
        }
    }

    /// Wakes them, in the order in which they were met.
    #[inline(always)]
    pub fn wake(self) {
        let Self { first, rest } = self;
        match first {
            Some(first) => Self::wake_all(first, rest),
            // There is no rest without a first: nothing to look at.
            None => std::mem::forget(rest),
        }
    }

    #[expect(clippy::box_collection)]
    fn wake_all(first: Waker, rest: Option<Box<Vec<Waker>>>) {
        let Some(rest) = rest else {
            return first.wake();
        };
        let mut rest = Rest(rest.into_iter());
        first.wake();
        for waker in rest.0.by_ref() {
            waker.wake();
        }
    }

    /// The one there is, if there is no more than one; `Err`: there are more.
    #[inline(always)]
    pub fn into_only(self) -> Result<Option<Waker>, Self> {
        match self {
            Self { first, rest: None } => Ok(first),
            more => Err(more),
        }
    }

    /// The wakers themselves, for a caller with a way of its own to wake.
    #[inline]
    pub fn into_wakers(self) -> impl Iterator<Item = Waker> {
        self.first.into_iter().chain(self.rest.into_iter().flat_map(|rest| *rest))
    }

    /// Whether there is nobody to wake.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

/// Wakers still to be called. One that panics does not leave the others asleep: unwinding calls them.
struct Rest(std::vec::IntoIter<Waker>);

impl Drop for Rest {
    fn drop(&mut self) {
        for waker in self.0.by_ref() {
            waker.wake();
        }
    }
}

/// A snapshot of one channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Values in the buffer.
    pub buffered: usize,
    /// How many the buffer may hold; `None`: any number.
    pub capacity: Option<usize>,
    /// Open counted senders; `None` while none was ever made.
    pub senders: Option<usize>,
    /// Open counted receivers; `None` while none was ever made.
    pub receivers: Option<usize>,
    /// Parties waiting to send.
    pub parked_senders: usize,
    /// Parties waiting to receive.
    pub parked_receivers: usize,
    /// Values accepted from senders, dropped ones included.
    pub sent: u64,
    /// Values handed to receivers.
    pub received: u64,
    /// Values dropped by an overflow policy, by poison, or because the last receiver left.
    pub dropped: u64,
}

/// Room for any number of values.
const UNBOUNDED: usize = usize::MAX;

/// The state shared by all ends of a channel.
pub struct Chan<T> {
    pub(crate) lock: Lock,
    /// Which sides may find something to do: for a select, which need not take the others' locks then. Nothing but time depends on it.
    hint: AtomicU32,
    state: UnsafeCell<State<T>>,
}

/// A receiver may find a value, or the end.
const MAY_RECV: u32 = 1;
/// A sender may find room, a receiver, or the end.
const MAY_SEND: u32 = 2;

// SAFETY: `state` is reached only through `with`, under the lock.
unsafe impl<T: Send> Send for Chan<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Chan<T> {}

pub(crate) struct State<T> {
    buffer: VecDeque<T>,
    capacity: usize,
    overflow: Overflow,
    sendq: Queue,
    recvq: Queue,
    end: Option<End>,
    cause: Option<Cause>,
    senders: Option<usize>,
    receivers: Option<usize>,
    sent: u64,
    received: u64,
    dropped: u64,
    /// Slots that are not free although nothing is in the buffer for them: what leases stand for.
    held: usize,
    leases: Option<Box<Leases<T>>>,
}

/// The answer to an offered value.
pub(crate) enum Sent<T> {
    /// It passed; `displaced` is what the overflow policy dropped for it.
    Done { displaced: Option<T> },
    /// Nobody takes it now.
    Wait(T),
    /// It cannot pass.
    Failed(T, Outcome),
}

/// The answer to a request for a value.
pub(crate) enum Received<T> {
    Done(T),
    Wait,
    Ended(End),
}

impl<T> Chan<T> {
    /// A channel with room for `capacity` values (`None`: any number), 0 being a rendezvous.
    pub fn new(capacity: Option<usize>, overflow: Overflow) -> Self {
        Self {
            lock: Lock::new(),
            hint: AtomicU32::new(MAY_RECV | MAY_SEND),
            state: UnsafeCell::new(State {
                buffer: VecDeque::new(),
                capacity: capacity.map_or(UNBOUNDED, |n| n.min(UNBOUNDED - 1)),
                overflow,
                sendq: Queue::new(Place::Sending),
                recvq: Queue::new(Place::Receiving),
                end: None,
                cause: None,
                senders: None,
                receivers: None,
                sent: 0,
                received: 0,
                dropped: 0,
                held: 0,
                leases: None,
            }),
        }
    }

    #[inline(always)]
    fn with<R>(&self, f: impl FnOnce(&mut State<T>) -> R) -> R {
        self.lock.lock();
        // SAFETY: locked here, and unlocked afterwards.
        unsafe {
            let result = self.with_locked(f);
            self.lock.unlock();
            result
        }
    }

    /// # Safety
    /// The caller holds the lock.
    #[inline(always)]
    pub(crate) unsafe fn with_locked<R>(&self, f: impl FnOnce(&mut State<T>) -> R) -> R {
        self.state.with_mut(|state| {
            // SAFETY: the caller's promise.
            let state = unsafe { &mut *state };
            let result = f(state);
            // Relaxed, here and where it is read: whoever acts on a hint takes the lock and looks again.
            let hint = state.hint();
            if self.hint.load(Ordering::Relaxed) != hint {
                self.hint.store(hint, Ordering::Relaxed);
            }
            result
        })
    }

    /// Whether it is worth trying to receive, without the lock. What has happened before is seen.
    #[inline]
    pub fn may_recv(&self) -> bool {
        self.hint.load(Ordering::Relaxed) & MAY_RECV != 0
    }

    /// Whether it is worth trying to send, as [`may_recv`](Self::may_recv).
    #[inline]
    pub fn may_send(&self) -> bool {
        self.hint.load(Ordering::Relaxed) & MAY_SEND != 0
    }

    /// Sends now, or says why not; the value comes back.
    #[inline(always)]
    pub fn try_send(&self, value: T) -> (Result<Option<T>, (T, Outcome)>, Wakes) {
        let mut wakes = Wakes::new();
        let answer = match self.with(|state| state.send(value, &mut wakes)) {
            Sent::Done { displaced } => Ok(displaced),
            Sent::Wait(value) => Err((value, Outcome::Pending)),
            Sent::Failed(value, outcome) => Err((value, outcome)),
        };
        (answer, wakes)
    }

    /// Receives now, or says why not ([`Outcome::Pending`]: nothing there).
    #[inline(always)]
    pub fn try_recv(&self) -> (Result<T, Outcome>, Wakes) {
        let mut wakes = Wakes::new();
        let answer = match self.with(|state| state.recv(&mut wakes)) {
            Received::Done(value) => Ok(value),
            Received::Wait => Err(Outcome::Pending),
            Received::Ended(end) => Err(Outcome::Ended(end)),
        };
        (answer, wakes)
    }

    /// Receives what is there, at most `max` values, under one lock.
    pub fn try_recv_many(&self, max: usize, into: &mut Vec<T>) -> (Outcome, Wakes) {
        let mut wakes = Wakes::new();
        let outcome = self.with(|state| {
            let mut outcome = Outcome::Pending;
            for _ in 0..max {
                match state.recv(&mut wakes) {
                    Received::Done(value) => {
                        into.push(value);
                        outcome = Outcome::Done;
                    }
                    Received::Wait => break,
                    Received::Ended(end) => {
                        if outcome == Outcome::Pending {
                            outcome = Outcome::Ended(end);
                        }
                        break;
                    }
                }
            }
            outcome
        });
        (outcome, wakes)
    }

    /// Sends values from the front of `values` while there is room or a taker, under one lock. Displaced values go to `displaced`.
    /// The outcome is why it stopped: [`Outcome::Done`] when all were sent, [`Outcome::Pending`] when the next one would wait.
    pub fn try_send_many(&self, values: &mut VecDeque<T>, displaced: &mut Vec<T>) -> (usize, Outcome, Wakes) {
        let mut wakes = Wakes::new();
        let (count, outcome) = self.with(|state| {
            let mut count = 0;
            while let Some(value) = values.pop_front() {
                match state.send(value, &mut wakes) {
                    Sent::Done { displaced: gone } => {
                        displaced.extend(gone);
                        count += 1;
                    }
                    Sent::Wait(value) => {
                        values.push_front(value);
                        return (count, Outcome::Pending);
                    }
                    Sent::Failed(value, outcome) => {
                        values.push_front(value);
                        return (count, outcome);
                    }
                }
            }
            (count, Outcome::Done)
        });
        (count, outcome, wakes)
    }

    /// Whether a send would be decided now, one way or the other. By the time the caller looks it may be otherwise.
    pub fn can_send(&self) -> bool {
        self.with(State::send_is_ready)
    }

    /// Whether a receive would be decided now, as [`can_send`](Self::can_send).
    pub fn can_recv(&self) -> bool {
        self.with(State::recv_is_ready)
    }

    /// Sends the value in the node's slot if that can be decided now. `true`: decided, see [`Node::take`].
    ///
    /// # Safety
    /// The node's slot belongs to the caller and holds a value; the node is in no queue.
    #[inline]
    pub unsafe fn send_now(&self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        // SAFETY: the caller's promise; the lock is held.
        self.with(|state| unsafe { state.commit_send(node, wakes) })
    }

    /// Receives into the node's slot if that can be decided now; as [`send_now`](Self::send_now).
    ///
    /// # Safety
    /// The node's slot belongs to the caller and is empty; the node is in no queue.
    #[inline]
    pub unsafe fn recv_now(&self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        // SAFETY: the caller's promise; the lock is held.
        self.with(|state| unsafe { state.commit_recv(node, wakes) })
    }

    /// Sends the value in the node's slot, or parks the node. `true`: decided, see [`Node::take`]. `false`: parked; its waiter will tell.
    ///
    /// # Safety
    /// The node is bound to an armed waiter, is in no queue, and neither moves nor goes away before it was met and unlinked, or
    /// withdrawn and unlinked.
    #[inline]
    pub unsafe fn send_or_park(&self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        // SAFETY: the caller's promise; the lock is held.
        self.with(|state| unsafe { state.commit_or_park(node, true, wakes) })
    }

    /// Receives into the node's slot, or parks the node; as [`send_or_park`](Self::send_or_park).
    ///
    /// # Safety
    /// As for `send_or_park`.
    #[inline]
    pub unsafe fn recv_or_park(&self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        // SAFETY: the caller's promise; the lock is held.
        self.with(|state| unsafe { state.commit_or_park(node, false, wakes) })
    }

    /// As [`send_now`](Self::send_now) (`sending`) and [`recv_now`](Self::recv_now), without the lock.
    ///
    /// # Safety
    /// As there; and nobody else uses the channel meanwhile.
    #[inline]
    pub unsafe fn commit_alone(&self, node: &Node<T>, sending: bool, wakes: &mut Wakes) -> bool {
        self.assert_alone();
        // SAFETY: the caller's promise: it is as if the lock were held.
        unsafe {
            self.with_locked(
                |state| if sending { state.commit_send(node, wakes) } else { state.commit_recv(node, wakes) },
            )
        }
    }

    /// As [`send_or_park`](Self::send_or_park) (`sending`) and [`recv_or_park`](Self::recv_or_park), without the lock.
    ///
    /// # Safety
    /// As there; and nobody else uses the channel meanwhile.
    #[inline]
    pub unsafe fn commit_or_park_alone(&self, node: &Node<T>, sending: bool, wakes: &mut Wakes) -> bool {
        self.assert_alone();
        // SAFETY: as above.
        unsafe { self.with_locked(|state| state.commit_or_park(node, sending, wakes)) }
    }

    #[inline(always)]
    fn assert_alone(&self) {
        if cfg!(debug_assertions) {
            assert!(self.lock.try_lock(), "somebody else uses the channel");
            // SAFETY: just locked.
            unsafe { self.lock.unlock() };
        }
    }

    /// Takes the node out of whichever queue of this channel it is in.
    ///
    /// # Safety
    /// If the node is in a queue of channels, it is in one of this channel's.
    pub unsafe fn unlink(&self, node: &Node<T>) -> bool {
        // SAFETY: the caller's promise.
        self.with(|state| unsafe { state.unlink(node) })
    }

    /// Puts back a value that was handed to a receiver that never got it: to the first parked receiver, else to the front of the
    /// buffer, even of a full one. `Err`: the channel is poisoned or has no receivers, and the value counts as dropped.
    pub fn give_back(&self, value: T) -> (Result<(), T>, Wakes) {
        let mut wakes = Wakes::new();
        let answer = self.with(|state| {
            if state.held != 0 {
                state.call_in(&mut wakes);
            }
            state.received -= 1;
            match state.end {
                Some(End::Poisoned | End::NoReceivers) => {
                    state.dropped += 1;
                    return Err(value);
                }
                Some(End::Closed) | None => {}
            }
            // SAFETY: the queue of this channel holds nodes of T.
            match unsafe { state.recvq.claim_first::<T>() } {
                Some((node, claim)) => {
                    fill(node, Some(value), Outcome::Done);
                    state.received += 1;
                    wakes.push(claim.finish());
                }
                None => state.buffer.push_front(value),
            }
            Ok(())
        });
        (answer, wakes)
    }

    /// Puts values at the end of the buffer without asking for room, and counts them as sent: what was buffered elsewhere, into
    /// a channel that has just taken that one's place. `Err`: it has ended, or somebody waits here.
    pub fn preload(&self, mut values: VecDeque<T>) -> Result<(), VecDeque<T>> {
        self.with(|state| {
            if state.end.is_some() || !state.recvq.is_empty() || !state.sendq.is_empty() {
                return Err(values);
            }
            state.sent += values.len() as u64;
            state.buffer.append(&mut values);
            Ok(())
        })
    }

    /// Uncounts a value that passed to a receiver which turned out to be gone, and went back to its sender.
    pub fn uncount(&self) {
        self.with(|state| {
            state.sent -= 1;
            state.received -= 1;
        });
    }

    /// No more values; those already buffered or parked are still delivered. `false`: it had ended before.
    pub fn close(&self, cause: Option<Cause>) -> (bool, Wakes) {
        let mut wakes = Wakes::new();
        let (first, spare) = self.with(|state| state.close(cause, &mut wakes));
        drop(spare);
        (first, wakes)
    }

    /// The end, at once, for both sides. What was buffered is returned (and counted as dropped); parked senders keep their values.
    /// `None`: it was poisoned before.
    pub fn poison(&self, cause: Option<Cause>) -> (Option<VecDeque<T>>, Wakes) {
        let mut wakes = Wakes::new();
        let (values, spare) = self.with(|state| {
            if state.end == Some(End::Poisoned) {
                return (None, cause);
            }
            let (values, spare) = state.stop(End::Poisoned, cause, &mut wakes);
            (Some(values), spare)
        });
        drop(spare);
        (values, wakes)
    }

    /// Counts one more sender. `false`: the channel has ended.
    pub fn add_sender(&self) -> bool {
        self.with(|state| {
            if state.end.is_none() {
                state.senders = Some(state.senders.unwrap_or(0) + 1);
            }
            state.end.is_none()
        })
    }

    /// Counts one more receiver. `false`: there can be none any more (poisoned, or the last one has left).
    pub fn add_receiver(&self) -> bool {
        self.with(|state| {
            let open = !matches!(state.end, Some(End::Poisoned | End::NoReceivers));
            if open {
                state.receivers = Some(state.receivers.unwrap_or(0) + 1);
            }
            open
        })
    }

    /// One sender less; the last one closes the channel, with the first cause any of them gave.
    pub fn remove_sender(&self, cause: Option<Cause>) -> Wakes {
        let mut wakes = Wakes::new();
        let spare = self.with(|state| {
            let left = state.senders.map_or(0, |n| n - 1);
            state.senders = Some(left);
            let spare = if state.end.is_none() { state.blame(cause) } else { cause };
            if left == 0 {
                state.close(None, &mut wakes);
            }
            spare
        });
        drop(spare);
        wakes
    }

    /// One receiver less. After the last one every send fails, parked ones too, and what was buffered is returned and counted as dropped.
    pub fn remove_receiver(&self, cause: Option<Cause>) -> (VecDeque<T>, Wakes) {
        let mut wakes = Wakes::new();
        let (values, spare) = self.with(|state| {
            let left = state.receivers.map_or(0, |n| n - 1);
            state.receivers = Some(left);
            if left == 0 && !matches!(state.end, Some(End::Poisoned | End::NoReceivers)) {
                state.stop(End::NoReceivers, cause, &mut wakes)
            } else {
                (VecDeque::new(), cause)
            }
        });
        drop(spare);
        (values, wakes)
    }

    /// How the channel ended, if it has, and the cause that was given.
    pub fn end(&self) -> (Option<End>, Option<Cause>) {
        self.with(|state| (state.end, state.end.and(state.cause.clone())))
    }

    /// How many values are buffered.
    pub fn len(&self) -> usize {
        self.with(|state| state.buffer.len() + state.lent_now())
    }

    /// Whether nothing is buffered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the buffer may hold; `None`: any number.
    pub fn capacity(&self) -> Option<usize> {
        self.with(|state| (state.capacity != UNBOUNDED).then_some(state.capacity))
    }

    /// What it does with one value more than it may hold.
    pub fn overflow(&self) -> Overflow {
        self.with(|state| state.overflow)
    }

    /// Counts and totals, all of one moment.
    pub fn statistics(&self) -> Statistics {
        self.with(|state| {
            let open = |queue: &Queue| queue.waiters().filter(|waiter| waiter.is_waiting()).count();
            let lent = state.lent_now();
            Statistics {
                buffered: state.buffer.len() + lent,
                capacity: (state.capacity != UNBOUNDED).then_some(state.capacity),
                senders: state.senders,
                receivers: state.receivers,
                parked_senders: open(&state.sendq),
                parked_receivers: open(&state.recvq),
                sent: state.sent,
                received: state.received + (state.lent() - lent) as u64,
                dropped: state.dropped,
            }
        })
    }

    /// Shows a garbage collector what the channel holds: buffered values, the cause, and the waiter of every parked node. Does nothing while
    /// the lock is held by somebody. The callbacks must neither drop nor wake, nor use the channel.
    pub fn visit(
        &self,
        mut value: impl FnMut(&T),
        mut cause: impl FnMut(&Cause),
        mut waiter: impl FnMut(NonNull<Waiter>),
    ) {
        if !self.lock.try_lock() {
            return;
        }
        self.state.with_mut(|state| {
            // SAFETY: we hold the lock.
            let state = unsafe { &*state };
            state.buffer.iter().for_each(&mut value);
            state.cause.iter().for_each(&mut cause);
            for parked in state.sendq.waiters().chain(state.recvq.waiters()) {
                waiter(NonNull::from(parked));
            }
        });
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
    }

    /// Shows the waiter of every parked node, with the lock held: it must neither drop nor wake, nor use the channel.
    pub fn waiters(&self, mut waiter: impl FnMut(NonNull<Waiter>)) {
        self.with(|state| {
            for parked in state.sendq.waiters().chain(state.recvq.waiters()) {
                waiter(NonNull::from(parked));
            }
        });
    }

    /// Shows `change` every value that is buffered or waits to be sent, to put another in its place. It is called with the lock held, and for a
    /// sender while its offer is held: it must not drop, wake, or use the channel. A sender that is just being met is not shown.
    pub fn change(&self, mut change: impl FnMut(&mut T)) {
        self.with(|state| {
            state.buffer.iter_mut().for_each(&mut change);
            // SAFETY: the queue of this channel holds nodes of T.
            unsafe { state.sendq.change(&mut change) };
        });
    }

    /// Puts another reason in the place of the one that was given, if one was; the old one is returned, or the new one when there was none.
    pub fn replace_cause(&self, cause: Cause) -> Cause {
        self.with(|state| match &mut state.cause {
            Some(known) => std::mem::replace(known, cause),
            None => cause,
        })
    }

    /// Empties the buffer, for a garbage collector that found the channel unreachable.
    #[must_use = "to be dropped by the caller"]
    pub fn drain(&self) -> VecDeque<T> {
        self.with(|state| std::mem::take(&mut state.buffer))
    }
}

impl<T> fmt::Debug for Chan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.statistics().fmt(f)
    }
}

/// Writes a claimed, or the caller's own, node's slot.
#[inline]
fn fill<T>(node: &Node<T>, value: Option<T>, outcome: Outcome) {
    // SAFETY: callers either claimed the node or commit their own, which is in no queue. The old content is `None`: a receive's
    // slot is empty until it is filled once, so nothing is dropped here.
    unsafe { node.decide(value, outcome) };
}

/// Takes the value out of a claimed sender's slot.
#[inline]
fn empty<T>(node: &Node<T>) -> T {
    // SAFETY: the caller claimed the node, whose slot holds the value to be sent.
    unsafe {
        node.mark(Outcome::Done);
        node.empty()
    }
}

/// Marks a claimed node as failed; its slot stays as it is.
#[inline]
fn fail<T>(node: &Node<T>, outcome: Outcome) {
    // SAFETY: the caller claimed the node.
    unsafe { node.mark(outcome) };
}

impl<T> State<T> {
    #[inline(always)]
    fn send(&mut self, value: T, wakes: &mut Wakes) -> Sent<T> {
        if let Some(end) = self.end {
            return Sent::Failed(value, Outcome::Ended(end));
        }
        // A buffered value means that no receiver is parked (2), except after `give_back`, when none is either.
        // SAFETY: the queue of this channel holds nodes of T.
        if let Some((node, claim)) = unsafe { self.recvq.claim_first::<T>() } {
            fill(node, Some(value), Outcome::Done);
            self.sent += 1;
            self.received += 1;
            wakes.push(claim.finish());
            return Sent::Done { displaced: None };
        }
        if self.has_room() || (self.held != 0 && self.make_room()) {
            self.buffer.push_back(value);
            self.sent += 1;
            return Sent::Done { displaced: None };
        }
        match self.overflow {
            Overflow::Block => Sent::Wait(value),
            Overflow::Error => Sent::Failed(value, Outcome::Full),
            Overflow::DropNewest => {
                self.sent += 1;
                self.dropped += 1;
                Sent::Done { displaced: Some(value) }
            }
            Overflow::DropOldest => {
                self.sent += 1;
                self.dropped += 1;
                let displaced = match self.buffer.pop_front() {
                    Some(oldest) => {
                        self.buffer.push_back(value);
                        oldest
                    }
                    // Capacity 0: there is nothing older than the value itself.
                    None => value,
                };
                Sent::Done { displaced: Some(displaced) }
            }
        }
    }

    #[inline(always)]
    fn recv(&mut self, wakes: &mut Wakes) -> Received<T> {
        if self.held != 0 {
            self.call_in(wakes);
        }
        let value = match self.buffer.pop_front() {
            Some(value) => {
                if self.has_room() {
                    // SAFETY: the queue of this channel holds nodes of T.
                    if let Some((node, claim)) = unsafe { self.sendq.claim_first::<T>() } {
                        self.buffer.push_back(empty(node));
                        self.sent += 1;
                        wakes.push(claim.finish());
                    }
                }
                value
            }
            // SAFETY: as above.
            None => match unsafe { self.sendq.claim_first::<T>() } {
                Some((node, claim)) => {
                    let value = empty(node);
                    self.sent += 1;
                    wakes.push(claim.finish());
                    value
                }
                None => {
                    return match self.end {
                        None => Received::Wait,
                        Some(End::Closed) if self.expects() => Received::Wait,
                        Some(End::NoReceivers) => Received::Ended(End::Closed),
                        Some(end) => Received::Ended(end),
                    };
                }
            },
        };
        self.received += 1;
        Received::Done(value)
    }

    /// Sends what is in the node's slot, if that can be decided now.
    ///
    /// # Safety
    /// The node's slot belongs to the caller and holds a value; the node is in no queue.
    #[inline]
    pub(crate) unsafe fn commit_send(&mut self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        // SAFETY: the caller's promise.
        let value = unsafe { node.empty() };
        let (value, outcome) = match self.send(value, wakes) {
            Sent::Done { displaced } => (displaced, Outcome::Done),
            Sent::Failed(value, outcome) => (Some(value), outcome),
            Sent::Wait(value) => (Some(value), Outcome::Pending),
        };
        // SAFETY: as above; emptied.
        unsafe { node.decide(value, outcome) };
        outcome != Outcome::Pending
    }

    /// Receives into the node's slot, if that can be decided now.
    ///
    /// # Safety
    /// The node's slot belongs to the caller and is empty; the node is in no queue.
    #[inline]
    pub(crate) unsafe fn commit_recv(&mut self, node: &Node<T>, wakes: &mut Wakes) -> bool {
        match self.recv(wakes) {
            Received::Done(value) => fill(node, Some(value), Outcome::Done),
            Received::Ended(end) => fill(node, None, Outcome::Ended(end)),
            Received::Wait => return false,
        }
        true
    }

    /// The same, or parks the node. `false`: it is parked.
    ///
    /// # Safety
    /// As for `commit_send` (`sending`) or `commit_recv`, and for `Chan::send_or_park`.
    #[inline]
    unsafe fn commit_or_park(&mut self, node: &Node<T>, sending: bool, wakes: &mut Wakes) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let decided = if sending { self.commit_send(node, wakes) } else { self.commit_recv(node, wakes) };
            if !decided {
                self.park(node, sending);
            }
            decided
        }
    }

    #[inline]
    fn hint(&self) -> u32 {
        let ended = self.end.is_some();
        let leased = self.held != 0;
        let may_recv = ended || leased || !self.buffer.is_empty() || !self.sendq.is_empty();
        let may_send = ended || leased || self.has_room() || !self.recvq.is_empty() || self.overflow != Overflow::Block;
        (u32::from(may_recv) * MAY_RECV) | (u32::from(may_send) * MAY_SEND)
    }

    pub(crate) fn send_is_ready(&mut self) -> bool {
        self.end.is_some()
            || self.has_room()
            || self.overflow != Overflow::Block
            || self.recvq.has_open()
            || (self.held != 0 && self.may_make_room())
    }

    pub(crate) fn recv_is_ready(&mut self) -> bool {
        !self.buffer.is_empty()
            || self.sendq.has_open()
            || (self.held != 0 && self.lent_now() != 0)
            || (self.end.is_some() && !self.expects())
    }

    #[inline(always)]
    fn has_room(&self) -> bool {
        self.buffer.len() + self.held < self.capacity
    }

    pub(crate) fn recv_now(&mut self, wakes: &mut Wakes) -> Received<T> {
        self.recv(wakes)
    }

    /// # Safety
    /// As for `Chan::send_or_park`, but the node's waiter may be armed later, before the lock is released.
    #[inline]
    pub(crate) unsafe fn park(&mut self, node: &Node<T>, sending: bool) {
        let queue = if sending { &mut self.sendq } else { &mut self.recvq };
        // SAFETY: the caller's promise.
        unsafe { queue.push_back(Node::as_link(NonNull::from(node))) };
    }

    /// # Safety
    /// If the node is in a queue of channels, it is in one of this channel's.
    pub(crate) unsafe fn unlink(&mut self, node: &Node<T>) -> bool {
        let link = Node::as_link(NonNull::from(node));
        // SAFETY: the caller's promise; the node's place tells the two queues apart.
        unsafe { self.sendq.unlink(link) || self.recvq.unlink(link) }
    }

    /// The first cause wins; another one is returned, to be dropped outside the lock.
    fn blame(&mut self, cause: Option<Cause>) -> Option<Cause> {
        if self.cause.is_some() {
            return cause;
        }
        self.cause = cause;
        None
    }

    fn close(&mut self, cause: Option<Cause>, wakes: &mut Wakes) -> (bool, Option<Cause>) {
        if self.end.is_some() {
            return (false, cause);
        }
        self.end = Some(End::Closed);
        let spare = self.blame(cause);
        self.call_back_room();
        self.end_receivers(wakes);
        (true, spare)
    }

    /// Tells the receivers of a closed channel, unless something is still to come.
    fn end_receivers(&mut self, wakes: &mut Wakes) {
        if self.end != Some(End::Closed) || self.expects() {
            return;
        }
        // SAFETY: the queue of this channel holds nodes of T.
        while let Some((node, claim)) = unsafe { self.recvq.claim_first::<T>() } {
            fail(node, Outcome::Ended(End::Closed));
            wakes.push(claim.finish());
        }
    }

    /// Ends the channel for both sides. Returns the buffer, and the cause when there was one before.
    fn stop(&mut self, end: End, cause: Option<Cause>, wakes: &mut Wakes) -> (VecDeque<T>, Option<Cause>) {
        self.end = Some(end);
        let spare = self.blame(cause);
        self.call_back_room();
        let to_receivers = if end == End::NoReceivers { End::Closed } else { end };
        // SAFETY: the queues of this channel hold nodes of T.
        while let Some((node, claim)) = unsafe { self.recvq.claim_first::<T>() } {
            fail(node, Outcome::Ended(to_receivers));
            wakes.push(claim.finish());
        }
        // SAFETY: as above.
        while let Some((node, claim)) = unsafe { self.sendq.claim_first::<T>() } {
            fail(node, Outcome::Ended(end));
            wakes.push(claim.finish());
        }
        self.call_in(wakes);
        let values = std::mem::take(&mut self.buffer);
        self.dropped += values.len() as u64;
        (values, spare)
    }
}
