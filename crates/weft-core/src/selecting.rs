//! A standing select over many channels: registered once, served in turn, at a cost per event that does not depend on how many there are.
//!
//! Each channel holds one node of the registration among its parked receivers. While its consumer waits, the registration is a receiver
//! like any other and the first channel with a value claims it. While its consumer is busy, a channel that would have met it
//! takes the node out and leaves it in the *ready* list, a FIFO; the consumer looks there first, and a channel it was just
//! served from goes behind those that became ready meanwhile. Values are taken only when asked for.
//!
//! True whenever `Ready`'s lock is free:
//!   1. The consumer waits only while the list is empty.
//!   2. A node is in its channel's queue, in the list, or it is the one served last.
//!
//! Locks: a channel's, then the list's; never two channels'.

use std::ops::Deref;
use std::ptr::NonNull;
use std::task::Waker;

use crate::chan::{Chan, End, Outcome, Received, Wakes};
use crate::primitives::{Arc, Lock, UnsafeCell};
use crate::waiter::{Claim, Waiter};
use crate::waitq::{LinkPtr, Node, Place, Queue, case_of, place_of};

/// The case with which a waiting consumer is claimed to look at the ready list again.
const LOOK: u32 = 0x3fff_ffff;

/// The list of nodes that were missed while the consumer was busy.
pub(crate) struct Ready {
    lock: Lock,
    list: UnsafeCell<Queue>,
}

impl Ready {
    pub(crate) fn new() -> Self {
        Self { lock: Lock::new(), list: UnsafeCell::new(Queue::new(Place::Ready)) }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Queue) -> R) -> R {
        self.lock.lock();
        // SAFETY: we hold the lock.
        let result = self.list.with_mut(|list| f(unsafe { &mut *list }));
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        result
    }

    /// Claims the waiting consumer, or leaves `node` in the list.
    ///
    /// # Safety
    /// `node` is bound to `waiter`, and is in no queue.
    pub(crate) unsafe fn claim_or_miss<'q>(&self, waiter: &'q Waiter, case: u32, node: LinkPtr) -> Option<Claim<'q>> {
        self.with(|list| {
            // Under this lock the consumer cannot begin to wait, so that no miss goes unseen (1).
            let claim = waiter.claim(case);
            if claim.is_none() {
                // SAFETY: the caller's promise; its owner takes it out of the list before it goes away.
                unsafe { list.push_back(node) };
            }
            claim
        })
    }

    /// Leaves `node` in the list unless the consumer waits; `true` when it was left.
    ///
    /// # Safety
    /// As for `claim_or_miss`.
    pub(crate) unsafe fn miss_unless_waiting(&self, waiter: &Waiter, node: LinkPtr) -> bool {
        self.with(|list| {
            let missed = !waiter.is_waiting();
            if missed {
                // SAFETY: as in `claim_or_miss`.
                unsafe { list.push_back(node) };
            }
            missed
        })
    }
}

/// What a consumer gets.
pub enum Next<T> {
    /// A value, from the registration with this key.
    Value(u32, T),
    /// The registration with this key has left, because its channel ended.
    Left(u32, End, Arc<Chan<T>>),
    /// Nothing is ready; the waker will be called.
    Parked,
    /// No channel is registered.
    Empty,
}

struct Registration<T> {
    node: Node<T>,
    chan: Arc<Chan<T>>,
}

/// A box whose content is only ever shared: queues keep pointers to it, which moving a `Box` would invalidate (a `Box` claims
/// to be the only way to its content).
struct Fixed<T>(NonNull<T>);

// SAFETY: it owns a `T`, and shares it with whoever finds it in a queue.
unsafe impl<T: Send + Sync> Send for Fixed<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Fixed<T> {}

impl<T> Fixed<T> {
    fn new(content: T) -> Self {
        Self(NonNull::from(Box::leak(Box::new(content))))
    }
}

impl<T> Deref for Fixed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: alive until `drop`; nobody makes a `&mut` to it.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and its owner took it out of every queue before.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// A standing select of receives. Used by one consumer; registrations are named by small keys.
pub struct Selecting<T> {
    // Queues point to the waiter and the nodes while the `Selecting` itself may move.
    waiter: Fixed<Waiter>,
    registrations: Vec<Option<Fixed<Registration<T>>>>,
    free: Vec<u32>,
    served: Option<u32>,
    parked: bool,
}

impl<T> Default for Selecting<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Selecting<T> {
    /// With no channel.
    pub fn new() -> Self {
        Self {
            waiter: Fixed::new(Waiter::persistent()),
            registrations: Vec::new(),
            free: Vec::new(),
            served: None,
            parked: false,
        }
    }

    fn ready(&self) -> &Ready {
        // A persistent waiter always has one.
        self.waiter.ready.as_deref().expect("a persistent waiter has a ready list")
    }

    /// Registers a channel; its key may have belonged to one that left. A waiting consumer looks at it at once.
    pub fn add(&mut self, chan: Arc<Chan<T>>) -> (u32, Wakes) {
        let key = self.free.pop().unwrap_or(self.registrations.len() as u32);
        let registration = Fixed::new(Registration { node: Node::new(None), chan });
        // SAFETY: a new node is in no queue; the waiter is fixed and goes away after every node was unlinked (`Drop`).
        unsafe { registration.node.bind(&raw const *self.waiter, key) };
        let link = Node::as_link(NonNull::from(&registration.node));
        if key as usize == self.registrations.len() {
            self.registrations.push(Some(registration));
        } else {
            self.registrations[key as usize] = Some(registration);
        }
        let mut wakes = Wakes::new();
        self.ready().with(|list| {
            // SAFETY: the node is in no queue, and is unlinked before it goes away.
            unsafe { list.push_back(link) };
            if let Some(claim) = self.waiter.claim(LOOK) {
                wakes.push(claim.finish());
            }
        });
        (key, wakes)
    }

    /// Takes a registration out. A value that had just been handed to it comes back, to be given back to the channel.
    pub fn discard(&mut self, key: u32) -> Option<(Option<T>, Arc<Chan<T>>)> {
        let registration = self.registrations.get_mut(key as usize)?.take()?;
        self.unlink(&registration);
        self.free.push(key);
        if self.served == Some(key) {
            self.served = None;
        }
        let met = self.parked && self.waiter.met() == Some(key);
        let value = if met {
            // SAFETY: the waiter was met with this case, so the slot is ours; the node is in no queue.
            unsafe { registration.node.take().0 }
        } else {
            None
        };
        // Whoever met the node has left it alone since: `unlink` passed through the channel's lock.
        let chan = Arc::clone(&registration.chan);
        Some((value, chan))
    }

    fn unlink(&self, registration: &Registration<T>) {
        let link = Node::as_link(NonNull::from(&registration.node));
        let chan = &registration.chan;
        chan.lock.lock();
        // SAFETY: both locks are held: the node's place is ours to read, and it is in this channel's queue, the list, or none.
        unsafe {
            chan.with_locked(|state| state.unlink(&registration.node));
            self.ready().with(|list| list.unlink(link));
            debug_assert!(place_of(link) == Place::Nowhere);
            chan.lock.unlock();
        }
    }

    /// How many channels are registered.
    pub fn len(&self) -> usize {
        self.registrations.len() - self.free.len()
    }

    /// Whether no channel is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The channels registered, with their keys.
    pub fn channels(&self) -> impl Iterator<Item = (u32, &Arc<Chan<T>>)> {
        self.registrations
            .iter()
            .enumerate()
            .filter_map(|(key, slot)| slot.as_ref().map(|registration| (key as u32, &registration.chan)))
    }

    /// The next event, or parks with the waker that `waker` makes. After a wake-up, call it again.
    pub fn next(&mut self, mut waker: impl FnMut() -> Waker, wakes: &mut Wakes) -> Next<T> {
        if self.parked {
            match self.waiter.met() {
                None => return Next::Parked,
                Some(key) => {
                    self.parked = false;
                    if let Some(next) = self.met(key) {
                        return next;
                    }
                }
            }
        }
        if let Some(key) = self.served.take()
            && let Some(registration) = &self.registrations[key as usize]
        {
            let link = Node::as_link(NonNull::from(&registration.node));
            // SAFETY: the node served last is in no queue (2).
            self.ready().with(|list| unsafe { list.push_back(link) });
        }
        loop {
            let mut first = self.ready().with(Queue::pop_front);
            if first.is_none() {
                if self.is_empty() {
                    return Next::Empty;
                }
                // Made before the lock is taken: a waker is foreign.
                let mut spare = Some(waker());
                first = self.ready().with(|list| {
                    let first = list.pop_front();
                    if first.is_none()
                        && let Some(waker) = spare.take()
                    {
                        // SAFETY: the waiter is ours and not armed; peers that hold one of its nodes wait for this lock (1).
                        unsafe { self.waiter.arm(waker) };
                    }
                    first
                });
            }
            let Some(first) = first else {
                self.parked = true;
                return Next::Parked;
            };
            // SAFETY: a node of ours; we alone bind it.
            let key = unsafe { case_of(first) };
            let Some(registration) = &self.registrations[key as usize] else {
                unreachable!("a discarded registration is in no list");
            };
            let chan = &registration.chan;
            chan.lock.lock();
            // SAFETY: the lock is held; the node is in no queue, and is unlinked before it goes away.
            let received = unsafe {
                let received = chan.with_locked(|state| state.recv_now(wakes));
                if let Received::Wait = received {
                    chan.with_locked(|state| state.park(&registration.node, false));
                }
                chan.lock.unlock();
                received
            };
            match received {
                Received::Done(value) => {
                    self.served = Some(key);
                    return Next::Value(key, value);
                }
                Received::Wait => {}
                Received::Ended(end) => return self.leave(key, end),
            }
        }
    }

    fn met(&mut self, key: u32) -> Option<Next<T>> {
        if key == LOOK {
            return None;
        }
        let registration = self.registrations[key as usize].as_ref()?;
        // SAFETY: the waiter was met with this case: the slot is ours.
        match unsafe { registration.node.take() } {
            (Some(value), _) => {
                // SAFETY: as above; the slot is made ready for the next time.
                unsafe { registration.node.put(None) };
                self.served = Some(key);
                Some(Next::Value(key, value))
            }
            (None, Outcome::Ended(end)) => Some(self.leave(key, end)),
            (None, _) => None,
        }
    }

    fn leave(&mut self, key: u32, end: End) -> Next<T> {
        match self.discard(key) {
            Some((_, chan)) => Next::Left(key, end, chan),
            None => Next::Empty,
        }
    }

    /// The consumer no longer waits. `false`: an event has come, [`next`](Self::next) will tell it at once.
    pub fn withdraw(&mut self) -> bool {
        if self.parked && self.waiter.withdraw() {
            // SAFETY: withdrawn: the waiter is ours.
            drop(unsafe { self.waiter.clear() });
            self.parked = false;
        }
        !self.parked
    }

    /// A parked consumer is to be woken through `waker` from now on.
    pub(crate) fn refresh(&self, waker: &Waker) {
        if self.parked {
            // When the offer is no longer open, `next` tells why.
            self.waiter.refresh(waker);
        }
    }

    /// Wakes a waiting consumer to look again: after the last channel was discarded it has nothing to wait for.
    pub fn nudge(&self) -> Wakes {
        let mut wakes = Wakes::new();
        self.ready().with(|_| {
            if let Some(claim) = self.waiter.claim(LOOK) {
                wakes.push(claim.finish());
            }
        });
        wakes
    }

    /// What a parked consumer was met with, for one that will not come for it.
    pub fn take_met(&mut self) -> Option<Next<T>> {
        if !self.parked {
            return None;
        }
        let key = self.waiter.met()?;
        self.parked = false;
        self.met(key)
    }

    /// Whether a parked consumer has something to look at: [`next`](Self::next) will not say [`Next::Parked`] before it has looked.
    pub fn is_met(&self) -> bool {
        !self.parked || self.waiter.met().is_some()
    }

    /// The waiter, for identification only.
    pub fn waiter(&self) -> *const Waiter {
        &raw const *self.waiter
    }
}

impl<T> Drop for Selecting<T> {
    fn drop(&mut self) {
        self.withdraw();
        for key in 0..self.registrations.len() as u32 {
            if let Some((Some(value), chan)) = self.discard(key) {
                let (_, wakes) = chan.give_back(value);
                wakes.wake();
            }
        }
    }
}
